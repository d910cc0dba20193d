"""One tiny model in the layouts that people have, from diffusers' modules -> layouts/

    t2i/                       Tencent's folder: model/pytorch_model_ema.pt, clip_text_encoder, mt5, sdxl-vae-fp16-fix
    comfyui.safetensors        ComfyUI's single file, as the script in ComfyUI's pull request 4102 makes it
    mp_rank_00_model_states.pt the transformer as DeepSpeed saves it: under `module`, among other things
    fused.safetensors          the transformer after diffusers' fuse_qkv_projections
    controlnet.pt              a ControlNet for it, by the names of Tencent's modules/controlnet.py

All weights are synthetic (synthetic.py) and fp16. Names are changed here by hand, the other way round than
diffusers' convert_hunyuandit_to_diffusers.py and its conversions of image decoders, and not by a table of hydit's.
"""

import struct

import torch
from diffusers import AutoencoderKL, HunyuanDiT2DControlNetModel, HunyuanDiT2DModel
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

import golden
import synthetic

OUT = golden.HERE / "layouts"

TRANSFORMER = dict(
    num_layers=6, num_attention_heads=2, attention_head_dim=8, hidden_size=16, mlp_ratio=4.3637, patch_size=2,
    in_channels=4, sample_size=16, learn_sigma=True, text_len=5, cross_attention_dim=12, text_len_t5=6,
    cross_attention_dim_t5=16, pooled_projection_dim=10, use_style_cond_and_image_meta_size=True,
    activation_fn="gelu-approximate", norm_type="layer_norm",
)  # fmt: skip
BERT = dict(
    vocab_size=256, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
    max_position_embeddings=512, type_vocab_size=2,
)  # fmt: skip
T5 = dict(
    vocab_size=256, d_model=16, d_kv=4, d_ff=20, num_layers=1, num_heads=2, relative_attention_num_buckets=32,
    feed_forward_proj="gated-gelu", dropout_rate=0.0,
)  # fmt: skip
VAE = dict(
    block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=4, latent_channels=4, in_channels=3, out_channels=3,
    down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
)  # fmt: skip


def weights(module) -> dict[str, torch.Tensor]:
    """Clones, so that tied tensors are saved twice, as the libraries' older versions did."""
    return {name: tensor.half().clone() for name, tensor in synthetic.fill(module).state_dict().items()}


