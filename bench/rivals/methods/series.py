"""A forecast by a Taylor series, as TaylorSeer has it."""

import math


class Series:
    """The latest output, and its differences by the distance of the steps, up to an order."""

    def __init__(self, order):
        self.order, self.at, self.terms = order, None, []

    def update(self, step, value):
        terms = [value]
        for before in self.terms[: self.order]:
            terms.append((terms[-1] - before) / (step - self.at))
        self.at, self.terms = step, terms

    def forecast(self, step):
        ahead = step - self.at
        return sum(term * (ahead**power / math.factorial(power)) for power, term in enumerate(self.terms))
