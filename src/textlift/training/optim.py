"""AdamW over the weights that train, and the learning rate of each step."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW with decoupled decay on matrices; biases and norms (one dimension) are exempt.

    Source:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, algorithm 2.
    """
    trained = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_ratio: float) -> LambdaLR:
    """Linear warm-up over a share of all steps, then linear decay that ends at zero after the last."""
    warmup = round(total_steps * warmup_ratio)

    def share(done: int) -> float:
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return max(0.0, (total_steps - done) / max(1, total_steps - warmup))

    return LambdaLR(optimizer, share)
