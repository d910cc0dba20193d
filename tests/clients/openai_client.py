"""OpenAI's official Python client against a server: python openai_client.py URL KEY"""

import base64
import struct
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
CAT = "蓝色背景上的猫"


def draw(**fields):
    extra = {"steps": 3, "seed": 7, **fields.pop("extra_body", {})}
    return client.images.generate(prompt=CAT, model="emoji", extra_body=extra, **fields)


def picture(image):
    return base64.b64decode(image.b64_json, validate=True)


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n", png[:8]
    return struct.unpack(">II", png[16:24])


def refused(error, **fields):
    try:
        draw(**fields)
    except error as caught:
        return caught
    raise AssertionError(f"{fields}: expected {error.__name__}")


answer = draw(size="192x128")
plain = picture(answer.data[0])
assert size(plain) == (192, 128), "WIDTHxHEIGHT"
assert answer.size == "192x128" and answer.output_format == "png" and answer.background == "opaque"
assert answer.usage.total_tokens == answer.usage.output_tokens == 12 * 8, answer.usage
assert answer.usage.input_tokens_details.text_tokens == 0
hydit = answer.model_extra["hydit"]
assert hydit["seeds"] == [7] and hydit["steps"] == hydit["core_runs"] == 3, hydit
assert picture(draw(size="192x128").data[0]) == plain, "the same seed, the same picture"
print("generate: a 192x128 PNG, twice the same")

two = draw(n=2, size="192x128")
assert two.model_extra["hydit"]["seeds"] == [7, 8]
assert picture(two.data[0]) != picture(two.data[1])
print("n=2: two pictures of two seeds")

cached = draw(extra_body={"cache": "N2-1000-0", "steps": 6, "negative_prompt": "red", "guidance": 3.5})
assert cached.model_extra["hydit"]["core_runs"] == 3, cached.model_extra
print("cache: 3 core runs of 6 steps")

assert picture(draw(output_format="jpeg", output_compression=80).data[0])[:3] == b"\xff\xd8\xff"
webp = picture(draw(output_format="webp").data[0])
assert webp[:4] == b"RIFF" and webp[8:16] == b"WEBPVP8L", "lossless"
assert b"tEXthydit" not in plain and b"iTXthydit" in picture(draw(extra_body={"metadata": True}).data[0])
print("jpeg, webp, and parameters only when asked for")

lent = draw(size="192x128", response_format="url").data[0]
assert lent.b64_json is None and lent.url.startswith(f"{url}/v1/pictures/") and lent.url.endswith("/0.png")
with urllib.request.urlopen(lent.url) as file:  # without the key
    assert file.headers["content-type"] == "image/png" and file.read() == plain
lent = client.images.edit(
    image=open("tests/reference/image_to_image/image-fox.png", "rb"), prompt=CAT, response_format="url", extra_body={"steps": 3}
)
with urllib.request.urlopen(lent.data[0].url) as file:
    assert size(file.read()) == (128, 128)
print("url: an address that gives the picture without the key")

for partials in (0, 2):
    with draw(stream=True, partial_images=partials, size="192x128", extra_body={"steps": 6}) as stream:
        events = list(stream)
    types = [event.type for event in events]
    assert types == ["image_generation.partial_image"] * partials + ["image_generation.completed"], types
    assert [event.partial_image_index for event in events[:-1]] == list(range(partials))
    pictures = [picture(event) for event in events]
    assert all(size(png) == (192, 128) for png in pictures)
    assert len(set(pictures)) == partials + 1, "each nearer to the last"
    last = events[-1]
    assert last.size == "192x128" and last.usage.output_tokens == 96 and last.created_at > 1_700_000_000
    assert pictures[-1] == picture(draw(size="192x128", extra_body={"steps": 6}).data[0])
print("stream: pictures on the way, then the very picture of a plain request")

FOX = open("tests/reference/image_to_image/image-fox.png", "rb").read()
MASK = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAYAAAAf8/9hAAAAGUlEQVR42mNwaDjQQAlmGDVg1IBRA4aLAQDA8QAf"
    "i9N5lgAAAABJRU5ErkJggg=="
)  # 16x16, half transparent everywhere: all is painted anew


