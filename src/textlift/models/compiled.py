"""The repeated layers compiled (torch.compile): fewer and longer kernels for models that wait on their launches.

Each layer is compiled by itself, once for all of them and for batches of every size. Only passes that record gradients
are changed, so every measurement is that of the layers as they are. Does not know training.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def compiled(layers: Sequence[nn.Module]) -> Iterator[None]:
    """While open, passes of the layers that record gradients run compiled; the first of them takes a while longer.

    Where a layer cannot be compiled, torch warns and runs it as it is.
    """
    import torch._dynamo

    config: Any = torch._dynamo.config
    with config.patch(suppress_errors=True):
        for layer in layers:
            vars(layer)["forward"] = _while_training(layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                del vars(layer)["forward"]


def _while_training(plain: Callable[..., Any]) -> Callable[..., Any]:
    faster: Callable[..., Any] = torch.compile(plain, dynamic=True)

    def forward(*inputs: Any, **options: Any) -> Any:
        return faster(*inputs, **options) if torch.is_grad_enabled() else plain(*inputs, **options)

    return forward
