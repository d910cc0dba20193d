"""Pictures that are made from an image, by diffusers -> image_to_image/*.png, image_to_image.json, resized.safetensors

image_to_image.json lists, per picture, what make_pictures.py lists of its own, and `image`, `mask` and `strength`.

diffusers has no such pipeline for Hunyuan-DiT, so its HunyuanDiTPipeline draws from late latents: those of
StableDiffusionImg2ImgPipeline.prepare_latents (as the community's pipeline_hunyuandit_differential_img2img.py has them), and
with a mask those of StableDiffusionInpaintPipeline for a model of 4 channels, whose loop puts the image back outside the mask
after every step. One generator per picture draws the sample of the posterior, then the noise, then the noise of ddpm's steps.
Image and mask come to the picture's size by VaeImageProcessor.

image-*.png and mask-*.png are what the pictures are made from: drawn by PIL, or a crop of the model's own sample.

resized.safetensors: what Pillow's Lanczos filter makes of image-large.png and mask-large.png, named by WIDTHxHEIGHT.
"""

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageDraw
from safetensors.torch import save_file

import golden
from make_pictures import DEFAULTS, load, set_sampler

torch.set_num_threads(2)
FOLDER = golden.HERE / "image_to_image"
CAT, ROCKET = "蓝色背景上的猫", "a rocket on a black background"
PANDA, STRAWBERRY = "a panda on a green background", "绿色背景上的草莓"

PICTURES = {
    "ddpm-25-cat-0.6": dict(sampler="ddpm", image="fox", strength=0.6),
    "ddim-25-cat-0.3": dict(sampler="ddim", image="fox", strength=0.3),
    "ddim-25-rocket-0.8": dict(sampler="ddim", image="shapes", strength=0.8, prompt=ROCKET),
    "dpmms-25-cat-0.7": dict(sampler="dpmms", image="fox", strength=0.7),
    "dpmms-25-panda-0.04": dict(sampler="dpmms", image="fox", strength=0.04, prompt=PANDA),
    "dpmms-10-strawberry-0.7-192x128": dict(sampler="dpmms", image="shapes", strength=0.7, steps=10, prompt=STRAWBERRY, height=192),
    "ddim-10-rocket-1.0-96x160": dict(sampler="ddim", image="large", strength=1.0, steps=10, prompt=ROCKET, height=96, width=160),
    "ddpm-10-cat-0.5-batch": dict(sampler="ddpm", image="shapes", strength=0.5, steps=10, seeds=[7, 8]),
    "ddpm-10-panda-mask-0.9": dict(sampler="ddpm", image="fox", mask="half", strength=0.9, steps=10, prompt=PANDA),
    "ddim-25-cat-mask-1.0": dict(sampler="ddim", image="fox", mask="disc", strength=1.0),
    "dpmms-25-cat-mask-0.8": dict(sampler="dpmms", image="fox", mask="disc", strength=0.8),
    "dpmms-25-rocket-mask-1.0-128x192": dict(sampler="dpmms", image="large", mask="large", strength=1.0, prompt=ROCKET, width=192),
    "euler-25-cat-0.6": dict(sampler="euler", image="fox", strength=0.6),
    "unipc-10-panda-0.7": dict(sampler="unipc", image="fox", strength=0.7, steps=10, prompt=PANDA),
    "euler-ancestral-10-panda-mask-1.0": dict(sampler="euler-ancestral", image="fox", mask="disc", strength=1.0, steps=10, prompt=PANDA),
    "lcm-8-cat-0.5": dict(sampler="lcm", image="fox", strength=0.5, steps=8),
    "ddim-25-cat-unguided-mask-0.6": dict(sampler="ddim", image="shapes", mask="half", strength=0.6, guidance_scale=1.0),
}
SIZES = [(48, 32), (112, 60), (200, 101), (1, 1)]


class Late:
    """A scheduler whose loop begins late, which else is as it was."""

    #: The pipeline multiplies what it is given with it, although these latents are no noise alone.
    init_noise_sigma = 1.0

    def __init__(self, scheduler, first):
        self.scheduler, self.first = scheduler, first

    def __getattr__(self, name):
        return getattr(self.scheduler, name)

    @property
    def timesteps(self):
        return self.scheduler.timesteps[self.first :]

    def set_timesteps(self, steps, device=None):
        self.scheduler.set_timesteps(steps, device=device)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(self.first)


