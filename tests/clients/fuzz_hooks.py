"""What schemathesis is told besides the OpenAPI document: how sizes and cache policies are written, which inputs of
inference go together, and that nobody is in a hurry."""

import base64

import schemathesis
from hypothesis import strategies as st

SIDE = 16
PIXELS = 128 * 128  # --max-pixels of scripts/fuzz-api
# A PNG of 16x16, half transparent.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAYAAAAf8/9hAAAAGUlEQVR42mNwaDjQQAlmGDVg1IBRA4aLAQDA8QAfi9"
    "N5lgAAAABJRU5ErkJggg=="
)
# Fields that ask for what the model of scripts/fuzz-api was not exported with.
LACKING = ("control", "control_image", "image_prompt", "image_prompt_weight", "lora", "pag_scale", "pag_adaptive_scale")
PATIENCE = 60  # seconds: a shorter deadline is allowed, and a 504 its right answer


@st.composite
def sizes(draw):
    width = draw(st.integers(1, PIXELS // SIDE**2)) * SIDE
    width = min(width, 4096)
    height = draw(st.integers(1, min(PIXELS // width, 4096) // SIDE)) * SIDE
    return f"{width}x{height}"


numbers = st.integers(0, 1000).map(str)
intervals = st.integers(1, 9).map("N{}".format) | st.builds("N{}-{}-{}".format, st.integers(1, 9), numbers, numbers)
probes = st.builds("probe:0.{}".format, st.integers(1, 99))
forecasts = st.sampled_from(["", "+taylor1", "+taylor2"])
policies = st.builds("{}{}".format, intervals | probes, forecasts)
schemathesis.openapi.format("picture-size", st.just("auto") | sizes())
schemathesis.openapi.format("image-file", st.just(PNG))
schemathesis.openapi.media_type("image/png", st.just(base64.b64decode(PNG)))
schemathesis.openapi.format("guidance-interval", st.sampled_from(["0:1", "0.0:1e0"]))
schemathesis.openapi.format("controls", st.just("[]"))
schemathesis.openapi.format("cache-policy", st.sampled_from(["off", "usual"]) | policies)


@schemathesis.deserializer("image/png", "image/jpeg", "image/webp")
def picture(context, response):
    starts = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}
    start = starts[response.headers["content-type"][0]]
    assert response.content.startswith(start), response.content[:16]
    return [0]  # an array of bytes, as the document says


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes of what the document allows what this server takes: the document cannot say how fields go together."""
    if case.meta and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        image = PNG
        if "multipart" in case.media_type:
            image = case.body["image"] = base64.b64decode(PNG)
        if case.path.startswith("/sdapi/"):
            for field in ("width", "height", "scheduler", "n_iter"):
                case.body.pop(field, None)
        if case.path.endswith("/img2img"):
            case.body["denoising_strength"] = 1
        fit(case.body, image)


def fit(body, image):
    for field in LACKING:
        body.pop(field, None)
    if body.pop("class", None) is not None:  # the model reads texts
        body.setdefault("prompt", "a cat")
    for field in ("image", "mask"):
        if body.get(field) is not None:
            body[field] = image
    if body.get("image") or body.get("strength"):
        body["strength"] = 1  # less leaves none of a single step
    if body.get("init_images"):
        body["init_images"] = [image]
    if body.get("response_format") == "file":
        body["n"] = 1
    if body.get("guidance_interval"):
        body["guidance_interval"] = "0:1"
    if body.get("spacing"):
        body["spacing"] = "trailing"
    deadline = body.get("deadline")
    if isinstance(deadline, (int, float)) and not isinstance(deadline, bool) and 1 <= deadline < PATIENCE:
        body["deadline"] = PATIENCE
    if isinstance(body.get("inputs"), list):
        body["inputs"] = fitting(body["inputs"])
    if isinstance(body.get("outputs"), list):
        body["outputs"] = once(body["outputs"])


def has_name(tensor):
    return isinstance(tensor, dict) and isinstance(tensor.get("name"), str)


def once(tensors):
    """Each once. What is no tensor stays."""
    named = {each["name"]: each for each in tensors if has_name(each)}
    return [*named.values(), *(each for each in tensors if not has_name(each))]


def fitting(inputs):
    """Each input once; width only with height, both small; of an image only with the image."""
    named = {each["name"]: each for each in inputs if has_name(each) and each["name"] not in LACKING}
    if "image" not in named:
        named.pop("mask", None), named.pop("strength", None)
    elif "steps" in named:
        named["steps"]["data"] = [3]
    if "spacing" in named:
        named["spacing"]["data"] = ["trailing"]
    if "strength" in named:
        named["strength"] |= {"data": [1], "datatype": "FP32"}
    others = [each for each in inputs if not has_name(each)]
    sides = [named[side]["data"] for side in ("width", "height") if "data" in named.get(side, {})]
    if len(sides) < 2:
        named.pop("width", None), named.pop("height", None)
    elif all(isinstance(side, list) and side and isinstance(side[0], (int, float)) for side in sides):
        product = sides[0][0] * sides[1][0]
        if product > PIXELS and all(side[0] % SIDE == 0 for side in sides):
            sides[0][0] = sides[1][0] = 64
    return [*named.values(), *others]
