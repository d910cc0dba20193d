"""Whole pictures by diffusers' HunyuanDiTPipeline on the trained models -> pictures/*.png, pictures.json, latents.safetensors

pictures.json lists, per picture, the model and everything that was passed: sampler, spacing, steps, prompt, negative prompt, seed(s),
guidance_scale, guidance_rescale, guidance_interval, height, width, cache; and the timesteps and (with a cache) which steps were full.

Throughout: fp32 on the CPU, `use_resolution_binning=False`, one CPU generator per image with manual_seed(seed), which draws
the initial latents and then the noise of every step, of samplers that have any. A batch takes a list of generators.

latents.safetensors, for the runs in LATENTS:
    <name>/initial      [B, 4, h, w]         what the generator drew
    <name>/final        [B, 4, h, w]         what the decoder gets, before the division by scaling_factor
    <name>/steps        [steps, B, 4, h, w]  after every step (only in TRAJECTORIES)
"""

import itertools
import os
from contextlib import contextmanager, nullcontext

import torch
from diffusers import HunyuanDiTPipeline
from safetensors.torch import save_file

import golden
from make_samplers import CLASSES
from skip_cache import SkipCache

torch.set_num_threads(2)

CAT, ROCKET = "蓝色背景上的猫", "a rocket on a black background"
ROBOT, STRAWBERRY = "a robot on a yellow background", "绿色背景上的草莓"
NOT_BLUE = "a cat on a blue background"

# name: what differs from DEFAULTS
DEFAULTS = dict(model="emoji", steps=25, prompt=CAT, negative_prompt=None, seeds=[42], guidance_scale=5.0, guidance_rescale=0.0, height=128, width=128, cache=None, spacing=None, guidance_interval=None)
PICTURES = {
    "ddpm-10-cat": dict(sampler="ddpm", steps=10),
    "ddim-10-cat": dict(sampler="ddim", steps=10),
    "dpmms-10-cat": dict(sampler="dpmms", steps=10),
    "ddpm-25-cat": dict(sampler="ddpm"),
    "ddim-25-cat": dict(sampler="ddim"),
    "dpmms-25-cat": dict(sampler="dpmms"),
    "ddpm-10-rocket": dict(sampler="ddpm", steps=10, prompt=ROCKET),
    "ddim-10-rocket": dict(sampler="ddim", steps=10, prompt=ROCKET),
    "dpmms-10-rocket": dict(sampler="dpmms", steps=10, prompt=ROCKET),
    "ddpm-25-rocket": dict(sampler="ddpm", prompt=ROCKET),
    "ddim-25-rocket": dict(sampler="ddim", prompt=ROCKET),
    "dpmms-25-rocket": dict(sampler="dpmms", prompt=ROCKET),
    "ddpm-25-strawberry-seed7": dict(sampler="ddpm", prompt=STRAWBERRY, seeds=[7]),
    "ddim-25-robot-negative": dict(sampler="ddim", prompt=ROBOT, negative_prompt=NOT_BLUE),
    "dpmms-10-rocket-negative": dict(sampler="dpmms", steps=10, prompt=ROCKET, negative_prompt="白色背景上的火箭"),
    "dpmms-25-cat-negative": dict(sampler="dpmms", negative_prompt="红色背景上的狗"),
    "dpmms-25-cat-128x192": dict(sampler="dpmms", width=192),
    "ddim-25-rocket-96x160": dict(sampler="ddim", prompt=ROCKET, height=96, width=160),
    "dpmms-10-strawberry-192x128": dict(sampler="dpmms", steps=10, prompt=STRAWBERRY, height=192),
    "dpmms-25-rocket-rescale": dict(sampler="dpmms", prompt=ROCKET, guidance_rescale=0.7),
    "ddim-25-cat-unguided": dict(sampler="ddim", guidance_scale=1.0),
    "ddpm-10-cat-batch": dict(sampler="ddpm", steps=10, seeds=[7, 8]),
    "dpmms-25-cat-N2-700-50": dict(sampler="dpmms", cache=dict(gap=2, start=700, close=50, branch=1)),
    "dpmms-25-rocket-N3-700-50": dict(sampler="dpmms", prompt=ROCKET, cache=dict(gap=3, start=700, close=50, branch=1)),
    "ddim-25-rocket-N2-700-50": dict(sampler="ddim", prompt=ROCKET, cache=dict(gap=2, start=700, close=50, branch=1)),
    "ddpm-10-cat-N3-700-50": dict(sampler="ddpm", steps=10, cache=dict(gap=3, start=700, close=50, branch=1)),
    "ddim-25-cat-N3-700-50-branch2": dict(sampler="ddim", cache=dict(gap=3, start=700, close=50, branch=2)),
    "dpmms-25-cat-karras": dict(sampler="dpmms", spacing="karras"),
    "unipc-10-cat": dict(sampler="unipc", steps=10),
    "unipc-10-rocket-karras": dict(sampler="unipc", steps=10, prompt=ROCKET, spacing="karras"),
    "unipc-25-rocket-N2-700-50": dict(sampler="unipc", prompt=ROCKET, cache=dict(gap=2, start=700, close=50, branch=1)),
    "euler-25-cat": dict(sampler="euler"),
    "euler-10-rocket-leading": dict(sampler="euler", steps=10, prompt=ROCKET, spacing="leading"),
    "euler-25-robot-karras-N3-700-50": dict(sampler="euler", prompt=ROBOT, spacing="karras", cache=dict(gap=3, start=700, close=50, branch=1)),
    "euler-ancestral-25-rocket": dict(sampler="euler-ancestral", prompt=ROCKET),
    "euler-ancestral-10-cat-trailing-batch": dict(sampler="euler-ancestral", steps=10, spacing="trailing", seeds=[7, 8]),
    "lcm-4-cat": dict(sampler="lcm", steps=4),
    "ddim-25-cat-interval": dict(sampler="ddim", guidance_interval="0.2:0.8"),
    "dpmms-10-rocket-interval-rescale-batch": dict(sampler="dpmms", steps=10, prompt=ROCKET, guidance_interval="0.3:1", guidance_rescale=0.7, seeds=[7, 8]),
    "badges-dpmms-25-bell": dict(model="badges", sampler="dpmms", prompt="蓝色圆里的铃铛"),
    "badges-ddim-25-koala-N3-700-50": dict(model="badges", sampler="ddim", prompt="a koala in a red circle", cache=dict(gap=3, start=700, close=50, branch=1)),
}
LATENTS = ["ddpm-10-cat", "ddim-10-cat", "dpmms-10-cat", "ddpm-10-cat-batch", "dpmms-25-cat-128x192", "dpmms-25-rocket-rescale", "dpmms-25-cat-N2-700-50", "ddpm-10-cat-N3-700-50"]
TRAJECTORIES = ["ddpm-10-cat", "dpmms-10-cat"]


