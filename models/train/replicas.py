"""One batch, several threads: each has its own replica of the modules, on the same weights, with gradients of its own.

On a CPU with a core for each thread this beats two cores for every small operation, and suffers less where others
compute on the same machine. On a GPU there is one replica, which is the module itself.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch


class Replicas:
    def __init__(self, module: torch.nn.Module, count: int):
        self.modules = [module] + [self.another(module) for _ in range(count - 1)]
        self.threads = ThreadPoolExecutor(count)

    @staticmethod
    def another(module):
        other = copy.deepcopy(module)
        for mine, its in zip(module.parameters(), other.parameters(), strict=True):
            its.data = mine.data
        return other

    def freeze(self, name: str):
        for module in self.modules:
            module.get_submodule(name).requires_grad_(False)

    def gradients(self, loss_of, shares) -> torch.Tensor:
        """Sums loss_of(replica, *share) over the shares; the gradients end in the first replica."""

        def one(replica, share):
            loss = loss_of(replica, *share)
            loss.backward()
            return loss.detach()

        loss = sum(self.threads.map(one, self.modules, shares))
        first = self.modules[0]
        with torch.no_grad():
            for other in self.modules[1:]:
                both = [(m.grad, o.grad) for m, o in zip(first.parameters(), other.parameters()) if o.grad is not None]
                torch._foreach_add_([m for m, _ in both], [o for _, o in both])
                other.zero_grad()
        return loss

    def split(self, *tensors):
        """The shares of a batch: every n-th row of each tensor."""
        n = len(self.modules)
        return [[t[i::n] for t in tensors] for i in range(n)]
