"""Goldens of sentencepiece itself -> sentencepiece.json, sentencepiece-identity.json

The first on the emoji checkpoint's spiece.model, the second on that model without its normaliser, as SentencePiece
trains one with --normalization_rule_name=identity.

What the pipeline gets from tokenizer.json differs where a character is not in the vocabulary: sentencepiece
falls back to its bytes. Per text of make_tokenizers.py: the ids with `</s>`, truncated to 256. Texts that spell
a special token are left out: transformers takes it for the token, sentencepiece for text.
"""

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

import golden
from make_tokenizers import TEXTS


def write(name: str, proto: bytes):
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    special = [model.id_to_piece(i) for i in (model.pad_id(), model.eos_id(), model.unk_id())]
    texts = [text for text in TEXTS if not any(token in text for token in special)]
    ids = [model.encode(text)[:255] + [model.eos_id()] for text in texts]
    entries = [{"text": text, "ids": row} for text, row in zip(texts, ids)]
    golden.write_json(name, {"length": 256, "pad_id": model.pad_id(), "texts": entries})
    print(f"{name}: {len(texts)} texts")


def main():
    proto = (golden.EMOJI / "tokenizer_2/spiece.model").read_bytes()
    write("sentencepiece.json", proto)
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.ClearField("precompiled_charsmap")
    write("sentencepiece-identity.json", model.SerializeToString())


if __name__ == "__main__":
    main()
