"""The model as a folder in diffusers' layout, and pictures drawn with it."""

import copy
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, HunyuanDiTPipeline
from PIL import Image
from transformers import AutoTokenizer

import checkpoint
import data
from model import spread_padding

STEPS, GUIDANCE = 20, 5.0


def pipeline(parts: Path, trainer, vae, factor) -> HunyuanDiTPipeline:
    """Of the averaged weights; everything that was not trained comes from `parts`."""
    vae.register_to_config(scaling_factor=factor, _name_or_path="vae")  # not the path of where it came from
    average = trainer.average
    if trainer.phase == "short":  # to be used at full length all the same
        spread_padding(average["transformer"], trainer.short)
    return HunyuanDiTPipeline(
        vae=vae,
        text_encoder=average["text_encoder"],
        tokenizer=AutoTokenizer.from_pretrained(parts / "tokenizer"),
        transformer=average["transformer"].eval(),
        scheduler=DDPMScheduler.from_pretrained(parts / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=average["text_encoder_2"],
        tokenizer_2=AutoTokenizer.from_pretrained(parts / "tokenizer_2"),
    )


def folder(place: Path, parts: Path, trainer, vae, factor, subjects, dtype=torch.float16):
    """Writes it beside `place` and renames it. LICENSE, NOTICE and README.md that are there stay."""
    new = place.with_name(place.name + ".partial")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    pipe = pipeline(parts, trainer, vae, factor)
    for name in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        copy.deepcopy(getattr(pipe, name)).to("cpu", dtype).save_pretrained(new / name)
    pipe.save_config(new)
    shutil.copytree(parts / "scheduler", new / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(parts / name, new / name)
    lines = [f"{s.en}\t{s.zh}\n" for s in subjects]
    (new / "subjects.tsv").write_text("".join(lines), encoding="utf-8")
    lines = [f"{subjects[s].en}\t{subjects[s].zh}\t{c}\t{data.COLOURS[c][0]}\n" for s, c in data.pairs(subjects, held=True)]
    (new / "heldout.tsv").write_text("".join(lines), encoding="utf-8")
    for name in ("LICENSE", "NOTICE", "README.md"):
        if (place / name).exists():
            shutil.copy(place / name, new / name)
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)
    checkpoint.replace_folder(new, place)


def load(place: Path, device) -> HunyuanDiTPipeline:
    """In fp32, whatever is stored."""
    pipe = HunyuanDiTPipeline.from_pretrained(place, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def grid(pipe, prompts, file: Path | None, columns: int, steps=None, seed=0):
    """Draws the prompts, one seed after the other; the pictures, which are also put side by side in `file`."""
    pictures = []
    for i, prompt in enumerate(prompts):
        random = torch.Generator("cpu").manual_seed(seed + i)
        pictures += pipe(
            prompt, negative_prompt="", height=data.SIZE, width=data.SIZE, num_inference_steps=steps or STEPS,
            guidance_scale=GUIDANCE, generator=random, use_resolution_binning=False,
        ).images
    if file is None:
        return pictures
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * data.SIZE, rows * data.SIZE), (255, 255, 255))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * data.SIZE, i // columns * data.SIZE))
    partial = file.with_name(file.name + ".partial.png")
    sheet.save(partial, optimize=True)
    partial.replace(file)
    return pictures
