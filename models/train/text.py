"""Captions as tokens, and what the two encoders make of them."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, T5Config, T5EncoderModel

import data


class Captions:
    """Tokens of all captions there are. Number 0 is the empty one; those of pair p are 1 + 2 p (zh) and 2 + 2 p (en)."""

    def __init__(self, subjects, tokenizers: Path, lengths=(77, 256)):
        texts = [""] + [c for s, colour in data.pairs(subjects) for c in data.captions(subjects[s], colour)]
        self.bert, self.t5 = (
            AutoTokenizer.from_pretrained(tokenizers / name)(
                texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            for name, length in zip(("tokenizer", "tokenizer_2"), lengths)
        )
        longest = max(self.bert.attention_mask.sum(1).max(), self.t5.attention_mask.sum(1).max()).item()
        self.short = longest + 1  # one position of padding is always among those kept
        for tokens, name in ((self.bert, "tokenizer"), (self.t5, "tokenizer_2")):
            unknown = AutoTokenizer.from_pretrained(tokenizers / name).unk_token_id
            if (tokens.input_ids == unknown).any():
                raise SystemExit(f"{name} does not know all that the captions are made of")

    def __len__(self):
        return len(self.bert.input_ids)

    def cut(self, rows, short: int | None):
        """(ids, mask) for BERT and for T5."""
        end = slice(None, short)
        return tuple((t.input_ids[rows, end], t.attention_mask[rows, end].bool()) for t in (self.bert, self.t5))


def build(bert: Path, t5: Path, warm: bool):
    """The encoders; dropout is off in both, for there are few captions and they must be told apart."""
    if warm:
        return BertModel.from_pretrained(bert).eval(), T5EncoderModel.from_pretrained(t5).eval()
    return BertModel(BertConfig.from_pretrained(bert)).eval(), T5EncoderModel(T5Config.from_pretrained(t5)).eval()


def encode(encoders, cut, device):
    (bert_ids, bert_mask), (t5_ids, t5_mask) = (tuple(t.to(device) for t in pair) for pair in cut)
    bert, t5 = encoders
    return (
        bert(bert_ids, attention_mask=bert_mask.long()).last_hidden_state,
        bert_mask,
        t5(t5_ids, attention_mask=t5_mask.long()).last_hidden_state,
        t5_mask,
    )


@torch.no_grad()
def encode_all(encoders, captions: Captions, device):
    """All captions at full length; on the CPU, for they are many."""
    rows = torch.arange(len(captions)).split(64)
    parts = [[t.cpu() for t in encode(encoders, captions.cut(r, None), device)] for r in rows]
    return [torch.cat(p) for p in zip(*parts)]
