"""ControlNets by diffusers -> control/<case>.{safetensors,json}, control/*.png, control/pictures.json

<case> is a HunyuanDiT2DControlNetModel with weights of seed 1, beside a HunyuanDiT2DModel with those of seed 0 (synthetic.py;
seed s adds s * 0xD1B54A32D192ED03 to a name's state). With names and shapes as in make_transformers.py:

    text_states, extra, temb   of the net, which has embedders of its own
    hint          [B, S, D]    what its image adds to the patches
    control_<i>   [B, S, D]    what it adds to the skip from block i, times `conditioning_scale`
    noise_pred                 output of the model with these controls

The pictures are models/emoji with one or two such nets (edges: seed 1; shade: seed 2, with another mlp_ratio and with style and
size conditions, which the model itself does not have), drawn by HunyuanDiTControlNetPipeline with one difference: nets read the
mean of the image encoder's distribution, where the pipeline takes a sample by torch's global generator, which no seed of a
request decides. The script prints how far pictures of two such samples are from each other and from the mean's.
`start` and `end` are those of StableDiffusionControlNetPipeline, which this pipeline does not have. `cache` is that of
skip_cache.py.
"""

from contextlib import nullcontext
from unittest import mock

import numpy as np
import torch
from diffusers import HunyuanDiT2DControlNetModel, HunyuanDiT2DModel, HunyuanDiTControlNetPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.controlnets.controlnet_hunyuan import HunyuanDiT2DMultiControlNetModel
from PIL import Image, ImageDraw, ImageFilter

import golden
import synthetic
from make_pictures import load, set_sampler
from make_rope import rotary_tables
from make_transformers import config, input_specs
from skip_cache import SkipCache

torch.set_num_threads(2)
FOLDER = golden.HERE / "control"
SCALE = 0.8

# As the cases of make_transformers.py.
CASES = {
    "depth8-style": (config(8, 2, 12, 4.3637, (4, 24), (6, 32), 16, style=True), (6, 10), [701, 51], ([3, 4], [2, 6])),
    "depth6": (config(6, 3, 16, 4.0, (6, 20), (9, 24), 32), (8, 6), [981, 21], ([3, 6], [9, 1])),
}
CAT, ROCKET = "蓝色背景上的猫", "a rocket on a black background"
EDGES, SHADE = dict(name="edges", image="edges.png"), dict(name="shade", image="shade.png")
PICTURES = {
    "ddim-10-cat": dict(sampler="ddim", prompt=CAT, controls=[dict(EDGES, weight=0.25)]),
    "ddpm-10-cat-batch": dict(sampler="ddpm", prompt=CAT, controls=[dict(EDGES, weight=0.15)], seeds=[7, 8]),
    "dpmms-10-rocket-both": dict(sampler="dpmms", prompt=ROCKET, controls=[dict(EDGES, weight=0.20), dict(SHADE, weight=0.30)]),
    "ddim-10-rocket-96x160-part": dict(
        sampler="ddim", prompt=ROCKET, controls=[dict(SHADE, weight=0.25, start=0.2, end=0.7)], height=96, width=160
    ),
    "ddim-12-cat-N3": dict(
        sampler="ddim", prompt=CAT, controls=[dict(EDGES, weight=0.35), dict(SHADE, weight=0.3)], steps=12,
        cache=dict(gap=3, start=900, close=50, branch=1),
    ),
    "ddim-12-rocket-N2-branch2": dict(
        sampler="ddim", prompt=ROCKET, controls=[dict(SHADE, weight=0.3)], steps=12,
        cache=dict(gap=2, start=900, close=50, branch=2),
    ),
    "dpmms-10-cat-unguided": dict(sampler="dpmms", prompt=CAT, controls=[dict(EDGES, weight=0.25)], guidance_scale=1.0),
}
DEFAULTS = dict(steps=10, seeds=[42], guidance_scale=5.0, height=128, width=128, cache=None)