#: The spacing of a sampler where a picture names none and it is not the checkpoint's.
USUAL = {"dpmms": "linspace", "unipc": "linspace", "euler": "linspace", "euler-ancestral": "linspace"}


def set_sampler(pipe: HunyuanDiTPipeline, config, sampler: str, spacing=None):
    """`config` is the checkpoint's scheduler's, a DDPMScheduler. With karras the ends are those of linspace."""
    spacing = spacing or USUAL.get(sampler)
    extra = {"use_karras_sigmas": True} if spacing == "karras" else {}
    if spacing:
        extra["timestep_spacing"] = "linspace" if spacing == "karras" else spacing
    pipe.scheduler = CLASSES[sampler].from_config(config.config, **extra)


@contextmanager
def guided_within(transformer, options):
    """Outside of the interval the prediction of the negative half is that of the other: their difference, which guidance
    multiplies, is 0. Start and stop are counted as by diffusers' guiders."""
    if not options["guidance_interval"]:
        yield
        return
    start, stop = (int(float(share) * options["steps"]) for share in options["guidance_interval"].split(":"))
    step = itertools.count()

    def leave_out(module, args, output):
        noise = output[0]
        return output if start <= next(step) < stop else (torch.cat([noise.chunk(2)[1]] * 2), *output[1:])

    hook = transformer.register_forward_hook(leave_out)
    yield
    hook.remove()


def draw(pipe: HunyuanDiTPipeline, options: dict):
    """The images, the latents after every step, the full steps of the cache (or None)."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in options["seeds"]]
    batch = len(generators)
    latents = []
    with SkipCache(pipe.transformer, **options["cache"]) if options["cache"] else nullcontext() as cache, \
            guided_within(pipe.transformer, options):
        images = pipe(
            prompt=options["prompt"],
            negative_prompt=options["negative_prompt"],
            num_images_per_prompt=batch,
            num_inference_steps=options["steps"],
            guidance_scale=options["guidance_scale"],
            guidance_rescale=options["guidance_rescale"],
            height=options["height"],
            width=options["width"],
            generator=generators if batch > 1 else generators[0],
            use_resolution_binning=False,
            callback_on_step_end=lambda pipe, i, t, tensors: latents.append(tensors["latents"]) or {},
        ).images
    return images, latents, cache.full if cache else None


def initial_latents(options: dict) -> torch.Tensor:
    shape = (1, 4, options["height"] // 8, options["width"] // 8)
    return torch.cat([torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in options["seeds"]])


def load(name: str):
    """models/badges is stored as fp16, and computed in fp32 as any other."""
    pipe = HunyuanDiTPipeline.from_pretrained(golden.MODELS / name, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main():
    pipes = {name: load(name) for name in ("emoji", "badges")}
    schedulers = {name: pipe.scheduler for name, pipe in pipes.items()}
    folder = golden.HERE / "pictures"
    folder.mkdir(exist_ok=True)
    listing, tensors = [], {}
    for name, changes in PICTURES.items():
        options = {**DEFAULTS, **changes}
        pipe = pipes[options["model"]]
        set_sampler(pipe, schedulers[options["model"]], options["sampler"], options["spacing"])
        images, latents, full = draw(pipe, options)
        files = [f"{name}.png"] if len(images) == 1 else [f"{name}-{i}.png" for i in range(len(images))]
        for image, file in zip(images, files):
            image.save(folder / file, optimize=True)
        entry = {"name": name, "files": files, **options, "timesteps": pipe.scheduler.timesteps.tolist()}
        if full:
            entry["full_steps"] = [int(step) for step in full]
        listing.append(entry)
        if name in LATENTS:
            tensors[f"{name}/initial"] = initial_latents(options)
            tensors[f"{name}/final"] = latents[-1]
        if name in TRAJECTORIES:
            tensors[f"{name}/steps"] = torch.stack(latents)
        print(name, sum(os.path.getsize(folder / file) for file in files), full and sum(full))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "latents.safetensors")
    golden.write_json("pictures/pictures.json", listing)


if __name__ == "__main__":
    main()
