"""The FLOPs of what ran: matrix products and attention, 2 for a multiply-add. Elementwise work is not counted.

What runs once for a picture (the projection of the text, the pooler) is left out, for every method alike.
"""

from collections import Counter

from model import LAYERS

#: transformer/config.json of Hunyuan-DiT v1.2, as far as sizes go.
HUNYUAN_DIT = {
    "num_layers": 40, "num_attention_heads": 16, "attention_head_dim": 88, "mlp_ratio": 4.3637, "patch_size": 2,
    "in_channels": 4, "learn_sigma": True, "cross_attention_dim": 1024, "text_len": 77, "text_len_t5": 256,
}
#: The rank of hydit's corrections.
RANK = 16


class Flops:
    """Of a model by its config.json, with `tokens` image tokens."""

    def __init__(self, config, tokens):
        self.depth = config["num_layers"]
        width = config["num_attention_heads"] * config["attention_head_dim"]
        text, inner = config["text_len"] + config["text_len_t5"], int(width * config["mlp_ratio"])
        square, patch = 2 * width * width, config["patch_size"] ** 2
        channels = config["in_channels"]
        self.layers = {
            "skip": 2 * tokens * square,
            "attn1": square + 4 * tokens * square + 4 * tokens * tokens * width,  # the first: the shift of its norm
            "attn2": 2 * tokens * square + 4 * text * config["cross_attention_dim"] * width + 4 * tokens * text * width,
            "ff": 4 * tokens * width * inner,
        }
        self.parts = {
            "embed": 2 * tokens * channels * patch * width + 2 * 256 * width + square,
            "final": 2 * square + 2 * tokens * width * patch * channels * (2 if config["learn_sigma"] else 1),
            "shift": square,
            "correction": 4 * tokens * width * RANK,
        }

    def has_skip(self, block):
        return block > self.depth // 2

    def of(self, ran):
        """Of a `Counter` of what ran, in rows."""
        total = 0
        for what, rows in ran.items():
            if isinstance(what, str):
                total += rows * self.parts[what]
            elif what[1] != "skip" or self.has_skip(what[0]):
                total += rows * self.layers[what[1]]
        return total

    def uncached(self, steps):
        """Of a guided picture that leaves nothing out."""
        once = {(block, layer): 1 for block in range(self.depth) for layer in LAYERS}
        return 2 * steps * self.of(Counter(once | {"embed": 1, "final": 1}))


def stretched(ran, depth, deep, by):
    """What would have run in a model of `deep` blocks, had it made the decisions of one of `depth` blocks.

    `by` is "ends" where a method counts blocks from both ends, as "the first and the last": those in the middle are
    copies of the one in the middle. It is "share" where a method counts a share of all blocks.
    """
    out = Counter({what: rows for what, rows in ran.items() if isinstance(what, str)})
    for block in range(deep):
        if by == "share":
            source = block * depth // deep
        elif block < depth // 2:
            source = block
        else:
            source = max(depth // 2, depth - (deep - block))
        for layer in LAYERS:
            if rows := ran.get((source, layer)):
                out[block, layer] += rows
    return out
