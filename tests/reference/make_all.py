"""Makes every golden again, in the order in which they need each other. About a minute on two cores."""

import subprocess
import sys

import golden

SCRIPTS = [
    "synthetic.py",
    "make_rope.py",
    "make_text_encoders.py",
    "make_transformers.py",  # reads the states that make_text_encoders.py stored
    "make_vae.py",
    "make_tokenizers.py",
    "make_sentencepiece.py",
    "make_samplers.py",
    "make_refresh.py",
    "make_image.py",
    "make_noise.py",
    "make_pickle.py",  # all but torch-1.6, which needs that version
    "skip_cache.py",  # only checks itself
    "make_pictures.py",
    "make_lora.py",
    "make_image_to_image.py",
    "make_control.py",
    "make_canny.py",
    "make_pag.py",
    "make_dit.py",
    "make_plain_dit.py",
    "make_made_up_pictures.py",  # needs target/release/hydit-export
    "make_ip_adapter.py",  # likewise
]

for script in SCRIPTS:
    print(f"== {script}", flush=True)
    subprocess.run([sys.executable, golden.HERE / script], check=True)
