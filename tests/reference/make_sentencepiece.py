"""Goldens of sentencepiece itself on the emoji checkpoint's spiece.model -> sentencepiece.json

What the pipeline gets from tokenizer.json differs where a character is not in the vocabulary: sentencepiece
falls back to its bytes. Per text of make_tokenizers.py: the ids with `</s>`, truncated to 256. Texts that spell
a special token are left out: transformers takes it for the token, sentencepiece for text.
"""

import sentencepiece

import golden
from make_tokenizers import TEXTS


def main():
    model = sentencepiece.SentencePieceProcessor(model_file=str(golden.EMOJI / "tokenizer_2/spiece.model"))
    special = [model.id_to_piece(i) for i in (model.pad_id(), model.eos_id(), model.unk_id())]
    texts = [text for text in TEXTS if not any(token in text for token in special)]
    ids = [model.encode(text)[:255] + [model.eos_id()] for text in texts]
    entries = [{"text": text, "ids": row} for text, row in zip(texts, ids)]
    golden.write_json("sentencepiece.json", {"length": 256, "pad_id": model.pad_id(), "texts": entries})
    print(f"sentencepiece.json: {len(texts)} texts")


if __name__ == "__main__":
    main()
