#!/usr/bin/env python3
"""Writes the seeds of the corpora: small valid things of each kind, for mutations to start from.

    python3 fuzz/seeds.py artifacts/emoji

Needs an export of models/emoji, for its manifest. The same input gives the same files.
"""
import base64, json, pathlib, struct, sys, zlib

root = pathlib.Path(__file__).parent
model = root.parent / "models/emoji"
artifacts = pathlib.Path(sys.argv[1])


def write(target, name, data):
    folder = root / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(tensors, data=None, metadata=None):
    header, end = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + (bytes(end) if data is None else data)


write("safetensors", "two", safetensors([("pos_embed.proj.bias", "F32", [2], 8), ("b", "F16", [2, 3], 12)]))
write("safetensors", "metadata", safetensors([("a", "BF16", [], 2)], metadata={"format": "pt"}))
write("safetensors", "none", safetensors([]))
write("safetensors", "empty_tensor", safetensors([("a", "F32", [0, 7], 0)]))
write("safetensors", "header", json.dumps({"a": {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 64]}}))
write("safetensors", "lfs_pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n")

# A LoRA, as fuzz/src/checkpoint.rs takes it: the header alone, or with a config before it.
query = "transformer.blocks.0.attn1.to_q"
pair = {f"{query}.lora_A.weight": ([4, 2], 0, 32), f"{query}.lora_B.weight": ([2, 4], 32, 64)}
joined = "lora_unet_blocks_0_attn1_Wqkv"
fused = {f"{joined}.lora_down.weight": ([2, 2], 0, 16), f"{joined}.lora_up.weight": ([6, 2], 16, 64)}


def lora(parts, metadata=None):
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [start, end]} for name, (shape, start, end) in parts.items()}
    return json.dumps({**header, **({"__metadata__": metadata} if metadata else {})})


write("lora", "peft", lora(pair))
write("lora", "kohya", lora(fused))
write("lora", "metadata", lora(pair, {"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 2})}))
write("lora", "config", json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 4, "rank_pattern": {"to_q": 4}}) + "\0" + lora(pair))
write("lora", "file", safetensors([(f"{query}.lora_A.weight", "F16", [2, 2], 8), (f"{query}.lora_B.weight", "BF16", [2, 2], 8)]))

configs = ["transformer", "text_encoder", "text_encoder_2", "vae"]
for which, folder in enumerate(configs):
    write("config", folder, bytes([which]) + (model / folder / "config.json").read_bytes())
write("config", "scheduler", b"\4" + (model / "scheduler/scheduler_config.json").read_bytes())
for variant in ("hunyuan-dit-v1.2.yaml", "hunyuan-dit-v1.1-distilled.yaml"):
    path = root.parent / "models" / variant
    if path.exists():
        write("config", path.stem, b"\5" + path.read_bytes())


def token(id, text):
    return dict(id=id, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)


words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "猫"]
word_piece = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [token(i, words[i]) for i in range(5)],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
              "vocab": {word: i for i, word in enumerate(words)}},
}
pieces = ["<pad>", "</s>", "<unk>", "▁", "a", "c", "t", "▁cat"]
template = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}
unigram = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [token(i, pieces[i]) for i in range(3)],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "post_processor": template, "decoder": None,
    "model": {"type": "Unigram", "unk_id": 2, "vocab": [[piece, -float(i)] for i, piece in enumerate(pieces)], "byte_fallback": False},
}
bpe = dict(unigram, normalizer=None, model={"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
           "vocab": {piece: i for i, piece in enumerate(pieces + ["ca", "cat"])}, "merges": [["c", "a"], ["ca", "t"]]})
for name, tokenizer in dict(word_piece=word_piece, unigram=unigram, bpe=bpe).items():
    write("tokenizer", name, json.dumps(tokenizer, ensure_ascii=False))
charsmap = json.loads((model / "tokenizer_2/tokenizer.json").read_text())["normalizer"]
if charsmap.get("type") == "Precompiled" and len(charsmap["precompiled_charsmap"]) < 4000:
    write("tokenizer", "precompiled", json.dumps(dict(unigram, normalizer=charsmap), ensure_ascii=False))


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(tag, value):
    if isinstance(value, int):
        return varint(tag << 3) + varint(value)
    if isinstance(value, float):
        return varint(tag << 3 | 5) + struct.pack("<f", value)
    return varint(tag << 3 | 2) + varint(len(value)) + value


def spiece(normalizer, **trainer):
    body = b"".join(field(1, field(1, piece.encode()) + field(2, -float(i))) for i, piece in enumerate(pieces))
    body += field(2, field(3, trainer.get("model_type", 1)) + field(40, 2))
    return body + (field(3, normalizer) if normalizer else b"")