def fill(module, seed):
    original = synthetic.fnv1a64
    seeded = lambda name: (original(name) + seed * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    with mock.patch.object(synthetic, "fnv1a64", seeded):
        return synthetic.fill(module)


def net(sizes, seed):
    own = {name: value for name, value in sizes.items() if name not in ("num_layers", "learn_sigma", "norm_type")}
    return fill(HunyuanDiT2DControlNetModel(**own, transformer_num_layers=sizes["num_layers"]), seed)


@torch.no_grad()
def graphs():
    for name, (sizes, latents, timesteps, mask_lengths) in CASES.items():
        model, control = synthetic.fill(HunyuanDiT2DModel(**sizes)), net(sizes, 1)
        specs = input_specs(sizes, latents, timesteps, mask_lengths)
        specs["control_latents"] = {"shape": specs["latents"]["shape"], "scale": 1.5}
        cos, sin = rotary_tables(sizes["attention_head_dim"], (latents[0] // 2, latents[1] // 2))
        inputs = golden.make_inputs(specs, {"cos": cos, "sin": sin})
        found = {}
        keep = lambda name: lambda module, args, output: found.__setitem__(name, output)
        control.time_extra_emb.register_forward_hook(keep("temb"))
        control.time_extra_emb.extra_embedder.register_forward_hook(keep("extra"))
        control.input_block.register_forward_hook(keep("hint"))
        states = lambda module, args, kwargs: found.__setitem__("text_states", kwargs["encoder_hidden_states"])
        control.blocks[0].register_forward_pre_hook(states, with_kwargs=True)
        rest = {name: inputs[name] for name in inputs if name not in ("latents", "control_latents", "cos", "sin")}
        rest["image_rotary_emb"] = (inputs["cos"].flatten(0, 1), inputs["sin"].flatten(0, 1))
        made = control(
            inputs["latents"], controlnet_cond=inputs["control_latents"], conditioning_scale=SCALE, return_dict=False, **rest
        )[0]
        found |= {f"control_{i}": tensor for i, tensor in enumerate(made)}
        found["noise_pred"] = model(inputs["latents"], return_dict=False, controlnet_block_samples=list(made), **rest)[0]
        about = {"config": golden.public_config(model), "weights": "synthetic", "conditioning_scale": SCALE, "inputs": specs}
        golden.save(f"control/{name}", about, {**found, "cos": cos, "sin": sin}, list(found))


def draw_images():
    sample = Image.open(golden.EMOJI / "sample.png").convert("RGB")
    fox = sample.crop((3 * 128, 0, 4 * 128, 128)).convert("L")
    edges = fox.filter(ImageFilter.FIND_EDGES).point(lambda value: 255 if value > 60 else 0)
    ImageDraw.Draw(edges).rectangle((0, 0, 127, 127), outline=0)
    edges.convert("RGB").save(FOLDER / "edges.png", optimize=True)
    y, x = np.mgrid[0:60, 0:90]
    shade = 255 - np.clip(np.hypot(x - 45, y - 30) * 5, 0, 255)
    Image.fromarray(shade.astype(np.uint8)).convert("RGB").save(FOLDER / "shade.png", optimize=True)


class Part:
    """A net that counts for a part of the steps: how often it was asked is where it is."""

    def __init__(self, forward, start, end, steps):
        self.forward, self.window, self.steps, self.asked = forward, (start, end), steps, 0

    def __call__(self, *args, **kwargs):
        keep = self.asked / self.steps >= self.window[0] and (self.asked + 1) / self.steps <= self.window[1]
        self.asked += 1
        kwargs["conditioning_scale"] *= float(keep)
        return self.forward(*args, **kwargs)


def draw(pipe, nets, options, mean=True):
    controls = options["controls"]
    chosen = [nets[control["name"]] for control in controls]
    for one, control in zip(chosen, controls):
        one.forward = Part(type(one).forward.__get__(one), control.get("start", 0.0), control.get("end", 1.0), options["steps"])
    images = [Image.open(FOLDER / control["image"]) for control in controls]
    weights = [control["weight"] for control in controls]
    alone = len(chosen) == 1
    drawing = HunyuanDiTControlNetPipeline(
        **{name: part for name, part in pipe.components.items()},
        controlnet=chosen[0] if alone else HunyuanDiT2DMultiControlNetModel(chosen),
        requires_safety_checker=False,
    )
    drawing.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in options["seeds"]]
    mode = lambda self, generator=None: self.mode()
    cached = SkipCache(pipe.transformer, **options["cache"]) if options["cache"] else nullcontext()
    with cached, mock.patch.object(DiagonalGaussianDistribution, "sample", mode) if mean else nullcontext():
        return drawing(
            prompt=options["prompt"],
            negative_prompt="",
            control_image=images[0] if alone else images,
            controlnet_conditioning_scale=weights[0] if alone else weights,
            num_images_per_prompt=len(generators),
            num_inference_steps=options["steps"],
            guidance_scale=options["guidance_scale"],
            height=options["height"],
            width=options["width"],
            generator=generators if len(generators) > 1 else generators[0],
            use_resolution_binning=False,
        ).images


def psnr(one, other):
    one, other = (np.asarray(image, dtype=np.float64) for image in (one, other))
    return 10 * np.log10(255**2 / np.mean((one - other) ** 2))


def without(options):
    return {**options, "controls": [dict(control, weight=0.0) for control in options["controls"]]}


def compare_samples(pipe, nets, options, mean):
    samples = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        samples.append(draw(pipe, nets, options, mean=False)[0])
    apart, off = psnr(*samples), [psnr(sample, mean) for sample in samples]
    print(f"  two samples: {apart:.1f} dB from each other, {off[0]:.1f} and {off[1]:.1f} dB from the mean's picture")


def pictures():
    pipe = load("emoji")
    scheduler, sizes = pipe.scheduler, golden.public_config(pipe.transformer)
    sizes = {name: value for name, value in sizes.items() if not name.startswith("_")}
    nets = {
        "edges": net(sizes, 1),
        "shade": net({**sizes, "mlp_ratio": 2.0, "use_style_cond_and_image_meta_size": True}, 2),
    }
    listing = []
    for name, changes in PICTURES.items():
        options = {**DEFAULTS, **changes}
        set_sampler(pipe, scheduler, options["sampler"])
        images = draw(pipe, nets, options)
        files = [f"{name}.png"] if len(images) == 1 else [f"{name}-{i}.png" for i in range(len(images))]
        for image, file in zip(images, files):
            image.save(FOLDER / file, optimize=True)
        listing.append({"name": name, "files": files, **options})
        print(f"{name}: {psnr(images[0], draw(pipe, nets, without(options))[0]):.1f} dB from the picture without controls")
        if name == "ddim-10-cat":
            compare_samples(pipe, nets, options, images[0])
    golden.write_json("control/pictures.json", listing)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    graphs()
    draw_images()
    pictures()