def edit(**fields):
    extra = {"steps": 6, "seed": 7, "sampler": "ddim", **fields.pop("extra_body", {})}
    return client.images.edit(prompt=CAT, model="emoji", extra_body=extra, **fields)


near, far = (edit(image=FOX, extra_body={"strength": strength}) for strength in (0.5, 1.0))
assert near.model_extra["hydit"]["steps"] == 3 and far.model_extra["hydit"]["steps"] == 6
assert size(picture(near.data[0])) == (128, 128), "the image's"
assert picture(near.data[0]) != picture(far.data[0])
named = edit(image=[("fox.png", FOX, "image/png")], size="192x128", response_format="b64_json", n=2)
assert size(picture(named.data[1])) == (192, 128) and named.model_extra["hydit"]["seeds"] == [7, 8]
masked = edit(image=FOX, mask=MASK, extra_body={"strength": 0.5, "cache": "N2-1000-0", "metadata": True})
assert masked.model_extra["hydit"]["core_runs"] == 2, masked.model_extra
assert b"mask_sha256" in picture(masked.data[0])
with edit(image=FOX, stream=True, partial_images=1) as stream:
    events = list(stream)
assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
print("edit: from an image, with a mask, as a stream")
try:
    edit(image=FOX, mask=FOX)
    raise AssertionError("a mask without transparency was taken")
except openai.BadRequestError as caught:
    assert caught.param == "mask", caught.body

error = refused(openai.BadRequestError, size="100x100")
assert (error.param, error.code, error.type) == ("size", "invalid_value", "invalid_request_error"), error.body
assert refused(openai.BadRequestError, extra_body={"colour": "red"}).param == "colour"
assert refused(openai.BadRequestError, stream=True, n=2).param == "n"
assert refused(openai.BadRequestError, response_format="path").param == "response_format"
assert refused(openai.BadRequestError, extra_body={"model": None, "steps": "4"}).param == "steps"
assert refused(openai.NotFoundError, extra_body={"model": "other"}).code == "model_not_found"
try:
    client.images.edit(image=("large.png", bytes(8 << 20)), prompt=CAT)
    raise AssertionError("what is no picture was taken")
except openai.BadRequestError as caught:
    assert caught.param == "image" and "not a PNG" in caught.message, caught
try:
    client.post("/images/variations", body={}, cast_to=object)
    raise AssertionError("variations are not built")
except openai.NotFoundError as caught:
    assert "send the image to /v1/images/edits" in caught.message, caught
stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
try:
    stranger.images.generate(prompt=CAT)
    raise AssertionError("a wrong key was taken")
except openai.AuthenticationError as caught:
    assert caught.code == "invalid_api_key"
print("errors: bad fields by name, unknown models, what is not built, wrong keys")

for name in ("gpt-image-1", ""):
    named = client.images.generate(prompt=CAT, model=name, quality="high", extra_body={"steps": 1})
    assert named.model_extra["hydit"]["model"] == "emoji"
assert client.models.retrieve("hub/emoji").id == "emoji"
print("models by other names")

with ThreadPoolExecutor(16) as pool:
    def late(seed):
        try:
            return draw(extra_body={"seed": seed, "steps": 50})
        except openai.RateLimitError as caught:
            return caught
    answers = list(pool.map(late, range(16)))
full = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
assert 0 < len(full) < 16, f"{len(full)} of 16 were refused"
assert all(error.code in ("queue_full", "key_queue_full") for error in full)
assert all(int(error.response.headers["retry-after"]) >= 1 for error in full)
print(f"overload: {len(full)} of 16 got RateLimitError with Retry-After, the others a picture")

models = client.models.list().data
assert [model.id for model in models] == ["emoji"] and models[0].object == "model"
assert client.models.retrieve("emoji").model_extra["hydit"]["size"] == "128x128"
print("models: listed and retrieved")
print(f"openai {openai.__version__} (PyPI) passed")
