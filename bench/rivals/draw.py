"""Pictures by diffusers' pipeline, with a method in the place of its transformer's forward."""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HunyuanDiTPipeline
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

from model import Step, Transformer

#: Samplers by hydit's names, with the spacing that hydit has for each.
SAMPLERS = {
    "dpmms": (DPMSolverMultistepScheduler, {"timestep_spacing": "linspace"}),
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
}
#: Pictures that are computed together.
BATCH = 10


@dataclass(frozen=True)
class Picture:
    prompt: str
    seed: int


@dataclass
class Drawn:
    """Of one picture: its latents [channels, h, w], what ran in rows, and the steps at which the middle block did."""

    latents: torch.Tensor
    ran: Counter
    full: list


def batches(items, size):
    return (items[start : start + size] for start in range(0, len(items), size))


class Painter:
    """A checkpoint with one sampler and one number of steps."""

    def __init__(self, checkpoint, sampler, steps, guidance=5.0):
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        self.pipe = HunyuanDiTPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        kind, extra = SAMPLERS[sampler]
        self.pipe.scheduler = kind.from_config(self.pipe.scheduler.config, **extra)
        self.sampler, self.steps, self.guidance = sampler, steps, guidance
        self.transformer = Transformer(self.pipe.transformer)
        self.config = dict(self.pipe.transformer.config)
        side = self.config["sample_size"]
        self.size, grid = (side, side), [side // self.config["patch_size"]] * 2
        self.tokens = grid[0] * grid[1]
        base = 512 // 8 // self.config["patch_size"]
        self.rotary = get_2d_rotary_pos_embed(
            self.config["attention_head_dim"], get_resize_crop_region_for_grid(grid, base), grid, output_type="pt")
        self.texts = {}

    def timesteps(self, steps):
        self.pipe.scheduler.set_timesteps(steps)
        return self.pipe.scheduler.timesteps

    @torch.no_grad()
    def text(self, pictures):
        """The rows of several pictures: the negative ones, then those with the prompts."""
        for prompt in {picture.prompt for picture in pictures} - self.texts.keys():
            encoded = [self.pipe.encode_prompt(
                prompt, device="cpu", dtype=torch.float32, num_images_per_prompt=1, do_classifier_free_guidance=True,
                max_sequence_length=length, text_encoder_index=index) for index, length in ((0, 77), (1, 256))]
            (states, negative, mask, negative_mask), (t5, negative_t5, mask_t5, negative_mask_t5) = encoded
            self.texts[prompt] = [(negative, negative_mask, negative_t5, negative_mask_t5), (states, mask, t5, mask_t5)]
        rows = [self.texts[picture.prompt][half] for half in (0, 1) for picture in pictures]
        return self.transformer.text(*(torch.cat(column) for column in zip(*rows)))

    def draw(self, pictures, make):
        """All `pictures`, each as a `Drawn`; `make()` gives a fresh method for those that are computed together."""
        return [drawn for together in batches(pictures, BATCH) for drawn in self.draw_together(together, make())]

    @torch.no_grad()
    def draw_together(self, pictures, method):
        generators = [torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures]
        shape = (1, self.config["in_channels"], *self.size)
        latents = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        latents = latents * self.pipe.scheduler.init_noise_sigma
        text, scheduler, count = self.text(pictures), self.pipe.scheduler, len(pictures)
        stochastic = {"generator": generators} if self.sampler == "ddpm" else {}
        drawn = [Drawn(None, Counter(), []) for _ in pictures]
        for index, timestep in enumerate(self.timesteps(method.steps or self.steps)):
            inputs = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            step = Step(self.transformer, index, timestep, inputs, text, self.rotary)
            hidden = method.hidden(step)
            predicted = self.transformer.predict(hidden, step, self.size).chunk(2, dim=1)[0]
            step.count("final")
            if predicted.shape[0] > count:
                negative, positive = predicted.chunk(2)
                predicted = negative + self.guidance * (positive - negative)
            latents = scheduler.step(predicted, timestep, latents, **stochastic, return_dict=False)[0]
            for one, own, ran in zip(drawn, latents, step.ran):
                one.latents = own
                one.ran.update(ran)
                if ran[self.transformer.depth // 2, "ff"] == 2:
                    one.full.append(index)
        return drawn

    @torch.no_grad()
    def decode(self, drawn):
        """The pictures [height, width, 3] of bytes."""
        out = []
        for together in batches(drawn, BATCH):
            latents = torch.stack([one.latents for one in together])
            decoded = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
            pixels = self.pipe.image_processor.postprocess(decoded, output_type="np")
            out += list((pixels * 255).round().astype(numpy.uint8))
        return out