def draw_images():
    """The images to start from."""
    sample = Image.open(golden.EMOJI / "sample.png").convert("RGB")
    sample.crop((3 * 128, 0, 4 * 128, 128)).save(FOLDER / "image-fox.png", optimize=True)
    shapes = Image.new("RGB", (128, 128), (255, 235, 120))
    pen = ImageDraw.Draw(shapes)
    pen.polygon([(64, 12), (92, 100), (36, 100)], fill=(210, 40, 40))
    pen.ellipse((48, 40, 80, 72), fill=(40, 90, 220))
    shapes.save(FOLDER / "image-shapes.png", optimize=True)
    y, x = np.mgrid[0:100, 0:150]
    large = np.stack([x * 255 // 149, y * 255 // 99, (x * y) % 97 * 2], axis=-1).astype(np.uint8)
    Image.fromarray(large).save(FOLDER / "image-large.png", optimize=True)
    half = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(half).rectangle((64, 0, 127, 127), fill=255)
    half.save(FOLDER / "mask-half.png", optimize=True)
    disc = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(disc).ellipse((30, 30, 100, 100), fill=255)
    disc.save(FOLDER / "mask-disc.png", optimize=True)
    Image.fromarray((large[..., 0] // 2 + large[..., 1] // 2).astype(np.uint8)).save(FOLDER / "mask-large.png", optimize=True)


def open_image(kind, name):
    return Image.open(FOLDER / f"{kind}-{name}.png")


@torch.no_grad()
def draw(pipe, scheduler, options):
    """The images, and the timesteps."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in options["seeds"]]
    steps, strength, height, width = (options[name] for name in ("steps", "strength", "height", "width"))
    taken = min(int(steps * strength), steps)
    late = Late(scheduler, steps - taken)
    late.set_timesteps(steps)

    image = VaeImageProcessor(vae_scale_factor=8).preprocess(open_image("image", options["image"]), height=height, width=width)
    posterior = pipe.vae.encode(image).latent_dist
    clean = torch.cat([posterior.sample(generator) for generator in generators]) * pipe.vae.config.scaling_factor
    shape = (1, *clean.shape[1:])
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    latents, mask = scheduler.add_noise(clean, noise, late.timesteps[:1]), None
    if options["mask"]:
        processor = VaeImageProcessor(vae_scale_factor=8, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        mask = processor.preprocess(open_image("mask", options["mask"]), height=height, width=width)
        mask = torch.nn.functional.interpolate(mask, size=(height // 8, width // 8))
        latents = noise * scheduler.init_noise_sigma if strength == 1.0 else latents

    def put_back(pipe, i, t, tensors):
        if mask is None:
            return {}
        proper = clean
        if i < len(late.timesteps) - 1:
            proper = scheduler.add_noise(clean, noise, late.timesteps[i + 1 : i + 2])
        return {"latents": (1 - mask) * proper + mask * tensors["latents"]}

    object.__setattr__(pipe, "scheduler", late)
    images = pipe(
        prompt=options["prompt"],
        negative_prompt=options["negative_prompt"],
        num_images_per_prompt=len(generators),
        num_inference_steps=steps,
        guidance_scale=options["guidance_scale"],
        guidance_rescale=options["guidance_rescale"],
        height=height,
        width=width,
        latents=latents,
        generator=generators if len(generators) > 1 else generators[0],
        use_resolution_binning=False,
        callback_on_step_end=put_back,
    ).images
    return images, late.timesteps.tolist()


def resize_all():
    tensors = {}
    for kind in ("image", "mask"):
        image = open_image(kind, "large")
        for size in SIZES:
            pixels = np.array(image.resize(size, Image.Resampling.LANCZOS))
            tensors[f"{kind}/{size[0]}x{size[1]}"] = torch.from_numpy(pixels)
    save_file(tensors, FOLDER / "resized.safetensors")
    (FOLDER / "resized.safetensors").chmod(0o644)


def main():
    FOLDER.mkdir(exist_ok=True)
    draw_images()
    resize_all()
    pipe = load("emoji")
    config, listing = pipe.scheduler, []
    for name, changes in PICTURES.items():
        options = {**DEFAULTS, "mask": None, **changes}
        set_sampler(pipe, config, options["sampler"], options["spacing"])
        images, timesteps = draw(pipe, pipe.scheduler, options)
        files = [f"{name}.png"] if len(images) == 1 else [f"{name}-{i}.png" for i in range(len(images))]
        for image, file in zip(images, files):
            image.save(FOLDER / file, optimize=True)
        listing.append({"name": name, "files": files, **options, "timesteps": timesteps})
        print(name, len(timesteps), flush=True)
    golden.write_json("image_to_image/image_to_image.json", listing)


if __name__ == "__main__":
    main()
