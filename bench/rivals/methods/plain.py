"""No cache, and the control that every cache has to beat: no cache, and fewer steps."""

from .base import Method


class Uncached(Method):
    name, source = "uncached", "every block at every step"

    def hidden(self, step):
        return step.all_blocks()


class FewerSteps(Uncached):
    name, source = "fewer steps", "the same sampler with fewer steps and no cache"

    def __init__(self, context, steps=None):
        super().__init__(context)
        self.steps = steps

    @staticmethod
    def settings(context):
        return [{"steps": steps} for steps in range(context.steps // 4, 3 * context.steps // 4)]
