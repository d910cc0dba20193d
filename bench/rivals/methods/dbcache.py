"""FBCache and DBCache: the first blocks run at every step, and decide.

Where what they add has moved, since the last full step, by a share below the threshold, the blocks behind them are left
out, and what these added is added again. DBCache also runs the last blocks at every step, has steps to warm up, and
may forecast what is added again by a Taylor series.
"""

from .base import Adaptive, moved, product, thresholds
from .series import Series


class DBCache(Adaptive):
    name, source = "DBCache", "cache-dit"
    never = {"threshold": 0.0, "first": 1, "last": 1, "warm_up": 0, "order": 0}

    def __init__(self, context, threshold, first, last, warm_up, order):
        super().__init__(context)
        self.threshold, self.first, self.behind = threshold, first, context.depth - last
        self.warm_up, self.order = max(warm_up, 1), order

    @staticmethod
    def settings(context):
        edges = [{"first": first, "last": last} for first, last in ((1, 0), (1, 1), (2, 2))]
        rest = product(threshold=thresholds(0.06, 1.0, 6), warm_up=(0, 4), order=(0, 1))
        return [edge | setting for edge in edges for setting in rest]

    def one(self):
        return Residual(self)

    def probe(self, step):
        return step.blocks(0, self.first, step.x)

    def rest(self, step, probed):
        return step.blocks(self.first, self.behind, probed)

    def finish(self, step, hidden):
        return step.blocks(self.behind, self.depth, hidden)


class FBCache(DBCache):
    name, source = "FBCache", "ParaAttention"
    never = {"threshold": 0.0}

    def __init__(self, context, threshold):
        super().__init__(context, threshold, first=1, last=0, warm_up=0, order=0)

    @staticmethod
    def settings(context):
        return [{"threshold": threshold} for threshold in thresholds(0.06, 1.0, 12)]


class Residual:
    """Of a picture: what the first blocks added at the last full step, and the series of what those behind did."""

    def __init__(self, method):
        self.method, self.before, self.added = method, None, Series(method.order)

    def runs(self, index, x, probed):
        return index < self.method.warm_up or moved(probed - x, self.before) >= self.method.threshold

    def keep(self, index, x, probed, made):
        self.before = probed - x
        self.added.update(index, made - probed)

    def reuse(self, index, x, probed):
        return probed + self.added.forecast(index)
