"""Goldens of AutoencoderKL's two halves -> vae/<case>.{safetensors,json}, vae-encoder/<case>.{safetensors,json}

vae:
    image  [B, 3, f*h, f*w]  float32, vae.decode(latents / scaling_factor): about -1..1 when trained, not clamped

The input `latents` is what the sampler ends with, *before* the division by scaling_factor (a value of the config).

vae-encoder, of an `image` of the decoder's size with values in -1..1:
    moments  [B, 2*4, h, w]  float32, vae.encode(image).latent_dist.parameters: means, then logarithms of variances
"""

import torch
from diffusers import AutoencoderKL

import golden
import synthetic

torch.set_num_threads(2)


def config(channels, groups, layers_per_block, attention, post_quant=True, scaling_factor=0.5):
    return dict(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        layers_per_block=layers_per_block,
        norm_num_groups=groups,
        mid_block_add_attention=attention,
        use_quant_conv=post_quant,
        use_post_quant_conv=post_quant,
        scaling_factor=scaling_factor,
        sample_size=32,
    )


# name: (config, latents)
CASES = {
    "three-levels": (config([8, 16, 24], 4, 2, attention=False), [2, 4, 4, 6]),
    "mid-attention": (config([16, 32], 8, 1, attention=True, scaling_factor=0.13025), [1, 4, 6, 4]),
    "same-width": (config([12, 12, 24], 6, 1, attention=True, post_quant=False, scaling_factor=0.25), [3, 4, 3, 5]),
}


@torch.no_grad()
def decode(name: str, vae: AutoencoderKL, weights: str, shape: list[int], scale: float):
    specs = {"latents": {"shape": shape, "scale": scale}}
    latents = golden.make_inputs(specs, {})["latents"]
    image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    about = {"config": golden.public_config(vae), "weights": weights, "inputs": specs}
    golden.save(f"vae/{name}", about, {"image": image}, ["image"])


@torch.no_grad()
def encode(name: str, vae: AutoencoderKL, weights: str, shape: list[int]):
    """`shape` is that of the latents."""
    batch, _, height, width = shape
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    specs = {"image": {"shape": [batch, 3, factor * height, factor * width], "scale": 1.0}}
    moments = vae.encode(golden.make_inputs(specs, {})["image"]).latent_dist.parameters
    about = {"config": golden.public_config(vae), "weights": weights, "inputs": specs}
    golden.save(f"vae-encoder/{name}", about, {"moments": moments}, ["moments"])


if __name__ == "__main__":
    for name, (sizes, shape) in CASES.items():
        vae = synthetic.fill(AutoencoderKL(**sizes))
        decode(name, vae, "synthetic", shape, sizes["scaling_factor"])
        encode(name, vae, "synthetic", shape)
    emoji = AutoencoderKL.from_pretrained(golden.EMOJI / "vae").eval()
    for name, shape in {"emoji-8x8": [2, 4, 8, 8], "emoji-6x10": [1, 4, 6, 10]}.items():
        decode(name, emoji, "models/emoji/vae", shape, 1.0)
        encode(name, emoji, "models/emoji/vae", shape)
