"""Image prompts by Tencent's IP-Adapter -> ip_adapter/*

diffusers has no IP-Adapter for Hunyuan-DiT, so what Tencent's code adds (Tencent/HunyuanDiT @368280e,
hydit/modules/models.py, attn_layers.py, hydit/diffusion/pipeline_ipadapter.py) is added here to diffusers' transformer by
hooks: `ImageAttention` beside every cross attention, and `project` behind transformers' CLIP. Two things of it to know:
the scores are scaled by 1/sqrt(head_dim), as in its flash attention and its path for PyTorch 1, since the one for PyTorch 2
forgets that; and the negative prompt gets the tokens of an embedding of zeros.

    encoder-<case>          the image encoder: image_states [2, tokens, cross], of zeros and of the image
    <case>                  the transformer at the seams of the graphs (make_transformers.py), with an image prompt
    processed               pixel_values [1, 3, size, size] that CLIPImageProcessor makes of images, named
                            <image>/<shortest edge, or "stretch">; the crop is 28
    tiny-ipa.pt             an adapter of `hydit-export synth --depth 4 --heads 2 --head-dim 12 --small-text`, fp16
    tiny-clip.pt, tiny-clip/  one image encoder, in the names of OpenAI's CLIP as Tencent ships it, and as transformers saves it
    pictures.json, *.png    whole pictures of models with made-up weights (`hydit-export synth --ip-adapter`)

    cargo build --release --workspace --bins
    python make_ip_adapter.py
"""

import math
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from diffusers import HunyuanDiT2DModel, HunyuanDiTPipeline
from diffusers.models.embeddings import apply_rotary_emb
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import golden
import make_transformers
import synthetic
from make_pictures import set_sampler

torch.set_num_threads(2)
FOLDER = golden.HERE / "ip_adapter"
IMAGES = golden.HERE / "image_to_image"
EXPORT = golden.REPOSITORY / "target/release/hydit-export"
TOKENS = 8
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


