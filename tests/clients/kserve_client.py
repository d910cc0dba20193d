"""KServe's and Triton's clients against a server: python kserve_client.py URL KEY ADDRESS, that of gRPC"""

import asyncio
import base64
import struct
import sys
from importlib import metadata

import httpx

import numpy as np

import tritonclient.http as triton
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from tritonclient.utils import InferenceServerException

url, key, address = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}"}
CAT = "蓝色背景上的猫"
# Name, datatype, value.
INPUTS = [
    ("prompt", "BYTES", CAT),
    ("negative_prompt", "BYTES", "red"),
    ("seed", "INT64", 7),
    ("steps", "INT32", 4),
    ("width", "INT32", 192),
    ("height", "INT32", 128),
    ("guidance", "FP32", 3.5),
    ("sampler", "BYTES", "dpmms"),
    ("cache", "BYTES", "N2-1000-0"),
    ("n", "INT32", 2),
]
# The same in other widths.
OTHERS = {"seed": "UINT64", "steps": "INT8", "width": "FP64", "height": "UINT16", "guidance": "FP64", "n": "UINT8"}
NUMPY = {
    "BYTES": np.object_, "INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "UINT64": np.uint64,
    "INT8": np.int8, "FP64": np.float64, "UINT16": np.uint16, "UINT8": np.uint8,
}


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n", png[:8]
    return struct.unpack(">II", png[16:24])


def array(datatype, value):
    return np.array([value.encode() if datatype == "BYTES" else value], dtype=NUMPY[datatype])


async def with_kserve():
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "emoji", headers=headers)
        pictures = {}
        for binary in (False, True):
            inputs = []
            for name, datatype, value in INPUTS:
                # As MLServer's clients describe their tensors.
                tensor = InferInput(name, [1], datatype, None if binary else [value], {"content_type": "str"})
                if binary:
                    tensor.set_data_from_numpy(array(datatype, value), binary_data=True)
                inputs.append(tensor)
            # Outputs in JSON both times: this client takes all bytes for text.
            request = InferRequest("emoji", inputs, request_id="42")
            answer = await client.infer(url, request, model_name="emoji", headers=dict(headers))
            assert answer.id == "42" and answer.model_name == "emoji"
            outputs = {output.name: output.as_numpy() for output in answer.outputs}
            assert outputs["seed"].tolist() == [7, 8] and outputs["core_runs"].tolist() == [2]
            pictures[binary] = [base64.b64decode(image) for image in outputs["image"].tolist()]
            assert [size(png) for png in pictures[binary]] == [(192, 128)] * 2
        assert pictures[False] == pictures[True], "the same pictures of JSON and of bytes"
        try:
            wrong = InferRequest("emoji", [InferInput("seed", [1], "INT64", [7])])
            await client.infer(url, wrong, model_name="emoji", headers=dict(headers))
            raise AssertionError("no prompt was taken")
        except httpx.HTTPStatusError as error:
            assert error.response.status_code == 400 and "prompt" in error.response.json()["error"]
        return pictures[True]


async def with_kserve_over_grpc():
    client = InferenceGRPCClient(address, timeout=60)
    key_of_call = [("authorization", headers["Authorization"])]
    assert await client.is_server_live(headers=key_of_call) and await client.is_server_ready(headers=key_of_call)
    assert await client.is_model_ready("emoji", headers=key_of_call)
    inputs = [InferInput(name, [1], datatype) for name, datatype, _ in INPUTS]
    for tensor, (_, datatype, value) in zip(inputs, INPUTS):
        tensor.set_data_from_numpy(array(datatype, value), binary_data=True)
    answer = await client.infer(InferRequest("emoji", inputs, request_id="42"), headers=key_of_call)
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    assert outputs["seed"].tolist() == [7, 8]
    return outputs["image"].tolist()


def with_triton():
    client = triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60)
    ask = {"headers": dict(headers)}
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("emoji", **ask) and client.is_model_ready("emoji", "1", **ask)
    assert "binary_tensor_data" in client.get_server_metadata(**ask)["extensions"]
    model = client.get_model_metadata("emoji", **ask)
    assert model["platform"] == "hydit" and model["versions"] == ["1"]
    declared = {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]}
    assert all(declared[name] == datatype for name, datatype, _ in INPUTS), declared

    inputs = []
    for name, datatype, value in INPUTS:
        tensor = triton.InferInput(name, [1], datatype)
        tensor.set_data_from_numpy(array(datatype, value))
        inputs.append(tensor)
    answer = client.infer("emoji", inputs, request_id="7", model_version="1", headers=dict(headers))
    assert answer.get_response()["id"] == "7"
    assert answer.as_numpy("seed").tolist() == [7, 8] and answer.as_numpy("core_runs").tolist() == [2]
    pictures = answer.as_numpy("image").tolist()

    others = []
    for name, datatype, value in INPUTS:
        datatype = OTHERS.get(name, datatype)
        others.append(triton.InferInput(name, [1], datatype))
        others[-1].set_data_from_numpy(array(datatype, value))
    answer = client.infer("emoji", others, parameters={"content_type": "str", "x": 1}, headers=dict(headers))
    assert answer.as_numpy("image").tolist() == pictures, "the same pictures of numbers of other widths"

    outputs = [triton.InferRequestedOutput("seed", binary_data=False)]
    answer = client.infer("emoji", inputs, outputs=outputs, headers=dict(headers))
    assert answer.as_numpy("seed").tolist() == [7, 8] and answer.as_numpy("image") is None
    for name, wanted in (("other", "404"), ("emoji", "400")):
        tensor = triton.InferInput("prompt", [1], "BYTES")
        tensor.set_data_from_numpy(array("BYTES", ""))
        try:
            client.infer(name, [tensor], headers=dict(headers))
            raise AssertionError("it was taken")
        except InferenceServerException as error:
            assert error.status() == wanted and "prompt" in str(error) or wanted == "404", error
    client.close()
    return pictures


first = asyncio.run(with_kserve())
print("kserve: health, inference in JSON and in bytes, an error")
assert asyncio.run(with_kserve_over_grpc()) == first, "the same pictures over gRPC"
print("kserve over gRPC: health, inference in bytes")
assert with_triton() == first, "the same pictures to every client"
print("tritonclient: health, metadata, inference in bytes, numbers of any width, chosen outputs, errors")
versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("kserve", "tritonclient"))
print(f"{versions} passed")
