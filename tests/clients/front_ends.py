"""What four chat front ends send, as their sources have it, against the real server: URL KEY.

Sizes and prompts are small; steps are those that a front end sends, or few where its settings let people choose them.
"""

import base64
import json
import pathlib
import sys
import urllib.error
import urllib.request
import uuid

url, key = sys.argv[1:]
FOX = pathlib.Path("tests/reference/image_to_image/image-fox.png").read_bytes()
BEARER = {"Authorization": f"Bearer {key}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"any:{key}".encode()).decode()}
PNG = b"\x89PNG\r\n\x1a\n"


def send(path, headers, body=None, method=None):
    """The JSON of the answer to a body of JSON, or to `(type, bytes)`."""
    headers = dict(headers)
    if isinstance(body, tuple):
        headers["Content-Type"], body = body
    elif body is not None:
        headers["Content-Type"], body = "application/json", json.dumps(body).encode()
    request = urllib.request.Request(url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from None


def form(fields, files):
    """A form with files, each `(field, name, bytes)`."""
    boundary = uuid.uuid4().hex
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode() + data
              for field, name, data in files]
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def size(png):
    assert png[:8] == PNG, png[:8]
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def pictures(answer):
    """The files of OpenAI's answer, or of the web UI's."""
    found = answer.get("images") or [image["b64_json"] for image in answer["data"]]
    return [base64.b64decode(image.split(",", 1)[0], validate=True) for image in found]


def open_webui():
    fields = {"model": "emoji", "prompt": "a red apple", "n": 2, "size": "128x128", "response_format": "b64_json"}
    drawn = pictures(send("/v1/images/generations", BEARER, {**fields, "steps": 3, "cache": "usual"}))
    assert [size(png) for png in drawn] == [(128, 128)] * 2
    # One picture is the field `image`, several are `image[]`, of which the first counts here.
    for name in ("image", "image[]"):
        edit = {"model": "emoji", "prompt": "a blue fox", "n": "1", "size": "128x128", "response_format": "b64_json"}
        changed = pictures(send("/v1/images/edits", BEARER, form(edit, [(name, "image.png", FOX)])))
        assert size(changed[0]) == (128, 128)
    # With the web UI for an engine.
    [model] = send("/sdapi/v1/sd-models", BASIC)
    options = send("/sdapi/v1/options", BASIC)
    assert options["sd_model_checkpoint"] == model["title"], options
    send("/sdapi/v1/options", BASIC, {**options, "sd_model_checkpoint": model["title"]})
    fields = {"prompt": "a red apple", "batch_size": 1, "width": 128, "height": 128, "steps": 3, "negative_prompt": "blur",
              "cfg_scale": 7.0, "sampler_name": "Euler a", "scheduler": "Automatic"}
    answer = send("/sdapi/v1/txt2img", BASIC, fields)
    assert size(pictures(answer)[0]) == (128, 128) and isinstance(answer["info"], str)


def librechat():
    fields = {"model": "gpt-image-1", "prompt": "a red apple", "n": 1, "background": "auto", "output_format": "png",
              "quality": "auto", "size": "auto"}
    assert size(pictures(send("/v1/images/generations", BEARER, fields))[0]) == (128, 128)
    packed = {**fields, "output_format": "webp", "output_compression": 100}
    assert pictures(send("/v1/images/generations", BEARER, packed))[0][8:12] == b"WEBP"
    edit = {"model": "gpt-image-1", "prompt": "a blue fox", "quality": "auto", "size": "auto"}
    changed = pictures(send("/v1/images/edits", BEARER, form(edit, [("image[]", "fox.png", FOX)])))
    assert size(changed[0]) == (128, 128)
    # Its tool for the web UI asks for 1024x1024.
    fields = {"prompt": "a red apple, on a table", "negative_prompt": "blur", "sampler_index": "DPM++ 2M Karras", "cfg_scale": 4.5,
              "steps": 22, "width": 128, "height": 128}
    answer = send("/sdapi/v1/txt2img", BASIC, fields)
    info = json.loads(answer["info"])
    assert size(pictures(answer)[0]) == (info["width"], info["height"]) == (128, 128)
    assert "Steps: 22" in info["infotexts"][0].split("\n")[-1] and isinstance(info["seed"], int)


def lobechat():
    for more in ({}, {"size": "192x128"}):
        answer = send("/v1/images/generations", BEARER, {"model": "gpt-image-1", "n": 1, "prompt": "a red apple", **more})
        assert size(pictures(answer)[0]) == ((192, 128) if more else (128, 128))
        # What its bill is reckoned from.
        assert answer["usage"]["input_tokens_details"]["text_tokens"] == 0 < answer["usage"]["output_tokens"], answer["usage"]
    edit = {"model": "gpt-image-1", "n": "1", "prompt": "a blue fox", "input_fidelity": "high"}
    changed = pictures(send("/v1/images/edits", BEARER, form(edit, [("image", "fox.png", FOX)])))
    assert size(changed[0]) == (128, 128)


def sillytavern():
    # Its button to connect, then its menus.
    chosen = send("/sdapi/v1/options", BASIC)["sd_model_checkpoint"]
    samplers = [one["name"] for one in send("/sdapi/v1/samplers", BASIC)]
    schedulers = [one["name"] for one in send("/sdapi/v1/schedulers", BASIC)]
    models = [one["title"] for one in send("/sdapi/v1/sd-models", BASIC)]
    # Its menu of upscalers is made of both lists, that of VAEs of the first that is there.
    upscalers = [one["name"] for kind in ("upscalers", "latent-upscale-modes") for one in send(f"/sdapi/v1/{kind}", BASIC)]
    assert upscalers == ["None"] and send("/sdapi/v1/sd-vae", BASIC) == []
    assert chosen in models and "DPM++ 2M" in samplers and "automatic" in schedulers
    send("/sdapi/v1/options", BASIC, {"sd_model_checkpoint": chosen})
    waits = send("/sdapi/v1/progress", BASIC)
    assert waits["progress"] == 0 and waits["state"]["job_count"] == 0, waits
    fields = {
        "url": url, "auth": f"any:{key}", "prompt": "best quality, a red apple", "negative_prompt": "lowres",
        "sampler_name": "DPM++ 2M", "scheduler": "Automatic", "steps": 3, "cfg_scale": 7, "width": 128, "height": 128,
        "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 1, "hr_additional_modules": [],
        "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": -1, "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True,
        "do_not_save_grid": False, "do_not_save_samples": False,
    }
    assert size(pictures(send("/sdapi/v1/txt2img", BASIC, fields))[0]) == (128, 128)
    send("/sdapi/v1/interrupt", BASIC, method="POST")


for front_end in (open_webui, librechat, lobechat, sillytavern):
    front_end()
    print(f"{front_end.__name__}: its requests passed")
