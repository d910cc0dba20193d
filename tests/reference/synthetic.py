"""Weights and inputs made from their names, so that no file has to carry them.

Element i of a tensor is a pure function of the tensor's name and i; the same few lines in Rust give the
same bits. All integers are unsigned 64 bit and wrap around; i counts the elements in row-major order from 0.

    state(name) = FNV-1a-64 of the name's UTF-8 bytes:
                      h = 0xCBF29CE484222325; for each byte: h = (h XOR byte) * 0x100000001B3
    z(name, i)  = splitmix64's finaliser of state + (i + 1) * 0x9E3779B97F4A7C15:
                      z = (z XOR z >> 30) * 0xBF58476D1CE4E5B9
                      z = (z XOR z >> 27) * 0x94D049BB133111EB
                      z =  z XOR z >> 31
    u(name, i)  = (z >> 40) / 2^24                                in [0, 1), exact in f64 and in f32
    value       = f32(offset + (2 u - 1) * scale)                 in f64, rounded to f32 once, at the end

Offset and scale of a *weight* follow from its name and shape; the first line that fits counts:

    1. the name contains one of EMBEDDINGS                        offset 0   scale 1
    2. one dimension, the name ends in ".weight" (every norm)     offset 1   scale 0.1
    3. one dimension (every bias)                                 offset 0   scale 0.1
    4. anything else                                              offset 0   scale sqrt(3 / fan_in)
       with fan_in = the product of all dimensions but the first (Linear [out, in], Conv2d [out, in, kh, kw]),
       division and square root in f64

A weight's name is taken from "norm1.emb." on where it has that: copies of an embedder are equal.

A *float input* has the name "input.<name of the input>", offset 0 and a scale given with it;
an *integer input* is z mod range, named the same way.

Running this file writes synthetic.json: values to test a port with.
"""

import math

import numpy as np
import torch

EMBEDDINGS = [
    "_embeddings.weight",  # BERT: word_, position_ and token_type_embeddings.weight
    "shared.weight",  # T5
    "relative_attention_bias",  # T5
    "text_embedding_padding",  # Hunyuan-DiT, and the two below
    "positional_embedding",
    "style_embedder",
]


def fnv1a64(name: str) -> int:
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def bits(name: str, count: int) -> np.ndarray:
    """z(name, 0 .. count - 1) as uint64."""
    with np.errstate(over="ignore"):
        i = np.arange(1, count + 1, dtype=np.uint64)
        z = np.uint64(fnv1a64(name)) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def values(name: str, shape: list[int], scale: float, offset: float = 0.0) -> torch.Tensor:
    """A float32 tensor of this shape; see the top of this file."""
    u = (bits(name, math.prod(shape)) >> np.uint64(40)).astype(np.float64) / 2.0**24
    return torch.from_numpy((offset + (2.0 * u - 1.0) * scale).astype(np.float32)).reshape(shape)


def scale_and_offset(name: str, shape: list[int]) -> tuple[float, float]:
    """The rule for weights."""
    if any(part in name for part in EMBEDDINGS):
        return 1.0, 0.0
    if len(shape) == 1:
        return (0.1, 1.0) if name.endswith(".weight") else (0.1, 0.0)
    return math.sqrt(3.0 / math.prod(shape[1:])), 0.0


def weight(name: str, shape: list[int]) -> torch.Tensor:
    name = name[max(name.find("norm1.emb."), 0) :]
    return values(name, shape, *scale_and_offset(name, shape))


def fill(module: torch.nn.Module) -> torch.nn.Module:
    """Replaces every parameter of a module by its synthetic value. Tied parameters count once, by their first name."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weight(name, list(parameter.shape)))
    return module.eval()


def input_values(name: str, shape: list[int], scale: float) -> torch.Tensor:
    return values(f"input.{name}", shape, scale)


def input_integers(name: str, shape: list[int], range: int) -> torch.Tensor:
    z = bits(f"input.{name}", math.prod(shape)) % np.uint64(range)
    return torch.from_numpy(z.astype(np.int64)).reshape(shape)


def prefix_mask(lengths: list[int], length: int) -> torch.Tensor:
    """int64 [batch, length]: as many ones as `lengths` says, then zeros."""
    return (torch.arange(length)[None, :] < torch.tensor(lengths)[:, None]).long()


def f32_bits(value: torch.Tensor) -> int:
    return value.view(torch.int32).item() & 0xFFFFFFFF


def main():
    cases = [
        ("blocks.0.attn1.to_q.weight", [16, 16]),
        ("blocks.0.norm1.norm.weight", [16]),
        ("blocks.0.norm1.norm.bias", [16]),
        ("pos_embed.proj.weight", [16, 4, 2, 2]),
        ("text_embedding_padding", [12, 24]),
        ("time_extra_emb.pooler.positional_embedding", [8, 16]),
        ("time_extra_emb.style_embedder.weight", [1, 48]),
        ("embeddings.word_embeddings.weight", [50, 24]),
        ("embeddings.LayerNorm.weight", [24]),
        ("embeddings.LayerNorm.bias", [24]),
        ("shared.weight", [40, 20]),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", [8, 3]),
        ("encoder.block.0.layer.0.layer_norm.weight", [20]),
        ("decoder.up_blocks.0.resnets.0.conv1.weight", [8, 8, 3, 3]),
    ]
    weights = []
    for name, shape in cases:
        tensor = weight(name, shape).flatten()
        scale, offset = scale_and_offset(name, shape)
        indices = [0, 1, 2, len(tensor) - 1]
        weights.append(
            {
                "name": name,
                "shape": shape,
                "state": f"{fnv1a64(name):016x}",
                "scale": scale,
                "offset": offset,
                "values": [
                    {"index": i, "value": tensor[i].item(), "f32_bits": f"{f32_bits(tensor[i]):08x}"} for i in indices
                ],
            }
        )
    from golden import write_json  # golden imports this module

    latents = input_values("latents", [2, 4, 4, 4], 2.0).flatten()
    golden = {
        "z": [{"name": n, "index": i, "z": f"{bits(n, i + 1)[i]:016x}"} for n in ["", "a", "猫"] for i in [0, 1, 999]],
        "weights": weights,
        "input": {
            "name": "latents",
            "scale": 2.0,
            "values": [{"index": i, "value": latents[i].item()} for i in [0, 1, 127]],
        },
        "integers": {
            "name": "input_ids",
            "range": 50,
            "values": input_integers("input_ids", [8], 50).tolist(),
        },
    }
    write_json("synthetic.json", golden)


if __name__ == "__main__":
    main()
