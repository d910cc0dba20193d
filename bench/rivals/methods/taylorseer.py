"""TaylorSeer: between full steps outputs are forecast by a Taylor series of their differences.

`of` says of what: "layers" forecasts every attention and every feed-forward, as the paper does, and what is left of a
block is its long skip connection; "model" forecasts what all blocks together add, and no block runs, as the authors'
lighter programs do.
"""

from .base import Method, product
from .series import Series


class TaylorSeer(Method):
    name, source = "TaylorSeer", "arXiv 2503.06923"
    never = {"gap": 1, "order": 1, "first": 1, "of": "layers"}

    def __init__(self, context, gap, order, first, of):
        super().__init__(context)
        self.gap, self.order, self.first, self.of = gap, order, first, of
        self.series, self.since = {}, 0

    @staticmethod
    def settings(context):
        return product(gap=range(2, 7), order=(1, 2), first=(1, 3), of=("layers", "model"))

    def value(self, key, step, full, compute):
        series = self.series.setdefault(key, Series(self.order))
        if not full:
            return series.forecast(step.index)
        value = compute()
        series.update(step.index, value)
        return value

    def hidden(self, step):
        full = step.index < self.first or self.since >= self.gap - 1
        self.since = 0 if full else self.since + 1
        if self.of == "layers":
            return step.blocks(0, self.depth, step.x, lambda block, name, compute: self.value(
                (block, name), step, full, compute))
        if full:
            hidden = step.all_blocks()
            self.value("model", step, True, lambda: hidden - step.x)
            return hidden
        return step.x + self.value("model", step, False, None)