def tencent(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The transformer or a ControlNet by the names of Tencent's modules."""
    ours, theirs = dict(ours), {}

    def move(new: str, *old: str, join=torch.cat):
        for end in ("weight", "bias"):
            parts = [ours.pop(f"{name}.{end}") for name in old if f"{name}.{end}" in ours]
            if parts:
                theirs[f"{new}.{end}"] = join(parts) if len(parts) > 1 else parts[0]

    for i in range(TRANSFORMER["num_layers"]):
        block = f"blocks.{i}"
        for attn in ("attn1", "attn2"):
            move(f"{block}.{attn}.q_norm", f"{block}.{attn}.norm_q")
            move(f"{block}.{attn}.k_norm", f"{block}.{attn}.norm_k")
            move(f"{block}.{attn}.out_proj", f"{block}.{attn}.to_out.0")
        move(f"{block}.attn1.Wqkv", *(f"{block}.attn1.to_{x}" for x in "qkv"))
        move(f"{block}.attn2.q_proj", f"{block}.attn2.to_q")
        move(f"{block}.attn2.kv_proj", f"{block}.attn2.to_k", f"{block}.attn2.to_v")
        move(f"{block}.norm1", f"{block}.norm1.norm")
        move(f"{block}.default_modulation.1", f"{block}.norm1.linear")
        move(f"{block}.norm3", f"{block}.norm2")  # before cross attention
        move(f"{block}.norm2", f"{block}.norm3")  # before the feed-forward layer
        move(f"{block}.mlp.fc1", f"{block}.ff.net.0.proj")
        move(f"{block}.mlp.fc2", f"{block}.ff.net.2")
        move(f"{block}.skip_norm", f"{block}.skip_norm")
        move(f"{block}.skip_linear", f"{block}.skip_linear")
    move("x_embedder.proj", "pos_embed.proj")
    move("t_embedder.mlp.0", "time_extra_emb.timestep_embedder.linear_1")
    move("t_embedder.mlp.2", "time_extra_emb.timestep_embedder.linear_2")
    move("mlp_t5.0", "text_embedder.linear_1")
    move("mlp_t5.2", "text_embedder.linear_2")
    for name in ("q_proj", "k_proj", "v_proj", "c_proj"):
        move(f"pooler.{name}", f"time_extra_emb.pooler.{name}")
    move("extra_embedder.0", "time_extra_emb.extra_embedder.linear_1")
    move("extra_embedder.2", "time_extra_emb.extra_embedder.linear_2")
    move("final_layer.linear", "proj_out")
    move("before_proj", "input_block")
    for i in range(TRANSFORMER["num_layers"] // 2 - 1):
        move(f"after_proj_list.{i}", f"controlnet_blocks.{i}")
    for end in ("weight", "bias") if "norm_out.linear.weight" in ours else ():
        scale, shift = ours.pop(f"norm_out.linear.{end}").chunk(2)
        theirs[f"final_layer.adaLN_modulation.1.{end}"] = torch.cat([shift, scale])
    if "time_extra_emb.style_embedder.weight" in ours:
        style = ours.pop("time_extra_emb.style_embedder.weight")
        theirs["style_embedder.weight"] = torch.cat([style, -style])  # only the first row is used
    theirs["pooler.positional_embedding"] = ours.pop("time_extra_emb.pooler.positional_embedding")
    theirs["text_embedding_padding"] = ours.pop("text_embedding_padding")
    assert not ours, sorted(ours)
    return theirs


def latent_diffusion(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The image decoder by the names of the latent-diffusion code; attention as convolutions."""
    levels, theirs = len(VAE["block_out_channels"]), {}
    for name, tensor in ours.items():
        parts = name.split(".")
        match parts:
            case ["decoder", "up_blocks", level, "resnets", block, *rest]:
                rest = ".".join(rest).replace("conv_shortcut", "nin_shortcut")
                new = f"decoder.up.{levels - 1 - int(level)}.block.{block}.{rest}"
            case ["decoder", "up_blocks", level, "upsamplers", "0", *rest]:
                new = f"decoder.up.{levels - 1 - int(level)}.upsample.{'.'.join(rest)}"
            case ["decoder", "mid_block", "resnets", block, *rest]:
                new = f"decoder.mid.block_{int(block) + 1}.{'.'.join(rest)}"
            case ["decoder", "mid_block", "attentions", "0", layer, *rest]:
                layers = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out", "group_norm": "norm"}
                new = f"decoder.mid.attn_1.{layers[layer]}.{rest[-1]}"
                if layer != "group_norm" and rest[-1] == "weight":
                    tensor = tensor[:, :, None, None]
            case ["decoder", "conv_norm_out", end]:
                new = f"decoder.norm_out.{end}"
            case _:
                new = name
        theirs[new] = tensor.contiguous()
    return theirs


def sentencepiece() -> bytes:
    """A unigram model of a few pieces (sentencepiece_model.proto)."""

    def piece(text: str, score: float, kind: int) -> bytes:
        word = text.encode()
        body = b"\x0a" + bytes([len(word)]) + word + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        return b"\x0a" + bytes([len(body)]) + body

    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("▁", -2.0, 1), ("▁a", -3.0, 1), ("cat", -4.0, 1)]
    trainer = b"\x18\x01" + b"\xc0\x02\x02"  # model_type: unigram, unk_id: 2
    return b"".join(piece(*one) for one in pieces) + b"\x12" + bytes([len(trainer)]) + trainer


def main():
    transformer = weights(HunyuanDiT2DModel(**TRANSFORMER))
    bert = weights(BertModel(BertConfig(**BERT), add_pooling_layer=False))
    t5 = weights(T5EncoderModel(T5Config(**T5)))
    vae = {name: tensor for name, tensor in weights(AutoencoderKL(**VAE)).items() if not name.startswith(("encoder.", "quant"))}
    hydit = tencent(transformer)

    t2i = OUT / "t2i"
    for folder in ("model", "clip_text_encoder", "mt5", "sdxl-vae-fp16-fix"):
        (t2i / folder).mkdir(parents=True, exist_ok=True)
    torch.save(hydit, t2i / "model/pytorch_model_ema.pt")
    clip = {f"bert.{name}": tensor for name, tensor in bert.items()} | {"cls.predictions.bias": torch.zeros(256)}
    torch.save(clip, t2i / "clip_text_encoder/pytorch_model.bin")
    torch.save(t5, t2i / "mt5/pytorch_model.bin")
    channels_last = {name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for name, t in vae.items()}
    torch.save(channels_last, t2i / "sdxl-vae-fp16-fix/diffusion_pytorch_model.bin")

    comfyui = {f"model.{name}": tensor for name, tensor in hydit.items()}
    comfyui |= {f"text_encoders.hydit_clip.transformer.bert.{name}": tensor for name, tensor in bert.items()}
    comfyui |= {f"text_encoders.mt5xl.transformer.{name}": tensor for name, tensor in t5.items()}
    comfyui |= {f"vae.{name}": tensor for name, tensor in latent_diffusion(vae).items()}
    comfyui["text_encoders.mt5xl.spiece_model"] = torch.ByteTensor(list(sentencepiece()))
    save_file(comfyui, OUT / "comfyui.safetensors")

    deepspeed = {"module": hydit, "global_steps": 3, "skipped_steps": 0, "ds_version": "0.14.4", "lr_scheduler": None}
    torch.save(deepspeed, OUT / "mp_rank_00_model_states.pt")

    own = {name: value for name, value in TRANSFORMER.items() if name not in ("num_layers", "learn_sigma", "norm_type")}
    own["use_style_cond_and_image_meta_size"] = False  # a large matrix less
    control = HunyuanDiT2DControlNetModel(**own, transformer_num_layers=TRANSFORMER["num_layers"])
    torch.save(tencent(weights(control)), OUT / "controlnet.pt")

    fused = HunyuanDiT2DModel(**TRANSFORMER)
    synthetic.fill(fused)
    fused.fuse_qkv_projections()
    split = ("attn1.to_q.", "attn1.to_k.", "attn1.to_v.", "attn2.to_k.", "attn2.to_v.")
    kept = {name: t.half() for name, t in fused.state_dict().items() if not any(part in name for part in split)}
    save_file(kept, OUT / "fused.safetensors")


main()
