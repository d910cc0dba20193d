"""LoRAs by peft, and models with them merged by peft -> lora/*

LoRAs, whose matrices are made from their names (synthetic.py):

    tiny-peft/          of make_transformers.py's depth4, in diffusers' names, as peft saves it; several ranks and alphas
    tiny-diffusers      the same with diffusers' prefix and metadata
    tiny-tencent/       of the same model in Tencent's names, as peft saves it, with rsLoRA
    tiny-kohya          the same in Kohya's names, with an alpha each
    tiny-unet           the same in the names that Tencent's own lora.py reads, without alpha
    emoji-style         of models/emoji: attention, rank 4, diffusers' names, fp16
    emoji-ink           of models/emoji: attention and pooler, rank 2, Tencent's names, fp16
    emoji-text          of models/emoji: attention and feed-forward of transformer and both text encoders, rank 2, fp16

Goldens of the tiny model, as in transformer/ (see make_transformers.py), with "loras" in their JSON: files and weights.
pictures.json lists pictures of models/emoji by diffusers' pipeline. Merging is peft's merge_and_unload(); a model in
Tencent's names is a tree of linear layers, which becomes diffusers' by the rules of convert_hunyuandit_to_diffusers.py.
"""

import copy
import json
import math
import tempfile
from pathlib import Path

import torch
from diffusers import HunyuanDiT2DModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

import golden
import make_pictures
import make_transformers
import synthetic

torch.set_num_threads(2)
FOLDER = golden.HERE / "lora"

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TINY = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "norm1.linear", "skip_linear", "pos_embed.proj", "norm_out.linear", "linear_1"]
TENCENT = ["Wqkv", "q_proj", "kv_proj", "out_proj"]  # Tencent's own choice; it finds pooler.q_proj too
PICTURES = {
    "style": [("emoji-style.safetensors", 1.0)],
    "style-ink": [("emoji-style.safetensors", 0.7), ("emoji-ink.safetensors", 1.5)],
    "text": [("emoji-text.safetensors", 0.8)],
}
DRAWN = dict(make_pictures.DEFAULTS, sampler="dpmms", steps=10)


# Tencent's layer: diffusers' layers, whose rows follow each other
def joined(depth: int) -> dict[str, list[str]]:
    layers = {"pooler.q_proj": ["time_extra_emb.pooler.q_proj"], "final_layer.adaLN_modulation.1": ["norm_out.linear"]}
    for i in range(depth):
        for theirs, ours in {
            "attn1.Wqkv": ["attn1.to_q", "attn1.to_k", "attn1.to_v"],
            "attn1.out_proj": ["attn1.to_out.0"],
            "attn2.q_proj": ["attn2.to_q"],
            "attn2.kv_proj": ["attn2.to_k", "attn2.to_v"],
            "attn2.out_proj": ["attn2.to_out.0"],
            "mlp.fc1": ["ff.net.0.proj"],
        }.items():
            layers[f"blocks.{i}.{theirs}"] = [f"blocks.{i}.{name}" for name in ours]
    return layers


def swapped(weight: torch.Tensor) -> torch.Tensor:
    return torch.cat(weight.chunk(2)[::-1])


def to_tencent(model: HunyuanDiT2DModel) -> nn.Module:
    tree = nn.Module()
    for theirs, ours in joined(len(model.blocks)).items():
        weight = torch.cat([model.get_submodule(name).weight for name in ours])
        weight = swapped(weight) if theirs.startswith("final_layer") else weight
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data.copy_(weight)
        *path, last = theirs.split(".")
        place = tree
        for name in path:
            if not hasattr(place, name):
                place.add_module(name, nn.Module())
            place = getattr(place, name)
        place.add_module(last, layer)
    tree.forward = lambda: None
    return tree


def from_tencent(tree: nn.Module, model: HunyuanDiT2DModel):
    for theirs, ours in joined(len(model.blocks)).items():
        weight = tree.get_submodule(theirs).weight.data
        weight = swapped(weight) if theirs.startswith("final_layer") else weight
        for name, part in zip(ours, weight.chunk(len(ours))):
            model.get_submodule(name).weight.data.copy_(part)


def adapter(module: nn.Module, name: str, size: float, dtype=torch.float32, **config) -> PeftModel:
    """A LoRA on `module`; `size` is the largest element of B."""
    model = get_peft_model(module, LoraConfig(**config))
    for key, parameter in model.named_parameters():
        if ".lora_" in key:
            scale = size if ".lora_B" in key else math.sqrt(3 / parameter[0].numel())
            values = synthetic.values(f"{name}.{key}", list(parameter.shape), scale)
            parameter.data.copy_(values.to(dtype))
    return model


def merged(model: PeftModel, weight: float) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", weight)
    return model.merge_and_unload()


