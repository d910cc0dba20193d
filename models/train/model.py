"""HunyuanDiT2DModel for training: diffusers' modules and weights, a leaner forward pass.

The sums are diffusers' own. Spared are projections done one by one (query, key and value are one product) and, while
texts are cut short, the positions at which all texts are padding.

Short texts: a caption has at most a dozen tokens, but the model attends to 77 + 256, the rest being learned padding,
unmasked. If the padding at every position past the cut equals that at the last one kept, one position with a bias of
log(n) in the softmax does what n do. `spread_padding` makes it so when training goes over to full length.
"""

import math

import torch
import torch.nn.functional as F
from diffusers import HunyuanDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed


class Texts:
    """How many positions of each text are kept, and for how many each of them stands."""

    def __init__(self, model: HunyuanDiT2DModel, short: int | None, device):
        full = (model.config.text_len, model.config.text_len_t5)
        self.kept = full if short is None else (short, short)
        count = [torch.ones(n) for n in self.kept]
        for c, n in zip(count, full):
            c[-1] += n - len(c)
        self.short = short is not None
        bert, t5 = (c.to(device) for c in count)
        self.t5_share = (t5 / t5.sum())[None, :, None]
        self.cross_bias = torch.cat([bert, t5]).log().view(1, 1, 1, -1)
        self.pool_bias = F.pad(t5.log(), (1, 0)).view(1, 1, 1, -1)
        self.padding = torch.cat([torch.arange(self.kept[0]), full[0] + torch.arange(self.kept[1])]).to(device)


@torch.no_grad()
def spread_padding(model: HunyuanDiT2DModel, short: int):
    """Past the cut, padding and the pooler's positions become what the last kept position is."""
    padding, bert = model.text_embedding_padding, model.config.text_len
    padding[short:bert] = padding[short - 1]
    padding[bert + short :] = padding[bert + short - 1]
    places = model.time_extra_emb.pooler.positional_embedding
    places[1 + short :] = places[short]


@torch.no_grad()
def average_padding(model: HunyuanDiT2DModel, short: int):
    """Nearly the same without training: the last kept position becomes the mean of those for which it stands."""
    padding, bert = model.text_embedding_padding, model.config.text_len
    padding[short - 1] = padding[short - 1 : bert].mean(0)
    padding[bert + short - 1] = padding[bert + short - 1 :].mean(0)
    places = model.time_extra_emb.pooler.positional_embedding
    places[short] = places[short:].mean(0)


def cut(states, short: int):
    """States `[n, tokens, width]` of texts (or their masks), cut; the last is the mean of those for which it stands."""
    if states.dtype == torch.bool:
        return states[:, :short]
    return torch.cat([states[:, : short - 1], states[:, short - 1 :].mean(1, keepdim=True)], 1)


def rotary(size: int, device):
    """Of a picture of size x size patches, as the pipeline makes it. Returns what turns pairs of channels."""
    base = 512 // 8 // 2  # the pipeline's constant
    start = round((base - base / max(size, size) * size) / 2.0)
    stop = start + round(base / max(size, size) * size)
    cos, sin = get_2d_rotary_pos_embed(64, ((start, start), (stop, stop)), (size, size))
    return cos.to(device), sin.to(device)


def turn(x, cos, sin):
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-odd, even], -1).flatten(-2) * sin


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def norm(layer, x):
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def linear(x, *layers):
    if len(layers) == 1:
        return F.linear(x, layers[0].weight, layers[0].bias)
    return F.linear(x, torch.cat([m.weight for m in layers]), torch.cat([m.bias for m in layers]))


def attend(q, k, v, bias):
    if q.is_cuda:
        return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # at these sizes the fused kernel's backward pass is slower on a CPU
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def attention(attn, x, text, cos, sin, bias):
    n = attn.heads
    if text is None:
        q, k, v = (heads(t, n) for t in linear(x, attn.to_q, attn.to_k, attn.to_v).chunk(3, -1))
        k = turn(norm(attn.norm_k, k), cos, sin)
    else:
        q = heads(linear(x, attn.to_q), n)
        k, v = (heads(t, n) for t in linear(text, attn.to_k, attn.to_v).chunk(2, -1))
        k = norm(attn.norm_k, k)
    q = turn(norm(attn.norm_q, q), cos, sin)
    out = attend(q, k, v, bias)
    return linear(out.transpose(1, 2).flatten(2), attn.to_out[0])


