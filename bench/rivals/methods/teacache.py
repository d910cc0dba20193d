"""TeaCache: what the first block reads tells how far the output will have moved.

The mean change of that input from step to step, by a polynomial that was fitted to the model, is summed; below a
threshold no block runs, and what all blocks together added at the last full step is added again.
"""

import numpy

from .base import Adaptive, Method, moved, product, thresholds


class TeaCache(Adaptive):
    name, source = "TeaCache", "arXiv 2411.19108"
    never = {"threshold": 0.0, "fit": "none"}

    def __init__(self, context, threshold, fit):
        super().__init__(context)
        self.threshold, self.last = threshold, context.steps - 1
        self.rescale = numpy.poly1d([1.0, 0.0] if fit == "none" else context.polynomials[fit])

    @staticmethod
    def settings(context):
        return product(threshold=thresholds(0.05, 2.0, 10), fit=("none", *context.polynomials))

    def one(self):
        return Sum(self)

    def probe(self, step):
        return step.shifted()

    def rest(self, step, probed):
        return step.all_blocks()


class Sum:
    """Of a picture: the rescaled changes since the last full step, and what was added there."""

    def __init__(self, method):
        self.method, self.sum, self.before, self.added = method, 0.0, None, None

    def runs(self, index, x, probed):
        before, self.before = self.before, probed
        if index in (0, self.method.last):
            return True
        self.sum += float(self.method.rescale(moved(probed, before)))
        return self.sum >= self.method.threshold

    def keep(self, index, x, probed, made):
        self.sum, self.added = 0.0, made - x

    def reuse(self, index, x, probed):
        return x + self.added


class Record(Method):
    """An uncached run of one picture that notes what the polynomials are fitted to."""

    def __init__(self, context, seen):
        """`seen` gets pairs by what moved: the change of the input and the change of that, for every step but one."""
        super().__init__(context)
        self.seen, self.before = seen, None

    def hidden(self, step):
        seen, hidden = step.shifted(), step.all_blocks()
        now = {"input": seen, "output": hidden, "residual": hidden - step.x}
        if self.before:
            for what, pairs in self.seen.items():
                pairs.append((moved(seen, self.before["input"]), moved(now[what], self.before[what])))
        self.before = now
        return hidden


def fit(painter, context, pictures):
    """Polynomials of the fourth degree, highest coefficient first, from uncached runs of `pictures`."""
    seen = {"output": [], "residual": []}
    for picture in pictures:
        painter.draw([picture], lambda: Record(context, seen))
    return {what: numpy.polyfit(*zip(*pairs), 4).tolist() for what, pairs in seen.items()}