def saved(model: PeftModel, folder: str | None = None) -> dict[str, torch.Tensor]:
    """What peft saves; in lora/<folder> if one is named."""
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        config = json.loads((Path(place) / "adapter_config.json").read_text())
        config = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
        tensors = load_file(Path(place) / "adapter_model.safetensors")
        if folder:
            (FOLDER / folder).mkdir(parents=True, exist_ok=True)
            save_file(tensors, FOLDER / folder / "adapter_model.safetensors")
            (FOLDER / folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return tensors


def renamed(tensors, start: str) -> dict[str, torch.Tensor]:
    return {start + name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}


def tiny_model() -> tuple[HunyuanDiT2DModel, dict, dict]:
    sizes, latents, timesteps, lengths = make_transformers.CASES["depth4"]
    model = synthetic.fill(HunyuanDiT2DModel(**sizes))
    specs = make_transformers.input_specs(sizes, latents, timesteps, lengths)
    cos, sin = make_transformers.rotary_tables(sizes["attention_head_dim"], (latents[0] // 2, latents[1] // 2))
    return model, specs, {"cos": cos, "sin": sin}


def tiny_golden(name: str, model: HunyuanDiT2DModel, loras: list):
    _, specs, tables = tiny_model()
    found = make_transformers.run(model, golden.make_inputs(specs, tables))
    about = {"config": golden.public_config(model), "weights": "synthetic", "loras": loras, "inputs": specs}
    golden.save(f"lora/{name}", about, {**found, **tables}, list(found))


def tiny():
    config = dict(r=3, lora_alpha=6, target_modules=TINY, rank_pattern={"attn1.to_q": 2, "pos_embed.proj": 1}, alpha_pattern={"ff.net.2": 1.5})
    model, _, _ = tiny_model()
    peft = adapter(model, "tiny-peft", 0.5, **config)
    tensors = saved(peft, "tiny-peft")
    fields = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"}
    metadata = {f"transformer.{key}": value for key, value in peft.peft_config["default"].to_dict().items() if key in fields}
    save_file(renamed(tensors, "transformer."), FOLDER / "tiny-diffusers.safetensors", {"lora_adapter_metadata": json.dumps(metadata, sort_keys=True)})
    tiny_golden("golden-peft", merged(peft, 0.8), [["tiny-peft", 0.8]])

    config = dict(r=3, lora_alpha=2, use_rslora=True, target_modules=[*TENCENT, "fc1", "adaLN_modulation.1"])
    model, _, _ = tiny_model()
    peft = adapter(to_tencent(model), "tiny-tencent", 0.5, **config)
    tensors = saved(peft, "tiny-tencent")
    kohya, unet = {}, {}
    for name, tensor in renamed(tensors, "").items():
        layer, part = name.removesuffix(".weight").split(".lora_")
        flat = f"lora_unet_{layer.replace('.', '_')}"
        kohya[f"{flat}.lora_{'down' if part == 'A' else 'up'}.weight"] = tensor
        kohya[f"{flat}.alpha"] = torch.tensor(2 * math.sqrt(3))
        # There alpha / sqrt(rank) is 1 / sqrt(rank).
        unet[f"unet.{layer.replace('_', '.')}.lora.{'down' if part == 'A' else 'up'}.weight"] = tensor * (1 if part == "A" else 2)
    save_file(kohya, FOLDER / "tiny-kohya.safetensors")
    save_file(unet, FOLDER / "tiny-unet.safetensors")
    from_tencent(merged(peft, 1.5), model)
    tiny_golden("golden-tencent", model, [["tiny-tencent", 1.5]])

    # Both, one after the other.
    config = dict(r=3, lora_alpha=6, target_modules=TINY, rank_pattern={"attn1.to_q": 2, "pos_embed.proj": 1}, alpha_pattern={"ff.net.2": 1.5})
    both = merged(adapter(copy.deepcopy(model), "tiny-peft", 0.5, **config), -0.4)
    tiny_golden("golden-both", both, [["tiny-tencent", 1.5], ["tiny-peft", -0.4]])


def save_half(tensors: dict[str, torch.Tensor], name: str):
    save_file({key: tensor.half().contiguous() for key, tensor in tensors.items()}, FOLDER / name)


def emoji(loras: list):
    """The pipeline with the LoRAs of `loras` merged, whose files are written."""
    pipe = make_pictures.load("emoji")
    half = torch.float16
    for file, weight in loras:
        if file == "emoji-style.safetensors":
            peft = adapter(pipe.transformer, "style", 0.6, half, r=4, lora_alpha=4, target_modules=ATTENTION)
            save_half(renamed(saved(peft), "transformer."), file)
            pipe.transformer = merged(peft, weight)
        elif file == "emoji-ink.safetensors":
            peft = adapter(to_tencent(pipe.transformer), "ink", 0.6, half, r=2, lora_alpha=2, target_modules=TENCENT)
            save_half(saved(peft), file)
            from_tencent(merged(peft, weight), pipe.transformer)
        else:
            tensors = {}
            for part, layers, size in [
                ("transformer", [*ATTENTION, "ff.net.0.proj", "ff.net.2"], 0.4),
                ("text_encoder", ["query", "key", "value", "dense"], 0.3),
                ("text_encoder_2", ["q", "k", "v", "o", "wi_0", "wi_1", "wo"], 0.3),
            ]:
                peft = adapter(getattr(pipe, part), part, size, half, r=2, lora_alpha=2, target_modules=layers)
                tensors.update(renamed(saved(peft), f"{part}."))
                setattr(pipe, part, merged(peft, weight))
            save_half(tensors, file)
    return pipe


def main():
    FOLDER.mkdir(exist_ok=True)
    tiny()
    listing = []
    for name, loras in PICTURES.items():
        pipe = emoji(loras)
        make_pictures.set_sampler(pipe, pipe.scheduler, DRAWN["sampler"])
        images, _, _ = make_pictures.draw(pipe, DRAWN)
        images[0].save(FOLDER / f"{name}.png", optimize=True)
        listing.append({"file": f"{name}.png", "loras": loras, **{key: DRAWN[key] for key in ("sampler", "steps", "prompt", "seeds", "guidance_scale")}})
    golden.write_json("lora/pictures.json", listing)


if __name__ == "__main__":
    main()
