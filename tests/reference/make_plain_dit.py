"""DiT, class to image -> dit/parts.{safetensors,json}, dit/authors.{safetensors,json}, dit/pictures.json,
dit/authors-pictures.json, dit/*.png

parts is diffusers' `DiTTransformer2DModel` with synthetic weights, the embedders of all blocks the same, as `hydit-export
synth --variant dit` writes it:
    extra       [B, hidden]          the class's embedding
    temb        [B, hidden]          the timestep's embedding plus that
    x_<n>       [B, tokens, hidden]  output of block n-1
    deep_<n>    [B, tokens, hidden]  output of block depth-1-n minus that
    noise_pred  [B, 2*c, side, side]

authors is the same of a DiT as its authors have it, which is that of skip_dit.py without long skips.

pictures are whole ones by `DiTPipeline`. With a gap above 1 a hook puts the sum of a block's input and of what the deep
blocks added at the last refresh into the place of their output. authors-pictures are drawn by `draw` of skip_dit.py.

    python make_plain_dit.py
"""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler
from PIL import Image

import golden
import make_vae
import synthetic
from skip_dit import CLASSES, SkipDiT, draw, refreshes

torch.set_num_threads(1)  # the tensors are tiny

DEPTH, HEADS, HEAD, SIDE, BRANCH = 9, 2, 32, 8, 2
AUTHORS = (8, 64, 1, SIDE)  # depth, width and heads
SCALING = 0.18215
SPECS = {
    "latents": {"shape": [2, 4, SIDE, SIDE], "scale": 2.0},
    "timestep": {"values": [981.0, 3.0], "dtype": "float32"},
    "class_labels": {"values": [207, CLASSES], "dtype": "int64"},
}

# name: (labels, seeds, steps, sampler, guidance scale, gap)
PICTURES = {
    "ddim-50": ([207], [1], 50, "ddim", 4.0, 1),
    "ddim-10-two": ([360, 360], [7, 8], 10, "ddim", 1.5, 1),
    "ddim-50-N3": ([974], [3], 50, "ddim", 4.0, 3),
    "ddim-25-plain-N2": ([88], [5], 25, "ddim", 1.0, 2),
    "dpmms-20": ([979], [6], 20, "dpmms", 4.0, 1),
    "dpmms-20-N2": ([979], [6], 20, "dpmms", 4.0, 2),
}
AUTHORS_PICTURES = {
    "authors-ddpm-50-N2": ([207], [1], 50, "ddpm", 4.0, 2),
    "authors-ddim-25": ([88], [5], 25, "ddim", 4.0, 1),
}


def pipeline():
    transformer = DiTTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD, out_channels=8, num_layers=DEPTH, sample_size=SIDE
    )
    vae = make_vae.config([16, 32, 64, 64], 8, 1, attention=True, scaling_factor=SCALING)
    scheduler = DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False)
    made = DiTPipeline(synthetic.fill(transformer), synthetic.fill(AutoencoderKL(**vae)), scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def listed(name, labels, seeds, steps, sampler, scale, gap):
    keys = ["name", "class", "seed", "images", "steps", "sampler", "guidance_scale", "gap"]
    return dict(zip(keys, [name, labels[0], seeds[0], len(seeds), steps, sampler, scale, gap]))


class Residual:
    """While it is entered, keeps what the deep blocks add, and adds it at the steps that do not refresh."""

    def __init__(self, transformer, plan):
        self.blocks, self.plan, self.step = transformer.transformer_blocks, plan, -1
        self.x = self.kept = None

    def before(self, block, args):
        self.x, self.step = args[0], self.step + 1

    def after(self, block, args, output):
        if self.plan[self.step]:
            self.kept = output - self.x
        return self.x + self.kept

    def __enter__(self):
        first, last = self.blocks[BRANCH], self.blocks[DEPTH - 1 - BRANCH]
        self.hooks = [first.register_forward_pre_hook(self.before), last.register_forward_hook(self.after)]

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


@torch.no_grad()
def parts(made):
    inputs = golden.make_inputs(SPECS, {})
    latents, timestep, labels = (inputs[name] for name in SPECS)
    outputs, blocks = {}, made.transformer.transformer_blocks
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda block, args, output, i=i: outputs.update({i: output}))
    prediction = made.transformer(latents, timestep=timestep, class_labels=labels).sample
    embedder = blocks[0].norm1.emb
    tensors = {"extra": embedder.class_embedder(labels), "temb": embedder(timestep, labels)}
    for n in (1, 2, 3):
        tensors |= {f"x_{n}": outputs[n - 1], f"deep_{n}": outputs[DEPTH - 1 - n] - outputs[n - 1]}
    tensors["noise_pred"] = prediction
    config = golden.public_config(made.transformer)
    golden.save("dit/parts", {"config": config, "weights": "synthetic", "inputs": SPECS}, tensors, list(tensors))


@torch.no_grad()
def authors(model):
    latents, timestep, labels = (golden.make_inputs(SPECS, {})[name] for name in SPECS)
    prediction, outputs = model(latents, timestep, labels)
    tensors = {"extra": model.y_embedder["embedding_table"](labels), "temb": model.condition(timestep, labels)}
    for n in (1, 3):
        tensors |= {f"x_{n}": outputs[n - 1], f"deep_{n}": model.deep(outputs, n)}
    tensors["noise_pred"] = prediction
    config = {"depth": model.depth, "image_size": 8 * SIDE}
    golden.save("dit/authors", {"config": config, "weights": "synthetic", "inputs": SPECS}, tensors, list(tensors))


@torch.no_grad()
def pictures(made):
    listing, ddim = [], made.scheduler
    dpmms = DPMSolverMultistepScheduler.from_config(ddim.config, timestep_spacing="linspace")
    for name, (labels, seeds, steps, sampler, scale, gap) in PICTURES.items():
        made.scheduler = ddim if sampler == "ddim" else dpmms
        made.scheduler.set_timesteps(steps)
        plan = refreshes(made.scheduler.timesteps.tolist(), gap)
        with Residual(made.transformer, plan):
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            images = made(labels, scale, generators, steps).images
        for i, image in enumerate(images):
            image.save(golden.HERE / "dit" / f"{name}-{i}.png", optimize=True)
        listing.append(listed(name, labels, seeds, steps, sampler, scale, gap))
    golden.write_json("dit/pictures.json", listing)


@torch.no_grad()
def authors_pictures(model, vae):
    listing = []
    for name, wanted in AUTHORS_PICTURES.items():
        image = vae.decode(draw(model, *wanted, branch=BRANCH) / SCALING, return_dict=False)[0]
        pixels = ((image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels[0]).save(golden.HERE / "dit" / f"{name}-0.png", optimize=True)
        listing.append(listed(name, *wanted))
    golden.write_json("dit/authors-pictures.json", listing)


def main():
    made = pipeline()
    parts(made)
    pictures(made)
    plain = synthetic.fill(SkipDiT(*AUTHORS, skips=False))
    authors(plain)
    authors_pictures(plain, made.vae)


if __name__ == "__main__":
    main()