def block(b, x, text, shift, skip, cos, sin, bias):
    if skip is not None:
        x = linear(norm(b.skip_norm, torch.cat([x, skip], -1)), b.skip_linear)
    x = x + attention(b.attn1, norm(b.norm1.norm, x) + shift, None, cos, sin, None)
    x = x + attention(b.attn2, norm(b.norm2, x), text, cos, sin, bias)
    up, down = b.ff.net[0].proj, b.ff.net[2]
    return x + linear(F.gelu(linear(norm(b.norm3, x), up), approximate="tanh"), down)


def pool(pooler, t5, texts: Texts):
    """The pooler's attention by the mean over all positions; padding is not masked."""
    x = torch.cat([(t5 * texts.t5_share).sum(1, keepdim=True), t5], 1)
    x = x + pooler.positional_embedding[: x.shape[1]]
    q = heads(linear(x[:, :1], pooler.q_proj), pooler.num_heads)
    k, v = (heads(t, pooler.num_heads) for t in linear(x, pooler.k_proj, pooler.v_proj).chunk(2, -1))
    bias = texts.pool_bias.to(v.dtype) if texts.short else None
    out = attend(q, k, v, bias)
    return linear(out.transpose(1, 2).flatten(2), pooler.c_proj)[:, 0]


def mlp(x, first, second):
    return linear(F.silu(linear(x, first)), second)


def read(model, texts: Texts, time_features, bert, bert_mask, t5, t5_mask):
    """What time and texts say to every block: `[n, hidden]` and `[n, tokens, width]`."""
    embed = model.time_extra_emb
    temb = mlp(time_features, embed.timestep_embedder.linear_1, embed.timestep_embedder.linear_2)
    pooled = pool(embed.pooler, t5, texts)
    temb = temb + mlp(pooled, embed.extra_embedder.linear_1, embed.extra_embedder.linear_2)
    t5 = mlp(t5, model.text_embedder.linear_1, model.text_embedder.linear_2)
    mask = torch.cat([bert_mask, t5_mask], 1)[..., None]
    text = torch.where(mask, torch.cat([bert, t5.to(bert.dtype)], 1), model.text_embedding_padding[texts.padding])
    return temb, text


def shifts_of(model, temb):
    """What each block adds to its normed input."""
    return linear(F.silu(temb), *[b.norm1.linear for b in model.blocks])[:, None].chunk(len(model.blocks), -1)


def patches_of(model, latents):
    size = latents.shape[-1] // 2
    patches = latents.unflatten(2, (size, 2)).unflatten(4, (size, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return F.linear(patches, model.pos_embed.proj.weight.flatten(1), model.pos_embed.proj.bias)


def forward(model, texts: Texts, latents, time_features, bert, bert_mask, t5, t5_mask, cos, sin):
    """The first half of the output, which is what the pipeline uses. `time_features` are `time_features_of(t)`."""
    temb, text = read(model, texts, time_features, bert, bert_mask, t5, t5_mask)
    return draw(model, texts, patches_of(model, latents), temb, text, cos, sin)


def draw(model, texts: Texts, x, temb, text, cos, sin, controls=None):
    """From patches to the first half of the output; what a ControlNet says to block i is added to that block's skip."""
    shifts = shifts_of(model, temb)
    bias = texts.cross_bias.to(shifts[0].dtype) if texts.short else None
    size, half, skips = math.isqrt(x.shape[1]), len(model.blocks) // 2, []
    for i, b in enumerate(model.blocks):
        if i == half + 1 and controls is not None:
            skips = [skip + control for skip, control in zip(skips, controls, strict=True)]
        x = block(b, x, text, shifts[i], skips.pop() if i > half else None, cos, sin, bias)
        if i < half - 1:
            skips.append(x)
    scale, shift = linear(F.silu(temb), model.norm_out.linear)[:, None].chunk(2, -1)
    x = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    x = linear(x, model.proj_out).unflatten(-1, (2, 2, -1)).unflatten(1, (size, size))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)[:, :4]


def controls_of(net, texts: Texts, x, image, temb, text, cos, sin):
    """What a ControlNet says to the model's first blocks, of patches `x` and of those of its image."""
    shifts, made = shifts_of(net, temb), []
    bias = texts.cross_bias.to(shifts[0].dtype) if texts.short else None
    x = x + linear(image, net.input_block)
    for b, shift, out in zip(net.blocks, shifts, net.controlnet_blocks, strict=True):
        x = block(b, x, text, shift, None, cos, sin, bias)
        made.append(linear(x, out))
    return made


def time_features_of(timestep: torch.Tensor) -> torch.Tensor:
    frequencies = torch.exp(-math.log(10000) * torch.arange(128, device=timestep.device) / 128)
    angles = timestep[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)
