"""FORA: at every `gap`-th step all blocks run, and what each attention and each feed-forward gave is kept.

At the others these outputs are added again. What is left of a block there is its long skip connection.
"""

from .base import Method


class Fora(Method):
    name, source = "FORA", "arXiv 2407.01425"
    never = {"gap": 1}

    def __init__(self, context, gap):
        super().__init__(context)
        self.gap, self.kept = gap, {}

    @staticmethod
    def settings(context):
        return [{"gap": gap} for gap in range(2, 9)]

    def hidden(self, step):
        full = step.index % self.gap == 0

        def layer(block, name, compute):
            if full:
                self.kept[block, name] = compute()
            return self.kept[block, name]

        return step.blocks(0, self.depth, step.x, layer)
