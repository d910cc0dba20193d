"""Perturbed-attention guidance by diffusers -> pag/<case>.{safetensors,json}, pag/*.png, pag/pag.json

<case> is a HunyuanDiT2DModel of make_transformers.py in whose blocks `pag_layers` the self-attention has the processors that
HunyuanDiTPAGPipeline gives it, with names and shapes as there; `perturb` [B] is 1 for the rows that they perturb.

The pictures are models/emoji by HunyuanDiTPAGPipeline, with the fields of make_pictures.py, `pag_scale`,
`pag_adaptive_scale` and `pag_layers`. The pipeline takes layers as regular expressions, and its `blocks.1` is block 10 too: here a point follows. Outside of a
`guidance_interval` every row predicts what the positive one does.
"""

import itertools
from contextlib import contextmanager, nullcontext

import torch
from diffusers import HunyuanDiT2DModel, HunyuanDiTPAGPipeline
from diffusers.models.attention_processor import PAGCFGHunyuanAttnProcessor2_0, PAGHunyuanAttnProcessor2_0

import golden
import make_transformers
import synthetic
from make_pictures import CAT, DEFAULTS, ROBOT, ROCKET, load, set_sampler
from make_rope import rotary_tables
from skip_cache import SkipCache

torch.set_num_threads(2)
FOLDER = golden.HERE / "pag"

# name: (case of make_transformers.py, blocks, timesteps, lengths of the masks); a third of the rows is perturbed, or half.
CASES = {
    "depth10-style": ("depth10-style", [0, 4, 9], [999, 700, 50], ([4, 1, 2], [2, 6, 3])),
    "depth8": ("depth8", [3], [701, 51], ([9, 77], [12, 256])),
}
PICTURES = {
    "ddim-10-cat": dict(sampler="ddim", pag_layers=[5]),
    "dpmms-10-rocket-batch": dict(sampler="dpmms", prompt=ROCKET, seeds=[7, 8], pag_scale=1.5, pag_layers=[0, 11]),
    "dpmms-10-cat-unguided": dict(sampler="dpmms", guidance_scale=1.0, guidance_rescale=0.7, pag_layers=[5]),
    "ddim-10-robot-interval-rescale": dict(
        sampler="ddim", prompt=ROBOT, guidance_rescale=0.7, guidance_interval="0.2:0.8", pag_layers=[5]
    ),
    "dpmms-10-cat-interval-unguided": dict(
        sampler="dpmms", guidance_scale=1.0, guidance_interval="0:0.6", pag_scale=1.5, pag_layers=[0, 11]
    ),
    "ddim-10-cat-adaptive": dict(sampler="ddim", pag_adaptive_scale=0.005, pag_layers=[5]),
    "ddim-12-cat-N3": dict(
        sampler="ddim", steps=12, pag_layers=[5], cache=dict(gap=3, start=900, close=50, branch=1)
    ),
    "ddim-12-cat-N3-outside": dict(
        sampler="ddim", steps=12, pag_layers=[0, 11], cache=dict(gap=3, start=900, close=50, branch=1)
    ),
    "ddim-12-rocket-N2-branch2": dict(
        sampler="ddim", steps=12, prompt=ROCKET, pag_scale=1.0, pag_layers=[1, 6, 10], cache=dict(gap=2, start=900, close=50, branch=2)
    ),
}
PAG = dict(DEFAULTS, steps=10, pag_scale=3.0, pag_adaptive_scale=0.0)


@torch.no_grad()
def graphs():
    for name, (case, blocks, timesteps, mask_lengths) in CASES.items():
        sizes, latents = make_transformers.CASES[case][:2]
        model, rows = synthetic.fill(HunyuanDiT2DModel(**sizes)), len(timesteps)
        specs = make_transformers.input_specs(sizes, latents, timesteps, mask_lengths)
        cos, sin = rotary_tables(sizes["attention_head_dim"], (latents[0] // 2, latents[1] // 2))
        inputs = golden.make_inputs(specs, {"cos": cos, "sin": sin})
        plain = make_transformers.run(model, inputs)["noise_pred"]
        for block in blocks:
            processor = PAGCFGHunyuanAttnProcessor2_0() if rows == 3 else PAGHunyuanAttnProcessor2_0()
            model.blocks[block].attn1.set_processor(processor)
        found = make_transformers.run(model, inputs)
        apart = (found["noise_pred"] - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1)
        print(f"{name}: rows are {[f'{row:.1e}' for row in apart.tolist()]} from those without perturbation")
        specs["perturb"] = {"values": [0.0] * (rows - 1) + [1.0], "dtype": "float32"}
        about = {"config": golden.public_config(model), "weights": "synthetic", "pag_layers": blocks, "inputs": specs}
        golden.save(f"pag/{name}", about, {**found, "cos": cos, "sin": sin}, list(found))


@contextmanager
def guided_within(transformer, options):
    if not options["guidance_interval"]:
        yield
        return
    start, stop = (int(float(share) * options["steps"]) for share in options["guidance_interval"].split(":"))
    step, guided = itertools.count(), options["guidance_scale"] > 1

    def leave_out(module, args, output):
        parts = 3 if guided else 2
        noise = output[0]
        positive = noise.chunk(parts)[1 if guided else 0]
        return output if start <= next(step) < stop else (torch.cat([positive] * parts), *output[1:])

    hook = transformer.register_forward_hook(leave_out)
    yield
    hook.remove()


def draw(emoji, scheduler, options):
    layers = [rf"blocks\.{block}\." for block in options["pag_layers"]]
    pipe = HunyuanDiTPAGPipeline(**emoji.components, requires_safety_checker=False, pag_applied_layers=layers)
    pipe.set_progress_bar_config(disable=True)
    set_sampler(pipe, scheduler, options["sampler"], options["spacing"])
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in options["seeds"]]
    cached = SkipCache(pipe.transformer, **options["cache"]) if options["cache"] else nullcontext()
    with cached as cache, guided_within(pipe.transformer, options):
        images = pipe(
            prompt=options["prompt"],
            negative_prompt=options["negative_prompt"],
            num_images_per_prompt=len(generators),
            num_inference_steps=options["steps"],
            guidance_scale=options["guidance_scale"],
            guidance_rescale=options["guidance_rescale"],
            pag_scale=options["pag_scale"],
            pag_adaptive_scale=options["pag_adaptive_scale"],
            height=options["height"],
            width=options["width"],
            generator=generators if len(generators) > 1 else generators[0],
            use_resolution_binning=False,
        ).images
    return images, pipe.scheduler.timesteps.tolist(), cache.full if cache else None


def pictures():
    emoji, listing = load("emoji"), []
    scheduler = emoji.scheduler
    for name, changes in PICTURES.items():
        options = {**PAG, **changes}
        images, timesteps, full = draw(emoji, scheduler, options)
        files = [f"{name}.png"] if len(images) == 1 else [f"{name}-{i}.png" for i in range(len(images))]
        for image, file in zip(images, files):
            image.save(FOLDER / file, optimize=True)
        entry = {"name": name, "files": files, **options, "timesteps": timesteps}
        if full:
            entry["full_steps"] = [int(step) for step in full]
        listing.append(entry)
        print(name)
    golden.write_json("pag/pag.json", listing)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    graphs()
    pictures()