# A trie of one unit, and an empty table of replacements.
tiny_charsmap = struct.pack("<I", 4) + struct.pack("<I", 0)
write("spiece", "identity", spiece(field(1, b"identity")))
write("spiece", "no_normalizer", spiece(b""))
write("spiece", "charsmap", spiece(field(1, b"nmt_nfkc") + field(2, tiny_charsmap)))
write("spiece", "bpe", spiece(field(1, b"identity"), model_type=2))

write("manifest", "emoji", (artifacts / "manifest.yaml").read_bytes())
lines = (artifacts / "manifest.yaml").read_text().splitlines()
write("manifest", "half", "\n".join(lines[: len(lines) // 2]))
write("manifest", "old_schema", "schema: 1\n")

schedule = """steps: 25
sampler: dpmms
schedules:
- refresh: [0, 5, 10, 15, 20]
- refresh: [0, 12]
  forecast: {1: [1.5, -0.5]}
"""
write("schedule", "two", schedule)
write("schedule", "one", "steps: 25\nschedules:\n- refresh: [0]\n")
write("schedule", "alias", "steps: 25\nschedules:\n- &a {refresh: [0, 1]}\n- *a\n")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*texts):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(2 * (1 + 2 * 3))))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(texts) + pixels + chunk(b"IEND", b"")


request = {"prompt": "a cat", "negative_prompt": "", "steps": 4, "guidance_scale": 5.0, "guidance_rescale": 0.0, "seed": 1, "width": 256,
           "height": 256, "sampler": "dpmms", "spacing": "leading", "cache_policy": "N2", "model": "emoji", "manifest_sha256": "0" * 64,
           "version": "0.1.0"}
text = json.dumps(request).encode()
write("png", "text", png(chunk(b"tEXt", b"hydit\0" + text)))
write("png", "compressed", png(chunk(b"zTXt", b"hydit\0\0" + zlib.compress(text))))
write("png", "international", png(chunk(b"iTXt", b"hydit\0\1\0\0\0" + zlib.compress(text))))
write("png", "none", png())
write("png", "chunk_text", b"\0hydit\0" + text)
write("png", "chunk_compressed", b"\1hydit\0\0" + zlib.compress(text))
write("png", "chunk_international", b"\2hydit\0\0\0\0\0" + text)


def http(line, body=None, *fields):
    head = [line + " HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    if body is not None:
        body = json.dumps(body, ensure_ascii=False).encode()
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + (body or b"")


write("http", "health", http("GET /health"))
write("http", "generations", http("POST /v1/images/generations", {"prompt": "a cat", "n": 1, "size": "256x256", "seed": 1, "steps": 2,
      "response_format": "b64_json", "output_format": "png", "quality": "auto", "stream": False}))
write("http", "stream", http("POST /v1/images/generations", {"prompt": "猫", "stream": True, "partial_images": 2}))
write("http", "job", http("POST /v1/jobs", {"prompt": "a cat", "steps": 2, "preview_every": 1, "deadline": "5s"}, "Idempotency-Key: k"))
write("http", "jobs", http("GET /v1/jobs?limit=3&after=00000000000000000000000000000000"))
write("http", "infer", http("POST /v2/models/emoji/infer", {"id": "7", "inputs": [
    {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a cat"]}, {"name": "seed", "shape": [1], "datatype": "INT64", "data": [1]}],
    "outputs": [{"name": "image", "parameters": {"binary_data": True}}]}))
write("http", "chunked", b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
      b"10\r\n{\"prompt\":\"cat\"}\r\n0\r\n\r\n")
write("http", "pipelined", http("GET /ready").replace(b"Connection: close\r\n", b"") + http("GET /v1/models"))


def oip(inputs, outputs=None, tensors=b""):
    document = {"inputs": inputs}
    if outputs:
        document["outputs"] = outputs
    text = json.dumps(document).encode()
    return struct.pack(">H", len(text)) + text + tensors


def binary(name, datatype, data, shape=(1,)):
    return {"name": name, "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": len(data)}}


prompt = struct.pack("<I", 5) + b"a cat"
seed = struct.pack("<q", 1)
scale = struct.pack("<f", 5.0)
write("oip", "prompt", oip([binary("prompt", "BYTES", prompt)], tensors=prompt))
write("oip", "three", oip([binary("prompt", "BYTES", prompt), binary("seed", "INT64", seed), binary("guidance_scale", "FP32", scale)],
                          [{"name": "image", "parameters": {"binary_data": True}}], prompt + seed + scale))
write("oip", "plain", oip([{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a cat"]}]))

for name in ("plain", "protocol-5", "tensor", "refused-numpy"):
    write("pickle", name, (root.parent / f"tests/reference/pickle/{name}.pt").read_bytes())
