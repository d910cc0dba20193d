"""Checks of the comparison itself: `run.py --check`. They take seconds, and need nothing but a checkpoint.

- The loop's latents are those of diffusers' pipeline, bit for bit.
- So are those of every method at its setting that reuses nothing.
- The FLOPs counted for an uncached run are those of torch's own counter over diffusers' forward.
- A cached step of Skip-Cache costs 5.0 % of a full one in Hunyuan-DiT.
"""

from collections import Counter

import torch
from torch.utils.flop_counter import FlopCounterMode

import methods
from draw import Painter, Picture
from flops import HUNYUAN_DIT, Flops, stretched
from methods.base import Context
from methods.plain import Uncached
from methods.skip_cache import BlockReuse

PICTURE = Picture("a cat on a blue background", 42)
STEPS = 3


def expect(what, holds, found=""):
    print(f"{what}: {'holds' if holds else 'does NOT hold'}{found and f' ({found})'}")
    if not holds:
        raise SystemExit(1)


def run(checkpoint):
    for sampler in ("dpmms", "ddim", "ddpm"):
        painter = Painter(checkpoint, sampler, STEPS)
        context = Context(painter.transformer.depth, painter.timesteps(STEPS).tolist())
        with torch.no_grad():
            latents = painter.pipe(
                PICTURE.prompt, num_inference_steps=STEPS, guidance_scale=painter.guidance, output_type="latent",
                height=8 * painter.size[0], width=8 * painter.size[1], use_resolution_binning=False,
                generator=torch.Generator("cpu").manual_seed(PICTURE.seed)).images[0]
        (own,) = painter.draw([PICTURE], lambda: Uncached(context))
        expect(f"{sampler}: the loop gives the latents of diffusers' pipeline", torch.equal(own.latents, latents))
        for method in methods.ALL:
            (drawn,) = painter.draw([PICTURE], lambda: method(context, **method.never))
            expect(f"{sampler}: {method.name} without reuse gives them too", torch.equal(drawn.latents, latents))
    flops(painter, own.ran)


def flops(painter, ran):
    own, expected = Flops(painter.config, painter.tokens), counted_by_torch(painter)
    expect("an uncached step has the FLOPs that torch counts", own.of(ran) / STEPS == expected, f"{expected:,}")
    expect("an uncached run has those of the formula", own.of(ran) == own.uncached(STEPS))
    context = Context(painter.transformer.depth, painter.timesteps(STEPS).tolist())
    (drawn,) = painter.draw([PICTURE], lambda: BlockReuse(context, gap=STEPS))  # one full step, and cached ones
    hunyuan = Flops(HUNYUAN_DIT, 64 * 64)
    cached, full = (hunyuan.of(blocks(stretched(of, painter.transformer.depth, hunyuan.depth, "ends")))
                    for of in (drawn.ran, ran))
    share = (cached - full / STEPS) / (full - full / STEPS)
    expect("a cached step runs 5.0 % of Hunyuan-DiT's blocks", f"{share:.3f}" == "0.050", f"{share:.2%}")


def blocks(ran):
    return Counter({what: rows for what, rows in ran.items() if isinstance(what, tuple)})


def counted_by_torch(painter):
    """The FLOPs of diffusers' forward of a guided step, less those of what depends on the prompt alone."""
    model, config = painter.pipe.transformer, painter.config
    states, states_t5 = (torch.zeros(2, config[length], config[width]) for length, width in (
        ("text_len", "cross_attention_dim"), ("text_len_t5", "cross_attention_dim_t5")))
    counter = FlopCounterMode(display=False, depth=None)
    with torch.no_grad(), counter:
        model(torch.zeros(2, config["in_channels"], *painter.size), torch.ones(2), states, torch.ones(states.shape[:2]),
              states_t5, torch.ones(states_t5.shape[:2]), image_rotary_emb=painter.rotary)
    counted = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    once = ("text_embedder", "time_extra_emb.pooler", "time_extra_emb.extra_embedder")
    return counted["Global"] - sum(counted[f"{type(model).__name__}.{part}"] for part in once)
