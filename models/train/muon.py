"""Muon: momentum whose matrices are made orthogonal before the step.

Matrices of one shape are stacked and treated together; that is most of the speed on a CPU.
"""

import torch


def orthogonal(g: torch.Tensor, dtype, rounds: int = 5) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values end between 0.7 and 1.2. `g` is a stack."""
    a, b, c = 3.4445, -4.7750, 2.0315  # of the quintic a x + b x^3 + c x^5, steep at 0
    tall = g.shape[-2] > g.shape[-1]
    x = (g.mT if tall else g).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    def __init__(self, matrices, lr, momentum=0.95, weight_decay=0.1, dtype=torch.float32):
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            stacks = {}
            for p in group["params"]:
                if p.grad is not None:
                    stacks.setdefault(p.shape, []).append(p)
            for (rows, columns), params in stacks.items():
                grads = [p.grad for p in params]
                for p in params:
                    if "momentum" not in self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                kept = [self.state[p]["momentum"] for p in params]
                torch._foreach_lerp_(kept, grads, 1 - group["momentum"])
                nesterov = torch._foreach_lerp(grads, kept, group["momentum"])
                updates = orthogonal(torch.stack(nesterov), self.dtype)
                size = max(1.0, rows / columns) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(updates.unbind()), alpha=-group["lr"] * size)
