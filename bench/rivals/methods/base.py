"""What all methods share."""

from dataclasses import dataclass, field

import torch

from model import rows_of


@dataclass
class Context:
    """What a method may know before the first step."""

    #: Blocks of the model.
    depth: int
    #: The timesteps of the uncached run.
    timesteps: list
    #: hydit's calibrated schedules, by their number of refreshes.
    schedules: dict = field(default_factory=dict)
    #: TeaCache's polynomials, by what they were fitted to.
    polynomials: dict = field(default_factory=dict)

    @property
    def steps(self):
        return len(self.timesteps)


class Method:
    """The blocks of one run. A new one is made for every run, and keeps what it reuses as attributes.

    The arguments of `__init__` after the context are a setting; `settings` gives those that are searched.
    """

    #: In tables; the paper or the program that it follows.
    name = source = None
    #: A setting that reuses nothing.
    never = {}
    #: How blocks are counted, for a deeper model: see `flops.stretched`.
    counts = "ends"
    #: The number of steps, where it is not the uncached run's.
    steps = None

    def __init__(self, context):
        self.context, self.depth = context, context.depth

    @staticmethod
    def settings(context):
        """The settings that are tried."""
        return []

    def hidden(self, step):
        """What the last block makes of `step`, or what stands in for it."""
        raise NotImplementedError


def product(**choices):
    """Settings with every combination of choices."""
    settings = [{}]
    for name, values in choices.items():
        settings = [setting | {name: value} for setting in settings for value in values]
    return settings


def moved(now, before):
    """The mean change of a tensor, as a share of the mean of what it was before."""
    return float((now - before).abs().mean() / before.abs().mean())


class Adaptive(Method):
    """Every picture decides for itself, step by step, whether the rest of its blocks run.

    `one()` makes what a picture keeps and decides by, an object with three methods, all of which get the step's index
    and the picture's two rows of the first block's input and of `probe`: `runs` says whether the rest runs, `keep`
    also gets what it made, `reuse` gives what stands in for it.
    """

    def __init__(self, context):
        super().__init__(context)
        self.each = None

    def one(self):
        raise NotImplementedError

    def probe(self, step):
        """What the decision is taken by."""
        raise NotImplementedError

    def rest(self, step, probed):
        """The blocks that may be left out."""
        raise NotImplementedError

    def finish(self, step, hidden):
        """The blocks behind them, which always run."""
        return hidden

    def hidden(self, step):
        count = len(step.pictures)
        self.each = self.each or [self.one() for _ in range(count)]
        probed, out = self.probe(step), torch.empty_like(step.x)
        seen = [(step.index, *(tensor[rows_of([place], count)] for tensor in (step.x, probed)))
                for place in range(count)]
        running = [place for place, one in enumerate(self.each) if one.runs(*seen[place])]
        if running:
            rows = rows_of(running, count)
            out[rows] = self.rest(step.take(running), probed[rows])
        for place, one in enumerate(self.each):
            rows = rows_of([place], count)
            if place in running:
                one.keep(*seen[place], out[rows])
            else:
                out[rows] = one.reuse(*seen[place])
        return self.finish(step, out)


def thresholds(low, high, count):
    """`count` numbers from `low` to `high`, each by the same factor above the one before."""
    return [float(f"{low * (high / low) ** (i / (count - 1)):.3g}") for i in range(count)]
