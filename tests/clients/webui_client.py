"""A client library of AUTOMATIC1111's web UI, and what three front ends send, against the real server: URL KEY."""

import base64
import io
import json
import sys
import urllib.request
from urllib.parse import urlsplit

import webuiapi
from PIL import Image

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
assert api.get_progress()["progress"] == 0
api.interrupt()
print("webuiapi passed")

#: As the front ends send them, but for prompts, sizes and steps.
FRONT_ENDS = {
    "a role-playing front end": {
        "prompt": "best quality, a red apple", "negative_prompt": "lowres", "sampler_name": "DDIM", "scheduler": "Automatic",
        "steps": 3, "cfg_scale": 7, "width": 128, "height": 128, "restore_faces": False, "enable_hr": False,
        "hr_upscaler": "Latent", "hr_scale": 1, "hr_additional_steps": 0, "denoising_strength": 0.7, "clip_skip": 1,
        "seed": -1, "override_settings": {"CLIP_stop_at_last_layers": 1}, "override_settings_restore_afterwards": True,
        "save_images": True, "send_images": True, "do_not_save_grid": False, "do_not_save_samples": False,
    },
    "a chat front end": {"prompt": "a red apple", "batch_size": 1, "width": 128, "height": 128, "steps": 3, "scheduler": ""},
    "a front end with tools": {
        "prompt": "a red apple", "negative_prompt": "blur", "sampler_index": "DPM++ 2M Karras", "cfg_scale": 4.5, "steps": 3,
        "width": 128, "height": 128,
    },
}
for name, body in FRONT_ENDS.items():
    secret = base64.b64encode(f"user:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {secret}"}
    request = urllib.request.Request(f"{url}/sdapi/v1/txt2img", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        image = json.load(answer)["images"][0]
    assert Image.open(io.BytesIO(base64.b64decode(image))).size == (128, 128), name
print(f"requests of {len(FRONT_ENDS)} front ends passed")
