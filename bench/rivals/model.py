"""The forward of diffusers' HunyuanDiT2DModel, taken apart so that a cache may leave out any of it.

A `Step` runs ranges of blocks, and counts what ran. Whoever asks for all blocks gets the hidden states of diffusers'
own forward, bit for bit: every tensor is made by diffusers' modules in the same order.
"""

from collections import Counter
from copy import copy
from functools import partial

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch.nn import functional

#: The parts of a block that compute, in their order. `skip` is the long skip connection of the later blocks.
LAYERS = ("skip", "attn1", "attn2", "ff")


class Text:
    """What the blocks read of the prompts, for every row: made once for a picture."""

    def __init__(self, states, extra):
        self.states, self.extra, self.kept = states, extra, {}

    def take(self, rows):
        """That of some of the rows."""
        part = Text(self.states[rows], self.extra[rows])
        part.kept = {attention: tuple(tensor[rows] for tensor in pair) for attention, pair in self.kept.items()}
        return part

    def keys_and_values(self, attention):
        """As a cross attention makes them of the states at every step; kept here to save this machine's time."""
        if attention not in self.kept:
            rows = self.states.shape[0]
            key, value = (linear(self.states).view(rows, -1, attention.heads, linear.out_features // attention.heads)
                          .transpose(1, 2) for linear in (attention.to_k, attention.to_v))
            self.kept[attention] = attention.norm_k(key), value
        return self.kept[attention]


def cross_attention(attention, hidden, text, rotary):
    """diffusers' HunyuanAttnProcessor2_0 for keys and values of a text."""
    key, value = text.keys_and_values(attention)
    rows, _, width = hidden.shape
    query = attention.to_q(hidden).view(rows, -1, attention.heads, width // attention.heads).transpose(1, 2)
    query = apply_rotary_emb(attention.norm_q(query), rotary)
    read = functional.scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False)
    return attention.to_out[0](read.transpose(1, 2).reshape(rows, -1, width))


class Transformer:
    """A HunyuanDiT2DModel without the style and size condition, as Hunyuan-DiT v1.2."""

    def __init__(self, model):
        if model.config.use_style_cond_and_image_meta_size:
            raise SystemExit("transformer/config.json: use_style_cond_and_image_meta_size is true, but this loop knows "
                             "models without it only: take a checkpoint in the form of Hunyuan-DiT v1.2")
        self.model, self.blocks = model.eval(), model.blocks
        self.depth = len(model.blocks)

    def text(self, states, mask, states_t5, mask_t5):
        """Of the states [rows, tokens, width] and masks [rows, tokens] of both text encoders."""
        embed = self.model.time_extra_emb
        extra = embed.extra_embedder(torch.cat([embed.pooler(states_t5)], dim=1))
        rows, tokens, width = states_t5.shape
        projected = self.model.text_embedder(states_t5.view(-1, width)).view(rows, tokens, -1)
        masks = torch.cat([mask, mask_t5], dim=-1).unsqueeze(2).bool()
        together = torch.cat([states, projected], dim=1)
        return Text(torch.where(masks, together, self.model.text_embedding_padding), extra)

    def predict(self, hidden, step, size):
        """The prediction [rows, channels, *size] from what the last block made."""
        model, patch = self.model, self.model.pos_embed.patch_size
        hidden = model.proj_out(model.norm_out(hidden, step.temb.to(torch.float32)))
        height, width = (side // patch for side in size)
        rows, channels = hidden.shape[0], model.out_channels
        hidden = torch.einsum("nhwpqc->nchpwq", hidden.reshape(rows, height, width, patch, patch, channels))
        return hidden.reshape(rows, channels, height * patch, width * patch)


def rows_of(pictures, count):
    """The rows of some of `count` pictures."""
    return [*pictures, *(count + picture for picture in pictures)]


class Step:
    """One step of some pictures, each of which has two rows: first all negative ones, then those with the prompts."""

    def __init__(self, transformer, index, timestep, latents, text, rotary):
        """`latents` [rows, channels, h, w]; `timestep` of the model's training; `index` counts steps from 0."""
        self.transformer, self.index, self.timestep = transformer, index, float(timestep)
        self.text, self.rotary = text, rotary
        model, rows = transformer.model, latents.shape[0]
        self.x = model.pos_embed(latents)
        timesteps = torch.tensor([timestep] * rows).to(dtype=latents.dtype)
        embed = model.time_extra_emb
        self.temb = embed.timestep_embedder(embed.time_proj(timesteps).to(dtype=timesteps.dtype)) + text.extra
        self.skips = {}
        #: The pictures, and what ran for each, in rows.
        self.pictures = list(range(rows // 2))
        self.ran = [Counter() for _ in self.pictures]
        self.count("embed")

    def count(self, what):
        """Notes that something ran for every row."""
        rows = self.x.shape[0] // len(self.pictures)
        for picture in self.pictures:
            self.ran[picture][what] += rows

    def take(self, pictures):
        """The same step of some of its pictures, by their places in it: with their skips, and counted together."""
        if len(pictures) == len(self.pictures):
            return self
        part = copy(self)
        rows = rows_of(pictures, len(self.pictures))
        part.pictures = [self.pictures[place] for place in pictures]
        part.x, part.temb, part.text = self.x[rows], self.temb[rows], self.text.take(rows)
        part.skips = {block: skip[rows] for block, skip in self.skips.items()}
        return part

    def drop_negative(self):
        """From here on without the negative rows, and so without guidance."""
        positive = slice(len(self.pictures), None)
        self.x, self.temb, self.text = self.x[positive], self.temb[positive], self.text.take(positive)

    def shifted(self):
        """What the first block's self-attention reads: the timestep moves it, and so do the latents."""
        self.count("shift")
        return self.transformer.blocks[0].norm1(self.x, self.temb)

    def blocks(self, first, stop, hidden, layer=None):
        """Runs the blocks `first` to `stop` - 1 on `hidden`.

        A block beyond the middle reads `skips[l]` of the block l that it mirrors: blocks before the middle leave
        theirs there, and whoever does not run them must do so instead. `layer(block, name, compute)`, if given, stands
        in for each of `attn1`, `attn2` and `ff`; it may call `compute()` or not.
        """
        depth = self.transformer.depth
        for index in range(first, stop):
            block = self.transformer.blocks[index]
            if block.skip_linear is not None:
                both = torch.cat([hidden, self.skips[depth - 1 - index]], dim=-1)
                hidden = block.skip_linear(block.skip_norm(both))
            self.count((index, "skip"))
            for name in LAYERS[1:]:
                compute = partial(self._compute, index, name, hidden)
                hidden = hidden + (layer(index, name, compute) if layer else compute())
            if index < depth // 2 - 1:
                self.skips[index] = hidden
        return hidden

    def _compute(self, index, name, hidden):
        block = self.transformer.blocks[index]
        self.count((index, name))
        if name == "attn1":
            return block.attn1(block.norm1(hidden, self.temb), image_rotary_emb=self.rotary)
        if name == "attn2":
            return cross_attention(block.attn2, block.norm2(hidden), self.text, self.rotary)
        return block.ff(block.norm3(hidden))

    def all_blocks(self):
        """What the last block makes where nothing is left out."""
        return self.blocks(0, self.transformer.depth, self.x)
