"""Delta-DiT: what a range of blocks adds is kept, not what it gives.

Up to the step `boundary` the range is the last `share` of the blocks, which draw details; after it the first `share`,
which draw outlines. Every `gap`-th step runs all. Where the first blocks are left out, so are the long skip connections
that begin there; what they differed by from the range's input is kept too.
"""

from .base import Method, product


class DeltaDit(Method):
    name, source = "Delta-DiT", "arXiv 2406.01125"
    never = {"gap": 1, "boundary": 0, "share": 0.5}
    counts = "share"

    def __init__(self, context, gap, boundary, share):
        super().__init__(context)
        self.gap, self.boundary, self.left_out = gap, boundary, round(share * context.depth)

    @staticmethod
    def settings(context):
        early = [round(part * context.steps) for part in (0, 0.25, 0.5)]
        return product(gap=(2, 3, 4, 6), boundary=early, share=(0.5, 0.75, 0.9))

    def hidden(self, step):
        front, rear = self.left_out, self.depth - self.left_out
        if step.index % self.gap == 0:
            between = {}
            hidden = step.x
            for first, stop in zip([0, *sorted({front, rear})], [*sorted({front, rear}), self.depth]):
                hidden = between[stop] = step.blocks(first, stop, hidden)
            self.front, self.rear = between[front] - step.x, hidden - between[rear]
            self.skips = {block: skip - step.x for block, skip in step.skips.items() if block < front}
            return hidden
        if step.index < self.boundary:
            return step.blocks(0, rear, step.x) + self.rear
        step.skips.update({block: step.x + skip for block, skip in self.skips.items()})
        return step.blocks(front, self.depth, step.x + self.front)
