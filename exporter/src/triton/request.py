"""A prompt and a seed as the inputs of the pipeline. Needs numpy, safetensors and tokenizers beside Triton's Python.

The plans in this folder, written by `hydit-serve plan --tensors`, are what image size, sampler, steps and cache policy
come from; the first by name is the default.
"""

import pathlib

import numpy
import triton_python_backend_utils as triton
from safetensors.numpy import load_file
from tokenizers import Tokenizer


#: By the suffixes of the two tokenizers' inputs.
PAD_IDS = {"": __PAD_ID__, "_t5": __PAD_ID_2__}


class TritonPythonModel:
    def initialize(self, args):
        folder = pathlib.Path(args["model_repository"]) / args["model_version"]
        self.plans = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        first = next(iter(self.plans.values()))
        self.tokenizers = {}
        for suffix, file in (("", "tokenizer.json"), ("_t5", "tokenizer_2.json")):
            ids = first[f"input_ids{suffix}"]
            tokenizer = Tokenizer.from_file(str(folder / file))
            tokenizer.enable_truncation(ids.shape[1])
            tokenizer.enable_padding(length=ids.shape[1], pad_id=PAD_IDS[suffix])
            self.tokenizers[suffix] = tokenizer

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        try:
            inputs = self.inputs(request)
        except ValueError as error:
            return triton.InferenceResponse([], triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
        return triton.InferenceResponse([triton.Tensor(name, value) for name, value in inputs.items()])

    def inputs(self, request):
        name = text(request, "plan") or next(iter(self.plans))
        if name not in self.plans:
            raise ValueError(f"plan: there is no {name!r}; there are {', '.join(self.plans)}")
        inputs = dict(self.plans[name])
        images = len(inputs["latents"])
        # The first half of the rows is the negative prompt's.
        texts = [text(request, "negative_prompt")] * images + [text(request, "prompt")] * images
        for suffix, tokenizer in self.tokenizers.items():
            tokens = tokenizer.encode_batch(texts)
            inputs[f"input_ids{suffix}"] = numpy.array([row.ids for row in tokens], numpy.int64)
            inputs[f"attention_mask{suffix}"] = numpy.array([row.attention_mask for row in tokens], numpy.int64)
        seeds = [number(request, "seed") + image for image in range(images)]
        generators = [numpy.random.RandomState(seed & 0xFFFFFFFF) for seed in seeds]
        draw = lambda: numpy.stack([randn(generator, inputs["latents"].shape[1:]) for generator in generators])
        if "from_image" in inputs and inputs["from_image"][0]:
            inputs["sample"] = draw()
        inputs["latents"] = draw()
        if len(inputs["noise"]) > 1:
            inputs["noise"] = numpy.stack([draw() for _ in inputs["noise"]])
        return inputs


def text(request, name):
    tensor = triton.get_input_tensor_by_name(request, name)
    if tensor is None:
        return ""
    try:
        return tensor.as_numpy().reshape(-1)[0].decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not UTF-8") from None


def number(request, name):
    tensor = triton.get_input_tensor_by_name(request, name)
    return 0 if tensor is None else int(tensor.as_numpy().reshape(-1)[0])


def randn(generator, shape):
    """torch.randn of a seeded generator on the CPU, for multiples of 16 numbers."""
    words = generator.randint(0, 1 << 32, size=numpy.prod(shape), dtype=numpy.uint32)
    uniform = ((words & 0xFFFFFF).astype(numpy.float32) / numpy.float32(1 << 24)).reshape(-1, 2, 8)
    radius = numpy.sqrt(-2 * numpy.log(1 - uniform[:, 0]))
    angle = numpy.float32(2 * numpy.pi) * uniform[:, 1]
    return numpy.stack([radius * numpy.cos(angle), radius * numpy.sin(angle)], 1).reshape(shape)
