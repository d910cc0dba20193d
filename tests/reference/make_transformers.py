"""Goldens of HunyuanDiT2DModel, cut where the exported graphs are cut -> transformer/<case>.{safetensors,json}

Every tensor is read from the running diffusers model by a hook. With B images, S = h/2 * w/2 image tokens,
T text tokens, width D, per case:

    text_states  [B, T, D_text]   what cross attention reads: both texts, padding replaced
    extra        [B, D]           the part of temb that does not depend on the timestep
    temb         [B, D]           timestep embedding + extra
    skip_<i>     [B, S, D]        output of block i, for i < branches
    deep_<b>     [B, S, D]        output of block depth-1-b: what the cache keeps when it is cut at branch b, 1 <= b <= branches
    noise_pred   [B, out, h, w]   output of the whole model
    cos, sin     [h/2, w/2, head] the rotary tables that were used (inputs)

branches = min(3, depth/2 - 1). emoji-12x20 has no skips and deep_1 only, to stay small.
odd_depth.json says which depths diffusers runs at all.
"""

import torch
from diffusers import HunyuanDiT2DModel
from safetensors.torch import load_file

import golden
import synthetic
from make_rope import rotary_tables

torch.set_num_threads(2)

SHARED = dict(activation_fn="gelu-approximate", norm_type="layer_norm", in_channels=4, patch_size=2, sample_size=16)


def config(depth, heads, head_dim, mlp_ratio, text, t5, pooled, learn_sigma=True, style=False):
    """`text` and `t5` are (number of tokens, width)."""
    return dict(
        SHARED,
        num_layers=depth,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        hidden_size=heads * head_dim,
        mlp_ratio=mlp_ratio,
        text_len=text[0],
        cross_attention_dim=text[1],
        text_len_t5=t5[0],
        cross_attention_dim_t5=t5[1],
        pooled_projection_dim=pooled,
        learn_sigma=learn_sigma,
        use_style_cond_and_image_meta_size=style,
    )


# name: (config, latent height and width, timesteps, lengths of the two masks)
CASES = {
    "depth4": (config(4, 2, 8, 4.0, (5, 12), (7, 16), 10), (4, 6), [999, 500, 1], ([2, 5, 1], [3, 7, 1])),
    "depth6": (config(6, 3, 16, 4.3637, (6, 20), (9, 24), 32, learn_sigma=False), (8, 12), [981, 21, 401], ([3, 6, 0], [9, 1, 4])),
    "depth8": (config(8, 2, 44, 4.3637, (77, 16), (256, 8), 24), (6, 10), [701, 51], ([9, 77], [12, 256])),
    "depth10-style": (config(10, 4, 12, 2.0, (4, 24), (6, 32), 16, style=True), (10, 6), [999, 700, 50], ([4, 1, 2], [2, 6, 3])),
    "depth12-style": (config(12, 1, 24, 3.0, (3, 8), (5, 8), 8, learn_sigma=False, style=True), (4, 4), [321, 1], ([1, 3], [2, 5])),
    "depth14": (config(14, 5, 4, 3.5, (8, 28), (5, 40), 12), (12, 8), [961], ([5], [4])),
}


def watch(model: HunyuanDiT2DModel, branches: int, found: dict):
    """Hooks that put the seams' tensors into `found`."""

    def output_as(name):
        return lambda module, args, output: found.__setitem__(name, output)

    def text_states(module, args, kwargs):
        found["text_states"] = kwargs["encoder_hidden_states"]

    depth = len(model.blocks)
    hooks = [
        model.time_extra_emb.register_forward_hook(output_as("temb")),
        model.time_extra_emb.extra_embedder.register_forward_hook(output_as("extra")),
        model.blocks[0].register_forward_pre_hook(text_states, with_kwargs=True),
    ]
    for i in range(branches):
        hooks.append(model.blocks[i].register_forward_hook(output_as(f"skip_{i}")))
        hooks.append(model.blocks[depth - 2 - i].register_forward_hook(output_as(f"deep_{i + 1}")))
    return hooks


