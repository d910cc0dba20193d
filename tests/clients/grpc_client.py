"""Triton's client for gRPC against a server: python grpc_client.py URL ADDRESS KEY"""

import base64
import json
import re
import sys
import threading
import time
import urllib.request

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

url, address, key = sys.argv[1:]
KEY = {"authorization": f"Bearer {key}"}
CAT = "蓝色背景上的猫"
INPUTS = [("prompt", "BYTES", CAT.encode()), ("seed", "INT64", 7), ("steps", "INT32", 4), ("width", "INT32", 192),
          ("height", "INT32", 128), ("guidance", "FP32", 3.5), ("cache", "BYTES", b"N2-1000-0"), ("n", "INT32", 2)]
NUMPY = {"BYTES": np.object_, "INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
CONTENTS = {"BYTES": "bytes_contents", "INT64": "int64_contents", "INT32": "int_contents", "FP32": "fp32_contents"}
client = triton.InferenceServerClient(address)
stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))


def over_rest():
    """The same images, by the same protocol over REST."""
    inputs = [{"name": name, "shape": [1], "datatype": kind, "data": [value.decode() if kind == "BYTES" else value]}
              for name, kind, value in INPUTS]
    body = json.dumps({"inputs": inputs}).encode()
    request = urllib.request.Request(f"{url}/v2/models/emoji/infer", body, {"Authorization": f"Bearer {key}"})
    outputs = {output["name"]: output["data"] for output in json.load(urllib.request.urlopen(request))["outputs"]}
    return [base64.b64decode(image) for image in outputs["image"]]


def metric(name):
    text = urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}))
    found = re.search(rf"^{re.escape(name)} (\S+)$", text.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def by_contents(inputs=INPUTS, model="emoji", **more):
    tensors = [service_pb2.ModelInferRequest.InferInputTensor(
        name=name, datatype=kind, shape=[1], contents=service_pb2.InferTensorContents(**{CONTENTS[kind]: [value]}))
        for name, kind, value in inputs]
    return service_pb2.ModelInferRequest(model_name=model, inputs=tensors, **more)


def refused(call, code, *parts):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert all(part in error.details() for part in parts), error.details()
        return error
    raise AssertionError(f"expected {code}")


def infer(request, **options):
    return stub.ModelInfer(request, metadata=tuple(KEY.items()), **options)


def pictures():
    expected = over_rest()
    inputs = []
    for name, kind, value in INPUTS:
        tensor = triton.InferInput(name, [1], kind)
        tensor.set_data_from_numpy(np.array([value], dtype=NUMPY[kind]))
        inputs.append(tensor)
    answer = client.infer("emoji", inputs, request_id="42", headers=KEY)
    assert answer.get_response().id == "42" and answer.get_response().model_version == "1"
    assert answer.as_numpy("seed").tolist() == [7, 8] and answer.as_numpy("core_runs").tolist() == [2]
    assert answer.as_numpy("image").tolist() == expected, "other images than over REST"
    raw = infer(by_contents()).raw_output_contents[0]
    first = int.from_bytes(raw[:4], "little")
    assert raw[4:4 + first] == expected[0], "other images of contents than of bytes"
    seeds = client.infer("emoji", inputs[:3], outputs=[triton.InferRequestedOutput("seed")], headers=KEY)
    assert [output.name for output in seeds.get_response().outputs] == ["seed"]


def facts():
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("emoji", headers=KEY) and client.is_model_ready("emoji", "1", headers=KEY)
    assert client.get_server_metadata(headers=KEY).name == "hydit"
    model = client.get_model_metadata("emoji", headers=KEY)
    assert [tensor.name for tensor in model.outputs] == ["image", "seed", "core_runs"]
    assert {tensor.name: tensor.datatype for tensor in model.inputs}["prompt"] == "BYTES"


def errors():
    code = grpc.StatusCode
    refused(lambda: stub.ModelInfer(by_contents()), code.UNAUTHENTICATED, "Authorization: Bearer KEY")
    refused(lambda: infer(by_contents(model="dog")), code.NOT_FOUND, "dog")
    refused(lambda: infer(by_contents(model_version="7")), code.NOT_FOUND, "no other version than 1")
    refused(lambda: infer(by_contents([("seed", "INT64", 7)])), code.INVALID_ARGUMENT, "prompt is missing")
    refused(lambda: infer(by_contents([("猫", "BYTES", b"")])), code.INVALID_ARGUMENT, "猫")
    refused(lambda: infer(by_contents([("prompt", "BYTES", b"\xff")])), code.INVALID_ARGUMENT, "is not one BYTES")
    refused(lambda: infer(by_contents([*INPUTS[:1], ("seed", "INT64", 5), ("seed", "INT64", 5)])),
            code.INVALID_ARGUMENT, "given twice")
    refused(lambda: infer(by_contents(raw_input_contents=[b""])), code.INVALID_ARGUMENT, "raw_input_contents")
    shared = service_pb2.InferParameter(string_param="region")
    refused(lambda: infer(by_contents(parameters={"shared_memory_region": shared})), code.INVALID_ARGUMENT, "not built here")
    refused(lambda: infer(by_contents([("prompt", "BYTES", b"x" * (32 << 20))])), code.RESOURCE_EXHAUSTED, "larger than")
    refused(lambda: infer(by_contents(), compression=grpc.Compression.Gzip), code.UNIMPLEMENTED)
    refused(lambda: stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), metadata=tuple(KEY.items())), code.UNIMPLEMENTED)


def a_full_queue():
    codes = []

    def ask():
        try:
            infer(by_contents([*INPUTS[:1], ("steps", "INT32", 20)]))
            codes.append("drawn")
        except grpc.RpcError as error:
            codes.append(error.code().name)
            assert any(name == "retry-after" for name, _ in error.initial_metadata() or error.trailing_metadata())

    askers = [threading.Thread(target=ask) for _ in range(12)]
    [asker.start() for asker in askers]
    [asker.join() for asker in askers]
    assert set(codes) == {"drawn", "RESOURCE_EXHAUSTED"}, codes


def a_client_that_goes():
    cancelled = 'hydit_orders_total{outcome="cancelled"}'
    before = metric(cancelled)
    refused(lambda: infer(by_contents([*INPUTS[:1], ("steps", "INT32", 100)]), timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    for _ in range(100):
        if metric(cancelled) > before:
            return
        time.sleep(0.1)
    raise AssertionError("the order of a client that went away is not cancelled")


for part in (facts, pictures, errors, a_full_queue, a_client_that_goes):
    part()
    print(f"tritonclient over gRPC: {part.__name__.replace('_', ' ')}")
