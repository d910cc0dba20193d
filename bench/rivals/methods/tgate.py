"""T-GATE: once the picture is laid out, the prompt has little more to say.

From the step `gate` on, cross attention gives what it gave at the step before. With `rows` 1, as the authors have it,
that is the mean of both halves, and only one half of the rows runs, without guidance; with 2 both go on. Self-attention
is computed at every `before`-th step up to the gate, from the third step on, and at every `after`-th beyond it.
"""

from .base import Method, product


class TGate(Method):
    name, source = "T-GATE", "arXiv 2404.02747"
    never = {"gate": 10**6, "rows": 2, "before": 1, "after": 1}
    WARM_UP = 2

    def __init__(self, context, gate, rows, before, after):
        super().__init__(context)
        self.gate, self.rows, self.before, self.after, self.kept = gate, rows, before, after, {}

    @staticmethod
    def settings(context):
        gates = [round(share * context.steps) for share in (0.2, 0.3, 0.4, 0.6, 0.8)]
        return product(gate=gates, rows=(1, 2), before=(1, 3), after=(1, 3))

    def hidden(self, step):
        beyond, index = step.index >= self.gate, step.index
        if beyond and self.rows == 1:
            step.drop_negative()
            if index == self.gate:
                self.kept = {key: sum(kept.chunk(2)) / 2 for key, kept in self.kept.items()}
        every = self.after if beyond else 1 if index <= self.WARM_UP or index == self.gate - 1 else self.before
        reuse = {"attn1": index % every != 0, "attn2": beyond}

        def layer(block, name, compute):
            if name == "ff":
                return compute()
            if not reuse[name]:
                self.kept[block, name] = compute()
            return self.kept[block, name]

        return step.blocks(0, self.depth, step.x, layer)
