"""How a golden is stored: <name>.safetensors with the outputs, <name>.json with what made them.

The JSON of a module golden has
    config      the module's config.json, as diffusers or transformers reads it
    weights     "synthetic" (see synthetic.py) or the checkpoint folder
    inputs      per input one of
                    {"shape": [..], "scale": s}         float32, synthetic.input_values(name, shape, scale)
                    {"shape": [..], "range": r}         int64, synthetic.input_integers(name, shape, r)
                    {"values": [..]}                    written out, with its "dtype"
                    {"lengths": [..], "length": n}      int64 mask [batch, n], a prefix of ones per row
                    {"stored": true}                    a tensor of this name in the .safetensors
                    {"stored": true, "in": file, "as": other}   a tensor `other` of another golden of this folder
    outputs     name -> shape
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

import synthetic

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
MODELS = REPOSITORY / "models"
EMOJI = MODELS / "emoji"
DTYPES = {"float32": torch.float32, "int64": torch.int64}


def make_inputs(specs: dict, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that the `inputs` of a golden describe."""
    return {name: make_input(name, spec, stored) for name, spec in specs.items()}


def make_input(name: str, spec: dict, stored: dict[str, torch.Tensor]) -> torch.Tensor:
    if "scale" in spec:
        return synthetic.input_values(name, spec["shape"], spec["scale"])
    if "range" in spec:
        return synthetic.input_integers(name, spec["shape"], spec["range"])
    if "values" in spec:
        return torch.tensor(spec["values"], dtype=DTYPES[spec["dtype"]])
    if "lengths" in spec:
        return synthetic.prefix_mask(spec["lengths"], spec["length"])
    return stored[name]


def public_config(module) -> dict:
    """The module's configuration as config.json would have it, without private and file-related keys."""
    config = json.loads(module.config.to_json_string() if hasattr(module.config, "to_json_string") else module.to_json_string())
    dropped = ("_name_or_path", "_diffusers_version", "transformers_version")
    return {key: value for key, value in config.items() if key not in dropped}


def save(path: str, about: dict, tensors: dict[str, torch.Tensor], outputs: list[str]):
    """Writes the two files of a golden; `path` is relative to this folder and has no extension."""
    file = HERE / path
    file.parent.mkdir(exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        assert torch.isfinite(tensor).all(), f"{path}: {name} is not finite"
    save_file(tensors, file.with_suffix(".safetensors"))
    about = {**about, "outputs": {name: list(tensors[name].shape) for name in outputs}}
    write_json(path + ".json", about)
    size = file.with_suffix(".safetensors").stat().st_size
    print(f"{path}: {size:,} bytes; largest output {max(tensors[name].abs().max().item() for name in outputs):.3g}")


def write_json(path: str, value):
    """Indented, with lists of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([-+.,\deE\s]+?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    (HERE / path).parent.mkdir(exist_ok=True)
    (HERE / path).write_text(text + "\n")
