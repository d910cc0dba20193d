"""torch.randn of a CPU generator -> noise/noise.{safetensors,json}

    seed<s>/<k>   [1, 4, h, w]  the k-th draw (from 0) after manual_seed(s)

PyTorch's CPU generator is mt19937 seeded with the low 32 bits; a tensor of 16 values or more is filled with 24-bit
uniforms first and then turned into normals in blocks of 16 by Box-Muller (value j and j + 8 are a pair). All draws here
are multiples of 16. The logarithm, sine and cosine are those of PyTorch's vector code, so compare within 1e-5.
"""

import torch
from safetensors.torch import save_file

import golden

DRAWS = {42: [(16, 16), (16, 16)], 0: [(2, 2), (4, 4), (2, 2)], 7: [(8, 12), (8, 12)], 2**32 - 1: [(4, 4)], 2**32 + 42: [(4, 4)], 2**53 - 1: [(4, 4)]}


def main():
    tensors = {}
    for seed, sizes in DRAWS.items():
        generator = torch.Generator("cpu").manual_seed(seed)
        for k, (h, w) in enumerate(sizes):
            tensors[f"seed{seed}/{k}"] = torch.randn(1, 4, h, w, generator=generator)
    assert torch.equal(tensors[f"seed{2**32 + 42}/0"].flatten(), tensors["seed42/0"].flatten()[:64])
    golden.write_json("noise/noise.json", {name: list(tensor.shape) for name, tensor in tensors.items()})
    save_file(tensors, golden.HERE / "noise/noise.safetensors")


if __name__ == "__main__":
    main()
