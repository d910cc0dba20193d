"""Triton's ONNX Runtime backend, which no package carries, by its Python backend and the onnxruntime package."""

import json
import pathlib

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = pathlib.Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(folder / config["default_model_filename"], options)
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        made = self.session.run(self.outputs, given)
        return triton.InferenceResponse([triton.Tensor(name, value) for name, value in zip(self.outputs, made)])
