"""Skip-Cache's own rule, and block reuse with a plain gap.

Both keep one tensor, the output of the blocks between the first `cut` and the last `cut`. At a step that reuses it the
outer blocks run, and the long skip connections go from those in front to those behind.
"""

from .base import Method, product


class BlockReuse(Method):
    """As DeepCache for a U-Net, carried over to the long skip connections: a plain gap from the first step on."""

    name, source = "block reuse", "after DeepCache, arXiv 2312.00858"
    never = {"gap": 1}

    def __init__(self, context, gap, cut=1):
        super().__init__(context)
        self.gap, self.cut = gap, cut

    @staticmethod
    def settings(context):
        return product(gap=range(2, 9), cut=(1, 2, 3))

    def refreshes(self, step):
        return step.index % self.gap == 0

    def hidden(self, step):
        last = self.depth - self.cut
        if self.refreshes(step):
            self.kept = step.blocks(0, last, step.x)
        else:
            step.blocks(0, self.cut, step.x)
        return step.blocks(last, self.depth, self.kept)


class SkipCache(BlockReuse):
    """Steps at timestep `start` or above refresh, and the count begins anew after a step at `close` or below."""

    name, source = "Skip-Cache's rule", "arXiv 2411.17616"
    START, CLOSE = 700, 50

    def __init__(self, context, gap):
        super().__init__(context, gap)
        self.count = 0

    @staticmethod
    def settings(context):
        return [{"gap": gap} for gap in range(2, 7)]

    def refreshes(self, step):
        refresh = self.count % self.gap == 0 or step.timestep >= self.START
        self.count = 0 if step.timestep <= self.CLOSE else self.count + 1
        return refresh