@torch.no_grad()
def run(model: HunyuanDiT2DModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    hooks = watch(model, min(3, len(model.blocks) // 2 - 1), found)
    arguments = {name: tensor for name, tensor in inputs.items() if name not in ("latents", "cos", "sin")}
    rotary = (inputs["cos"].flatten(0, 1), inputs["sin"].flatten(0, 1))
    found["noise_pred"] = model(inputs["latents"], image_rotary_emb=rotary, return_dict=False, **arguments)[0]
    for hook in hooks:
        hook.remove()
    return found


def input_specs(config: dict, latents, timesteps, mask_lengths) -> dict:
    batch = len(timesteps)
    specs = {
        "latents": {"shape": [batch, config["in_channels"], *latents], "scale": 2.0},
        "timestep": {"values": [float(t) for t in timesteps], "dtype": "float32"},
        "encoder_hidden_states": {"shape": [batch, config["text_len"], config["cross_attention_dim"]], "scale": 1.5},
        "text_embedding_mask": {"lengths": mask_lengths[0], "length": config["text_len"]},
        "encoder_hidden_states_t5": {"shape": [batch, config["text_len_t5"], config["cross_attention_dim_t5"]], "scale": 1.5},
        "text_embedding_mask_t5": {"lengths": mask_lengths[1], "length": config["text_len_t5"]},
        "cos": {"stored": True},
        "sin": {"stored": True},
    }
    if config["use_style_cond_and_image_meta_size"]:
        sizes = [[1024, 1024, 8 * latents[0], 8 * latents[1], 0, 0], [1024, 1024, 1280, 768, 0, 0], [512, 768, 100, 60, 8, 16]]
        specs["image_meta_size"] = {"values": [[float(n) for n in row] for row in sizes[:batch]], "dtype": "float32"}
        specs["style"] = {"values": [0] * batch, "dtype": "int64"}
    return specs


def synthetic_models():
    for name, (sizes, latents, timesteps, mask_lengths) in CASES.items():
        model = synthetic.fill(HunyuanDiT2DModel(**sizes))
        specs = input_specs(sizes, latents, timesteps, mask_lengths)
        cos, sin = rotary_tables(sizes["attention_head_dim"], (latents[0] // 2, latents[1] // 2))
        inputs = golden.make_inputs(specs, {"cos": cos, "sin": sin})
        found = run(model, inputs)
        about = {"config": golden.public_config(model), "weights": "synthetic", "inputs": specs}
        golden.save(f"transformer/{name}", about, {**found, "cos": cos, "sin": sin}, list(found))


def emoji():
    """The trained model, on the states of two real prompts, negative (empty) half first as the pipeline has it."""
    model = HunyuanDiT2DModel.from_pretrained(golden.EMOJI / "transformer").eval()
    text = load_file(golden.HERE / "text/emoji-bert.safetensors")
    t5 = load_file(golden.HERE / "text/emoji-t5.safetensors")
    text_names = {
        "encoder_hidden_states": ("text/emoji-bert.safetensors", "last_hidden_state", text["last_hidden_state"]),
        "text_embedding_mask": ("text/emoji-bert.safetensors", "attention_mask", text["attention_mask"]),
        "encoder_hidden_states_t5": ("text/emoji-t5.safetensors", "last_hidden_state", t5["last_hidden_state"]),
        "text_embedding_mask_t5": ("text/emoji-t5.safetensors", "attention_mask", t5["attention_mask"]),
    }
    for name, (h, w), timesteps in [("emoji-16x16", (16, 16), [741, 41]), ("emoji-12x20", (12, 20), [301, 301])]:
        cos, sin = rotary_tables(model.config.attention_head_dim, (h // 2, w // 2))
        specs = {
            "latents": {"shape": [2, 4, h, w], "scale": 2.0},
            "timestep": {"values": [float(t) for t in timesteps], "dtype": "float32"},
            "cos": {"stored": True},
            "sin": {"stored": True},
        }
        stored = {"cos": cos, "sin": sin}
        for argument, (file, tensor_name, tensor) in text_names.items():
            specs[argument] = {"stored": True, "in": file, "as": tensor_name}
            stored[argument] = tensor
        found = run(model, golden.make_inputs(specs, stored))
        if name == "emoji-12x20":
            found = {key: found[key] for key in ("temb", "deep_1", "noise_pred")}
        about = {"config": golden.public_config(model), "weights": "models/emoji/transformer", "inputs": specs}
        golden.save(f"transformer/{name}", about, {**found, "cos": cos, "sin": sin}, list(found))


def odd_depth():
    """diffusers pushes depth/2 - 1 skips but pops one for every block after depth/2: one too many when depth is odd."""
    results = []
    for depth in range(1, 10):
        sizes = config(depth, 1, 8, 2.0, (2, 8), (3, 8), 8)
        model = synthetic.fill(HunyuanDiT2DModel(**sizes))
        cos, sin = rotary_tables(8, (2, 2))
        specs = input_specs(sizes, (4, 4), [1], ([1], [1]))
        try:
            run(model, golden.make_inputs(specs, {"cos": cos, "sin": sin}))
            results.append({"depth": depth, "runs": True})
        except Exception as error:
            results.append({"depth": depth, "runs": False, "error": f"{type(error).__name__}: {error}"})
    golden.write_json("transformer/odd_depth.json", results)
    print(results)


if __name__ == "__main__":
    synthetic_models()
    emoji()
    odd_depth()
