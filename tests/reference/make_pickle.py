"""Writes pickle/: files of torch.save, and in pickle.json what torch reads in them.

    python make_pickle.py           # torch 2.15.0: all files but one
    python make_pickle.py --old     # torch 1.6.0 on Python 3.8: torch-1.6.pt and torch-1.6.json

The JSON has per file and tensor, by its dotted name:
    dtype, shape, strides    as torch says, strides in elements
    offset                   of the first element in its storage, in elements
    storage                  a number that tensors of one storage share
    crc32                    of the elements, contiguous and little-endian
    first                    up to three elements, as numbers
"""

import json
import sys
import zlib
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent / "pickle"
OLD = "--old" in sys.argv


def numbers(*shape, dtype=torch.float32):
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float32) * 0.25 - 2).reshape(shape).to(dtype)


def small_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 2))


def views():
    base = numbers(4, 6)
    return {
        "base": base,
        "rows": base[1:3],
        "columns": base[:, 2:5],
        "every_second": base[::2, 1::2],
        "transposed": base.t(),
        "permuted": numbers(2, 3, 4).permute(2, 0, 1),
        "channels_last": numbers(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "expanded": base[:2].unsqueeze(1).expand(2, 2, 6),
        "element": base[3, 5],
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "same": base,
    }


def plain():
    return {
        "weight": numbers(2, 3),
        "half": numbers(5, dtype=torch.float16),
        "steps": 300,
        "negative": -70000,
        "large": -(2**62) - 1,
        "rate": 1e-4,
        "flags": [True, False, None],
        "name": "混元",
        "shape": (1, 2, 3, 4),
        7: "seven",
    }


def dtypes():
    names = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
    if not OLD:
        names += "uint16 uint32 uint64 float8_e4m3fn float8_e5m2".split()
    tensors = {name: torch.arange(6).to(getattr(torch, name)) for name in names}
    # Storages of bytes have offsets too.
    return {**tensors, **{name + "_view": tensor[2:] for name, tensor in tensors.items()}}


def wrapped():
    """As training scripts, DeepSpeed and Lightning save."""
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model[0](numbers(1, 2, 3, 3)).sum().backward()
    optimizer.step()
    return {
        "module": model.state_dict(),
        "ema": OrderedDict((name, value * 0.5) for name, value in model.state_dict().items()),
        "optimizer": optimizer.state_dict(),
        "buffer_names": ["1.running_mean"],
        "param_shapes": [OrderedDict((name, value.shape) for name, value in model.named_parameters())],
        "sparse_tensor_module_names": set(),
        "device": torch.device("cuda", 0),
        "dtype": torch.bfloat16,
        "ds_version": "0.6.3",
        "global_steps": 300000,
    }


def tensors_of(value, name=""):
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors_of(inner, "%s.%s" % (name, key) if name else str(key))
    elif isinstance(value, (list, tuple)):
        yield from tensors_of(dict(enumerate(value)), name)


def describe(value):
    storages = {}
    described = {}
    for name, tensor in tensors_of(value):
        storage = tensor.storage().data_ptr() if OLD else tensor.untyped_storage().data_ptr()
        # Empty storages have no address, and are one each.
        key = storage or name
        content = tensor.detach().contiguous()
        raw = b"" if content.numel() == 0 else bytes_of(content)
        described[name] = {
            "dtype": str(tensor.dtype).replace("torch.", ""),
            "shape": list(tensor.shape),
            "strides": list(tensor.stride()),
            "offset": tensor.storage_offset(),
            "storage": storages.setdefault(key, len(storages)),
            "crc32": zlib.crc32(raw),
            "first": content.to(torch.float64).flatten()[:3].tolist(),
        }
    return described


def bytes_of(tensor):
    if OLD:
        return tensor.numpy().tobytes()
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


def write_json(name, value):
    lines = []
    for file, tensors in value.items():
        inner = ",\n".join("  %s: %s" % (json.dumps(key), json.dumps(about)) for key, about in tensors.items())
        lines.append(" %s: {\n%s\n }" % (json.dumps(file), inner))
    (HERE / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def save(name, value, **options):
    torch.save(value, str(HERE / (name + ".pt")), **options)


def make_old():
    model = small_model()
    value = {"module": model.state_dict(), "parameters": dict(model.named_parameters()), "views": views()}
    save("torch-1.6", value)
    loaded = torch.load(str(HERE / "torch-1.6.pt"))
    write_json("torch-1.6.json", {"torch-1.6": describe(loaded)})


def make():
    good = {
        "state-dict": small_model().state_dict(),
        "parameters": dict(small_model().named_parameters()),
        "plain": plain(),
        "views": views(),
        "dtypes": dtypes(),
        "wrapped": wrapped(),
        "tensor": numbers(3),
    }
    for name, value in good.items():
        save(name, value)
    for protocol in (3, 4, 5):
        good["protocol-%d" % protocol] = {**wrapped(), **dtypes()}
        save("protocol-%d" % protocol, good["protocol-%d" % protocol], pickle_protocol=protocol)
    read = {name: torch.load(HERE / (name + ".pt"), weights_only=False) for name in good}
    write_json("pickle.json", {name: describe(value) for name, value in read.items()})

    save("refused-legacy", plain(), _use_new_zipfile_serialization=False)
    save("refused-module", small_model())
    save("refused-numpy", {"weight": numbers(3).numpy()})
    save("refused-sparse", {"weight": numbers(3).to_sparse()})
    save("refused-complex", {"weight": torch.zeros(2, dtype=torch.complex64)})
    save("refused-negative", {"weight": torch._neg_view(numbers(3))})
    save("refused-expanded", {"weight": numbers(3)[:, None].expand(3, 4)})
    save("refused-large-integer", {"seed": 2**64 - 1})
    # From a text, since the file would have the path of a source in it.
    program = torch.jit.ScriptModule()
    program.define("def forward(self, x: Tensor) -> Tensor:\n    return x + 1\n")
    program.save(HERE / "refused-torchscript.pt")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    if OLD:
        make_old()
    else:
        make()
