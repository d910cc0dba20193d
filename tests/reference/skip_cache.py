"""Skip-Cache around a real HunyuanDiT2DModel: the reference rule, for one picture.

A notation like N2-700-50 means: gap 2, every step with t >= 700 is full, reset after a step with t <= 50.
At each step with timestep t:

    full    if counter mod gap == 0 or t >= start: all blocks run, the output of block depth-1-branch is kept
    cached  otherwise: blocks 0..branch-1 and depth-branch..depth-1 run, the kept tensor stands in for the blocks between
    then    counter += 1, and if t <= close: counter = 0 and nothing is kept any more

Only `forward` of the blocks between is replaced. On a cached step each of them hands its input on, and the last one gives
the kept tensor. The model's own loop still pushes and pops its long skips, so blocks near the output get the fresh
skips of the blocks near the input: block l pops what block depth-1-l pushed, and what the blocks between push they pop.
"""

import torch
from diffusers import HunyuanDiT2DModel


class SkipCache:
    """Use as `with SkipCache(transformer, gap=2) as cache:`; afterwards `cache.full` has True per full step."""

    def __init__(self, transformer: HunyuanDiT2DModel, gap: int, start: int = 700, close: int = 50, branch: int = 1):
        assert 1 <= branch < len(transformer.blocks) // 2
        self.transformer = transformer
        self.between = transformer.blocks[branch : len(transformer.blocks) - branch]
        self.gap, self.start, self.close = gap, start, close
        self.counter, self.kept, self.full = 0, None, []

    def __enter__(self) -> "SkipCache":
        for block in self.between:
            block.forward = self.wrapped(block.forward, last=block is self.between[-1])
        self.hooks = [
            self.transformer.register_forward_pre_hook(self.decide, with_kwargs=True),
            self.transformer.register_forward_hook(self.advance),
        ]
        return self

    def __exit__(self, *exception):
        for block in self.between:
            del block.forward  # the class's own is visible again
        for hook in self.hooks:
            hook.remove()

    def decide(self, transformer, args, kwargs):
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        self.t = int(timestep[0])
        self.full.append(self.counter % self.gap == 0 or self.t >= self.start)

    def wrapped(self, forward, last: bool):
        def run(hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
            if self.full[-1]:
                hidden_states = forward(hidden_states, **kwargs)
                if last:
                    self.kept = hidden_states
                return hidden_states
            return self.kept if last else hidden_states

        return run

    def advance(self, transformer, args, output):
        self.counter += 1
        if self.t <= self.close:
            self.counter, self.kept = 0, None


@torch.no_grad()
def main():
    """Checks the patch: a cached step on unchanged inputs equals the full one bitwise, for every branch; on others it does not."""
    import golden
    import make_transformers
    import synthetic
    from make_rope import rotary_tables

    sizes, latents, _, masks = make_transformers.CASES["depth8"]
    model = synthetic.fill(HunyuanDiT2DModel(**sizes))
    cos, sin = rotary_tables(sizes["attention_head_dim"], (latents[0] // 2, latents[1] // 2))
    inputs = golden.make_inputs(make_transformers.input_specs(sizes, latents, [300, 300], masks), {"cos": cos, "sin": sin})
    others = {**inputs, "latents": inputs["latents"] * 1.1}
    found, found_others = make_transformers.run(model, inputs), make_transformers.run(model, others)
    for branch in (1, 2, 3):
        with SkipCache(model, gap=3, branch=branch) as cache:
            full, same, stale = (make_transformers.run(model, x)["noise_pred"] for x in (inputs, inputs, others))
            assert cache.full == [True, False, False]
            assert torch.equal(cache.kept, found[f"deep_{branch}"])
        assert torch.equal(full, found["noise_pred"]) and torch.equal(same, full)
        difference = (stale - found_others["noise_pred"]).abs().max().item()
        assert difference > 1e-3
        print(f"branch {branch}: cached equals full; with stale features {difference:.3f} apart")
    assert torch.equal(make_transformers.run(model, inputs)["noise_pred"], full), "the patch must go away"


if __name__ == "__main__":
    main()