class ImageAttention(nn.Module):
    """What a cross attention adds for the image before its output's projection."""

    def __init__(self, attention, cross):
        super().__init__()
        hidden = attention.to_q.out_features
        self.heads = attention.heads
        self.to_k_ip = nn.Linear(cross, hidden)
        self.to_v_ip = nn.Linear(cross, hidden)
        self.norm_k_ip = nn.LayerNorm(hidden // attention.heads, eps=1e-6)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, q, states):
        k, v = self.norm_k_ip(self.split(self.to_k_ip(states))), self.split(self.to_v_ip(states))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class ImagePrompt:
    """Adds image prompts to `model`. Set `states`, [b, tokens, cross], and `scale`, [b]; None for none."""

    def __init__(self, model: HunyuanDiT2DModel):
        self.states = self.scale = None
        for block in model.blocks:
            attention = block.attn2
            attention.image = ImageAttention(attention, model.config.cross_attention_dim)
            attention.register_forward_pre_hook(self.remember, with_kwargs=True)
            attention.to_out[0].register_forward_pre_hook(self.add(attention))

    def remember(self, attention, args, kwargs):
        attention.seen = (args[0] if args else kwargs["hidden_states"], kwargs["image_rotary_emb"])

    def add(self, attention):
        def hook(module, args):
            if self.states is None:
                return None
            x, rotary = attention.seen
            q = attention.norm_q(attention.image.split(attention.to_q(x)))
            added = attention.image(apply_rotary_emb(q, rotary), self.states)
            return (args[0] + self.scale[:, None, None] * added,)

        return hook


def fill(model: HunyuanDiT2DModel) -> HunyuanDiT2DModel:
    """Synthetic weights by the names that hydit has inside."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(synthetic.weight(name.replace("attn2.image.", "attn2."), list(parameter.shape)))
    return model.eval()


def project(weights, embeds, tokens=TOKENS):
    """Tokens of image embeddings [b, width]: [b, tokens, cross]."""
    states = nn.functional.linear(embeds, weights["image_embeds.weight"], weights["image_embeds.bias"])
    states = states.unflatten(-1, (-1, tokens)).transpose(1, 2)
    cross = states.shape[-1]
    return nn.functional.layer_norm(states, (cross,), weights["norm.weight"], weights["norm.bias"], eps=1e-5)


def image_states(encoder, weights, pixel_values):
    """[2, tokens, cross]: of an embedding of zeros, then of the image."""
    embeds = encoder(pixel_values).image_embeds
    embeds = embeds / embeds.norm(dim=-1, keepdim=True)
    return project(weights, torch.cat([torch.zeros_like(embeds), embeds]))


ENCODERS = {
    "quick-gelu": (dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=28, patch_size=14, projection_dim=10, hidden_act="quick_gelu"), 12),
    "gelu": (dict(hidden_size=32, intermediate_size=72, num_hidden_layers=4, num_attention_heads=2, image_size=24, patch_size=4, projection_dim=16, hidden_act="gelu", layer_norm_eps=1e-6), 20),
}


@torch.no_grad()
def encoders():
    for name, (config, cross) in ENCODERS.items():
        model = synthetic.fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)))
        sizes = {"image_embeds.weight": [TOKENS * cross, config["projection_dim"]], "image_embeds.bias": [TOKENS * cross], "norm.weight": [cross], "norm.bias": [cross]}
        weights = {key: synthetic.weight(f"image_projection.{key}", shape) for key, shape in sizes.items()}
        specs = {"pixel_values": {"shape": [1, 3, config["image_size"], config["image_size"]], "scale": 2.0}}
        states = image_states(model, weights, golden.make_inputs(specs, {})["pixel_values"])
        config = {"layer_norm_eps": 1e-5, **config}
        about = {
            "config": {"image_tokens": TOKENS, "image_encoder": config, "image_processor": {"shortest_edge": config["image_size"], "image_mean": MEAN, "image_std": STD}},
            "weights": "synthetic",
            "inputs": specs,
        }
        golden.save(f"ip_adapter/encoder-{name}", about, {"image_states": states}, ["image_states"])


def transformers():
    for name, scales in [("depth4", [0.7, 1.0, 0.0]), ("depth10-style", [1.5, -0.4, 0.3])]:
        sizes, latents, timesteps, lengths = make_transformers.CASES[name]
        model = HunyuanDiT2DModel(**sizes)
        prompt = ImagePrompt(model)
        fill(model)
        specs = make_transformers.input_specs(sizes, latents, timesteps, lengths)
        specs["image_states"] = {"shape": [len(timesteps), TOKENS, sizes["cross_attention_dim"]], "scale": 1.5}
        specs["image_scale"] = {"values": scales, "dtype": "float32"}
        cos, sin = make_transformers.rotary_tables(sizes["attention_head_dim"], (latents[0] // 2, latents[1] // 2))
        inputs = golden.make_inputs(specs, {"cos": cos, "sin": sin})
        prompt.states, prompt.scale = inputs.pop("image_states"), inputs.pop("image_scale")
        found = make_transformers.run(model, inputs)
        about = {"config": golden.public_config(model), "weights": "synthetic", "inputs": specs}
        golden.save(f"ip_adapter/{name}", about, {**found, "cos": cos, "sin": sin}, list(found))


def resized(image, edge):
    """`image` at the size that CLIPImageProcessor wants, rows first: Pillow 13 begins with the columns for some sizes, and
    rounds otherwise in between."""
    width, height = (28, 28)
    if edge:
        short, long = sorted(image.size)
        width, height = (edge, int(edge * long / short)) if image.width <= image.height else (int(edge * long / short), edge)
    return image.resize((width, image.height), Image.Resampling.BICUBIC).resize((width, height), Image.Resampling.BICUBIC)


def processed():
    large = Image.open(IMAGES / "image-large.png").convert("RGB")
    images = {"large": large, "upright": large.crop((20, 0, 57, 100)), "small": large.crop((40, 30, 51, 49)), "thin": large.crop((7, 0, 10, 100))}
    tensors = {}
    for name, image in images.items():
        image.save(FOLDER / f"image-{name}.png", optimize=True)
        for edge in (28, 31, None):
            size = {"shortest_edge": edge} if edge else {"height": 28, "width": 28}
            processor = CLIPImageProcessorPil(size=size, crop_size=28, do_center_crop=edge is not None)
            values = processor(resized(image, edge), return_tensors="pt", do_resize=False)["pixel_values"]
            tensors[f"{name}/{edge or 'stretch'}"] = values.contiguous()
    save_file(tensors, FOLDER / "processed.safetensors")


def tencent_adapter(depth, hidden, head_dim, cross, width):
    shapes = {"ip_adapter_clip_len_trans_block": [TOKENS * cross, width], "ip_adapter_img_norm_cond": [cross]}
    for i in range(depth):
        shapes[f"blocks.{i}.attn2.kv_proj_ip_adapter"] = [2 * hidden, cross]
        shapes[f"blocks.{i}.attn2.k_norm_ip_adapter"] = [head_dim]
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = synthetic.weight(f"{name}.weight", shape).half()
        tensors[f"{name}.bias"] = synthetic.weight(f"{name}.bias", shape[:1]).half()
    return tensors


def tiny_files():
    torch.save(tencent_adapter(4, 24, 12, 64, 10), FOLDER / "tiny-ipa.pt")
    config = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1, image_size=28, patch_size=14, projection_dim=10)
    model = synthetic.fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**config))).half()
    shutil.rmtree(FOLDER / "tiny-clip", ignore_errors=True)
    model.save_pretrained(FOLDER / "tiny-clip")
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=28).save_pretrained(FOLDER / "tiny-clip")
    theirs = model.state_dict()
    embeddings, layers = "vision_model.embeddings.", "vision_model.encoder.layers."
    visual = {
        "class_embedding": theirs[embeddings + "class_embedding"],
        "positional_embedding": theirs[embeddings + "position_embedding.weight"],
        "conv1.weight": theirs[embeddings + "patch_embedding.weight"],
        "proj": theirs["visual_projection.weight"].T.contiguous(),
    }
    for part in ("weight", "bias"):
        visual[f"ln_pre.{part}"] = theirs[f"vision_model.pre_layrnorm.{part}"]
        visual[f"ln_post.{part}"] = theirs[f"vision_model.post_layernorm.{part}"]
        for i in range(config["num_hidden_layers"]):
            ours = lambda name: theirs[f"{layers}{i}.{name}.{part}"]
            block = f"transformer.resblocks.{i}."
            visual[f"{block}attn.in_proj_{part}"] = torch.cat([ours(f"self_attn.{x}_proj") for x in "qkv"])
            for name, own in [("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("attn.out_proj", "self_attn.out_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")]:
                visual[f"{block}{name}.{part}"] = ours(own)
    saved = {f"module.visual.{name}": tensor for name, tensor in visual.items()}
    saved["module.logit_scale"] = torch.tensor(4.6)
    saved["module.bert.embeddings.word_embeddings.weight"] = torch.zeros(3, 2)
    torch.save({"epoch": 3, "step": 7, "name": "clip", "state_dict": saved}, FOLDER / "tiny-clip.pt")


SHAPE = {"depth": 6, "heads": 2, "head_dim": 24, "image_size": 64}
PICTURES = [
    dict(variant="hunyuan-dit-v1.2", sampler="ddpm", image="fox", weight=1.0),
    dict(variant="hunyuan-dit-v1.2", sampler="dpmms", image="large", weight=0.6, width=96),
    dict(variant="hunyuan-dit-v1.2", sampler="ddim", image="fox", weight=0.8, guidance_scale=1.0),
    dict(variant="hunyuan-dit-v1.2", sampler="ddim", image=None, weight=0.0),
    dict(variant="hunyuan-dit-v1.1", sampler="ddim", image="shapes", weight=1.3, seeds=[7, 8]),
]
DEFAULTS = dict(prompt="a cat", negative_prompt="a dog", steps=6, seeds=[42], guidance_scale=5.0, height=64, width=64)


@torch.no_grad()
def pictures():
    listing = []
    for variant in sorted({one["variant"] for one in PICTURES}):
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]
            subprocess.run([EXPORT, "synth", "--variant", variant, "--out", folder, "--small-text", "--ip-adapter", *flags], check=True)
            pipe = HunyuanDiTPipeline.from_pretrained(folder, torch_dtype=torch.float32)
            encoder = CLIPVisionModelWithProjection.from_pretrained(Path(folder) / "image_encoder").eval()
            processor = CLIPImageProcessorPil.from_pretrained(Path(folder) / "image_encoder")
            adapter = load_file(Path(folder) / "ip_adapter/ip_adapter.safetensors")
        prompt = ImagePrompt(pipe.transformer)
        for i, block in enumerate(pipe.transformer.blocks):
            image, start = block.attn2.image, f"blocks.{i}.attn2."
            for part in ("weight", "bias"):
                k, v = adapter[f"{start}kv_proj_ip_adapter.{part}"].chunk(2)
                getattr(image.to_k_ip, part).data.copy_(k)
                getattr(image.to_v_ip, part).data.copy_(v)
                getattr(image.norm_k_ip, part).data.copy_(adapter[f"{start}k_norm_ip_adapter.{part}"])
        names = {"image_embeds": "ip_adapter_clip_len_trans_block", "norm": "ip_adapter_img_norm_cond"}
        weights = {f"{ours}.{part}": adapter[f"{theirs}.{part}"] for ours, theirs in names.items() for part in ("weight", "bias")}
        pipe.set_progress_bar_config(disable=True)
        scheduler = pipe.scheduler
        for options in PICTURES:
            if options["variant"] != variant:
                continue
            options = {**DEFAULTS, **options}
            set_sampler(pipe, scheduler, options["sampler"])
            count, guided = len(options["seeds"]), options["guidance_scale"] > 1
            prompt.states = None
            if options["image"]:
                image = Image.open(IMAGES / f"image-{options['image']}.png").convert("RGB")
                negative, positive = image_states(encoder, weights, processor(image, return_tensors="pt")["pixel_values"])
                rows = ([negative] if guided else []) + [positive]
                prompt.states = torch.stack([row for row in rows for _ in range(count)])
                prompt.scale = torch.full((len(prompt.states),), options["weight"])
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in options["seeds"]]
            images = pipe(
                prompt=options["prompt"],
                negative_prompt=options["negative_prompt"] if guided else None,
                num_images_per_prompt=count,
                num_inference_steps=options["steps"],
                guidance_scale=options["guidance_scale"],
                height=options["height"],
                width=options["width"],
                generator=generators if count > 1 else generators[0],
                use_resolution_binning=False,
            ).images
            name = f"{variant[-4:]}-{options['sampler']}-{options['image'] or 'none'}-{options['weight']}"
            files = [f"{name}.png"] if count == 1 else [f"{name}-{i}.png" for i in range(count)]
            for image, file in zip(images, files):
                image.save(FOLDER / file, optimize=True)
            listing.append({"files": files, **options})
    golden.write_json("ip_adapter/pictures.json", {"shape": SHAPE, "pictures": listing})


def main():
    FOLDER.mkdir(exist_ok=True)
    encoders()
    transformers()
    processed()
    tiny_files()
    pictures()


if __name__ == "__main__":
    main()
