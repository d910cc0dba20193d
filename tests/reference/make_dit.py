"""Skip-DiT, class to image, in PyTorch -> skip_dit/parts.{safetensors,json}, skip_dit/pictures.json, skip_dit/*.png,
skip_dit/trained.json, skip_dit/refresh.json

The model is that of skip_dit.py. Its weights are synthetic under the names of its authors' state_dict, so that
`hydit-export synth --variant skip-dit` writes the same checkpoint.

parts, of a model of depth 28 and width 64:
    extra       [B, hidden]          the class's embedding
    temb        [B, hidden]          the timestep's embedding plus that
    skip_<i>    [B, tokens, hidden]  output of block i
    deep_<n>    [B, tokens, hidden]  output of block depth-1-n: the deep core of a model that is cut at n
    noise_pred  [B, 2*c, side, side]

pictures: whole ones by `draw`: ancestral steps with the learned variance, or DDIM's; guidance of the first three channels;
the cache rule with a branch of 4. Noise comes from a generator for each picture, as diffusers draws it.

trained: pictures of models/emoji-classes likewise, with a branch of 1.

refresh: "<spacing> <steps>" -> for gap 2..6 the steps that refresh with start 1000 and close 20, a bit each from the lowest.

    python make_dit.py
"""

import json

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

import golden
import make_vae
import synthetic
from skip_dit import CLASSES, SkipDiT, draw, refreshes, spread

torch.set_num_threads(1)  # the tensors are tiny

DEPTH, HIDDEN, HEADS, SIDE = 28, 64, 1, 8
SCALING = 0.18215
MODELS = golden.HERE.parents[1] / "models"

# name: (labels, seeds, steps, sampler, guidance scale, gap)
PICTURES = {
    "ddpm-250": ([207], [1], 250, "ddpm", 4.0, 1),
    "ddpm-250-N2": ([207], [1], 250, "ddpm", 4.0, 2),
    "ddpm-250-N6": ([207], [1], 250, "ddpm", 4.0, 6),
    "ddpm-20-two": ([360, 360], [7, 8], 20, "ddpm", 1.5, 1),
    "ddpm-50-plain-N3": ([974], [3], 50, "ddpm", 1.0, 3),
    "ddim-50": ([88], [5], 50, "ddim", 4.0, 1),
    "ddim-25-N2": ([979], [6], 25, "ddim", 2.0, 2),
}
TRAINED = {
    "trained-ddpm-50": ([0], [1], 50, "ddpm", 2.0, 1),
    "trained-ddpm-50-N2": ([10], [2], 50, "ddpm", 4.0, 2),
    "trained-ddim-50-N3": ([20], [3], 50, "ddim", 2.0, 3),
}


def trained():
    """The model of models/emoji-classes, with its autoencoder."""
    weights = load_file(MODELS / "emoji-classes/emoji-classes.safetensors")
    model = SkipDiT(12, 128, 2, 16, classes=40)
    model.load_state_dict(weights)
    return model, AutoencoderKL.from_pretrained(MODELS / "badges/vae", torch_dtype=torch.float32)


@torch.no_grad()
def pictures(listed, wanted, model, vae, branch):
    """Draws what is wanted, and lists it in a file of that name."""
    listing = []
    for name, (labels, seeds, steps, sampler, scale, gap) in wanted.items():
        latents = draw(model, labels, seeds, steps, sampler, scale, gap, branch)
        images = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        pixels = ((images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        print(f"{name}: latents up to {latents.abs().max():.3g}, image {images.mean():.2f} +- {images.std():.2f}")
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(golden.HERE / "skip_dit" / f"{name}-{i}.png", optimize=True)
        keys = ["name", "class", "seed", "images", "steps", "sampler", "guidance_scale", "gap"]
        listing.append(dict(zip(keys, [name, labels[0], seeds[0], len(seeds), steps, sampler, scale, gap])))
    golden.write_json(f"skip_dit/{listed}.json", listing)


@torch.no_grad()
def main():
    model = synthetic.fill(SkipDiT(DEPTH, HIDDEN, HEADS, SIDE))
    specs = {
        "latents": {"shape": [3, 4, SIDE, SIDE], "scale": 2.0},
        "timestep": {"values": [999.0, 500.0, 3.0], "dtype": "float32"},
        "class_labels": {"values": [207, 0, CLASSES], "dtype": "int64"},
    }
    inputs = golden.make_inputs(specs, {})
    latents, timestep, labels = (inputs[name] for name in specs)
    prediction, outputs = model(latents, timestep, labels)
    tensors = {"extra": model.y_embedder["embedding_table"](labels), "temb": model.condition(timestep, labels)}
    tensors |= {f"skip_{i}": outputs[i] for i in (0, 3, 12)} | {f"deep_{n}": outputs[DEPTH - 1 - n] for n in (1, 4, 13)}
    tensors["noise_pred"] = prediction
    config = {"depth": DEPTH, "heads": HEADS, "image_size": 8 * SIDE}
    golden.save("skip_dit/parts", {"config": config, "weights": "synthetic", "inputs": specs}, tensors, list(tensors))

    vae = make_vae.config([16, 32, 64, 64], 8, 1, attention=True, scaling_factor=SCALING)
    pictures("pictures", PICTURES, model, synthetic.fill(AutoencoderKL(**vae)), branch=4)
    pictures("trained", TRAINED, *trained(), branch=1)

    table = {}
    for spacing, counts in [("linspace", [10, 20, 25, 50, 100, 250, 999]), ("leading", [10, 25, 50, 100, 250])]:
        for steps in counts:
            timesteps = spread(steps, spacing)
            rows = [refreshes(timesteps, gap) for gap in range(2, 7)]
            table[f"{spacing} {steps}"] = [f"{sum(bit << i for i, bit in enumerate(row)):x}" for row in rows]
    text = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in table.items())
    (golden.HERE / "skip_dit/refresh.json").write_text(f"{{{text}}}\n")


if __name__ == "__main__":
    main()
