"""DiCache: the first blocks are a probe, which decides when to reuse and how to mix what is reused.

The probe's relative change from step to step (`error` "output"), or how far that is from the change of its input
("difference"), is summed; below the threshold no further block runs. What all blocks added at the last full steps is
then continued along the line through the last two, as far as the probe has gone along its own.
"""

from .base import Adaptive, moved, product, thresholds


class DiCache(Adaptive):
    name, source = "DiCache", "arXiv 2508.17356"
    never = {"threshold": 0.0, "probe": 1, "error": "output", "early": 0.0}

    def __init__(self, context, threshold, probe, error, early):
        super().__init__(context)
        self.threshold, self.blocks, self.error = threshold, probe, error
        self.early, self.last = int(early * context.steps), context.steps - 1

    @staticmethod
    def settings(context):
        return product(
            threshold=thresholds(0.06, 1.5, 6), probe=(1, 2), error=("output", "difference"), early=(0.0, 0.2))

    def one(self):
        return Window(self)

    def probe(self, step):
        return step.blocks(0, self.blocks, step.x)

    def rest(self, step, probed):
        return step.blocks(self.blocks, self.depth, probed)


class Window:
    """Of a picture: the sum of changes, and what the probe and all blocks added at the last two full steps."""

    #: How far the line is followed, at least and at most.
    LEAST, MOST = 1.0, 1.5

    def __init__(self, method):
        self.method, self.sum, self.before, self.added = method, 0.0, None, []

    def runs(self, index, x, probed):
        before, self.before = self.before, (x, probed)
        if index <= self.method.early or index == self.method.last:
            return True
        change = moved(probed, before[1])
        self.sum += change if self.method.error == "output" else abs(change - moved(x, before[0]))
        return self.sum >= self.method.threshold

    def keep(self, index, x, probed, made):
        self.sum, self.added = 0.0, [*self.added[-1:], (probed - x, made - x)]

    def reuse(self, index, x, probed):
        if len(self.added) < 2:
            return x + self.added[-1][1]
        (old_probe, old), (new_probe, new) = self.added
        along = (probed - x - old_probe).abs().mean() / (new_probe - old_probe).abs().mean()
        return x + old + along.clip(self.LEAST, self.MOST) * (new - old)
