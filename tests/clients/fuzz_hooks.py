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
schemathesis.openapi.format("cache-policy", st.sampled_from(["off", "usual"]) | policies)


@schemathesis.deserializer("image/png", "image/jpeg", "image/webp")
def picture(context, response):
    starts = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}
    start = starts[response.headers["content-type"][0]]
    assert response.content.startswith(start), response.content[:16]
    return [0]  # an array of bytes, as the document says


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    deadline = body.get("deadline")
    if isinstance(deadline, (int, float)) and not isinstance(deadline, bool) and 1 <= deadline < PATIENCE:
        body["deadline"] = PATIENCE
    if isinstance(body.get("inputs"), list):
        body["inputs"] = fitting(body["inputs"])
    if isinstance(body.get("outputs"), list):
        body["outputs"] = once(body["outputs"])
    return body


def has_name(tensor):
    return isinstance(tensor, dict) and isinstance(tensor.get("name"), str)


def once(tensors):
    """Each once. What is no tensor stays."""
    named = {each["name"]: each for each in tensors if has_name(each)}
    return [*named.values(), *(each for each in tensors if not has_name(each))]


def fitting(inputs):
    """Each input once; width only with height, both small."""
    named = {each["name"]: each for each in inputs if has_name(each)}
    others = [each for each in inputs if not has_name(each)]
    sides = [named[side]["data"] for side in ("width", "height") if "data" in named.get(side, {})]
    if len(sides) < 2:
        named.pop("width", None), named.pop("height", None)
    elif all(isinstance(side, list) and side and isinstance(side[0], (int, float)) for side in sides):
        product = sides[0][0] * sides[1][0]
        if product > PIXELS and all(side[0] % SIDE == 0 for side in sides):
            sides[0][0] = sides[1][0] = 64
    return [*named.values(), *others]
