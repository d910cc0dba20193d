"""Goldens of the two text encoders -> text/<case>.{safetensors,json}

    last_hidden_state  [B, length, width]   float32
    input_ids, attention_mask               [B, length] int64; stored for the trained encoders, else made by name

The emoji cases take two real prompts through the pipeline's tokenizers: [the empty one, 蓝色背景上的猫].
"""

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, T5Config, T5EncoderModel

import golden
import synthetic

torch.set_num_threads(2)

PROMPTS = ["", "蓝色背景上的猫"]

BERT = {
    "bert-3-layers": dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=3, intermediate_size=40, vocab_size=50, max_position_embeddings=11),
    "bert-1-layer": dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64, vocab_size=30, max_position_embeddings=20, type_vocab_size=1, layer_norm_eps=1e-5),
}
T5 = {
    "t5-gated-gelu": dict(d_model=20, d_kv=12, num_heads=3, d_ff=28, num_layers=3, vocab_size=40, feed_forward_proj="gated-gelu"),
    "t5-relu": dict(d_model=24, d_kv=8, num_heads=2, d_ff=40, num_layers=2, vocab_size=40, feed_forward_proj="relu", relative_attention_num_buckets=8, relative_attention_max_distance=20),
    "t5-gated-silu": dict(d_model=16, d_kv=8, num_heads=2, d_ff=20, num_layers=1, vocab_size=40, feed_forward_proj="gated-silu", relative_attention_num_buckets=16, relative_attention_max_distance=12),
}


@torch.no_grad()
def synthetic_encoder(name: str, model, length: int, mask_lengths: list[int]):
    specs = {
        "input_ids": {"shape": [len(mask_lengths), length], "range": model.config.vocab_size},
        "attention_mask": {"lengths": mask_lengths, "length": length},
    }
    output = synthetic.fill(model)(**golden.make_inputs(specs, {}))[0]
    about = {"config": golden.public_config(model), "weights": "synthetic", "inputs": specs}
    golden.save(f"text/{name}", about, {"last_hidden_state": output}, ["last_hidden_state"])


@torch.no_grad()
def trained_encoder(name: str, cls, folder: str, tokenizer: str, length: int):
    model = cls.from_pretrained(golden.EMOJI / folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(golden.EMOJI / tokenizer)
    tokens = tokenizer(PROMPTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    about = {
        "config": golden.public_config(model),
        "weights": f"models/emoji/{folder}",
        "prompts": PROMPTS,
        "inputs": {key: {"stored": True} for key in inputs},
    }
    golden.save(f"text/{name}", about, {"last_hidden_state": model(**inputs)[0], **inputs}, ["last_hidden_state"])


if __name__ == "__main__":
    synthetic_encoder("bert-3-layers", BertModel(BertConfig(**BERT["bert-3-layers"])), 11, [11, 4, 1])
    synthetic_encoder("bert-1-layer", BertModel(BertConfig(**BERT["bert-1-layer"])), 13, [7])
    synthetic_encoder("t5-gated-gelu", T5EncoderModel(T5Config(**T5["t5-gated-gelu"])), 9, [9, 5, 1])
    synthetic_encoder("t5-relu", T5EncoderModel(T5Config(**T5["t5-relu"])), 50, [50, 33])
    synthetic_encoder("t5-gated-silu", T5EncoderModel(T5Config(**T5["t5-gated-silu"])), 30, [30])
    trained_encoder("emoji-bert", BertModel, "text_encoder", "tokenizer", 77)
    trained_encoder("emoji-t5", T5EncoderModel, "text_encoder_2", "tokenizer_2", 256)
