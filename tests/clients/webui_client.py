"""A client library of AUTOMATIC1111's web UI against the real server: URL KEY."""

import sys
from urllib.parse import urlsplit

import webuiapi

url, key = sys.argv[1:]
place = urlsplit(url)
api = webuiapi.WebUIApi(host=place.hostname, port=place.port, username="anyone", password=key)

samplers = [sampler["name"] for sampler in api.get_samplers()]
assert samplers == ["DDPM", "DDIM", "DPM++ 2M", "UniPC", "Euler", "Euler a", "LCM"], samplers
title = api.get_sd_models()[0]["title"]
assert api.util_get_current_model() == title and api.util_get_model_names() == [title]
api.util_set_model(title.split(" ")[0])
drawn = api.txt2img(prompt="a cat", negative_prompt="a dog", seed=5, steps=4, cfg_scale=5, width=128, height=128,
                    sampler_name="DPM++ 2M", batch_size=2)
assert [image.size for image in drawn.images] == [(128, 128)] * 2, drawn.images
assert drawn.info["all_seeds"] == [5, 6] and "Steps: 4" in drawn.info["infotexts"][0], drawn.info
assert "a cat" in drawn.images[0].info["parameters"], "the picture carries its parameters"
told = api.png_info(drawn.images[0])
assert told.info == drawn.info["infotexts"][0], told.info
for empty in ("latent_upscale_modes", "sd_vae", "hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles"):
    assert getattr(api, f"get_{empty}")() == [], empty
assert api.get_embeddings() == {"loaded": {}, "skipped": {}} and api.get_scripts() == {"txt2img": [], "img2img": []}
assert api.refresh_checkpoints() is None
assert api.get_progress()["progress"] == 0
api.interrupt()
print("webuiapi passed")
