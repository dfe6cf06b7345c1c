"""What the kernel of packed batches computes, written plainly for the CPU: each text attends to itself alone."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from textlift.models import packing
from textlift.models.packing import Packing


def attend_each(states: Sequence[torch.Tensor], how: Packing) -> torch.Tensor:
    bounds = list(pairwise(how.offsets.tolist()))
    assert max(end - start for start, end in bounds) <= how.longest
    texts = [[some[start:end].transpose(0, 1)[None] for some in states] for start, end in bounds]
    done = [functional.scaled_dot_product_attention(*text, is_causal=how.is_causal) for text in texts]
    return torch.cat([one[0].transpose(0, 1) for one in done])


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a CPU pack, as if it had the kernel; the numbers of packed tokens that attention saw are appended."""
    seen: list[int] = []

    def attend(states: Sequence[torch.Tensor], how: Packing) -> torch.Tensor:
        seen.append(len(states[0]))
        return attend_each(states, how)

    why_not = packing._why_not
    monkeypatch.setattr(packing, "attend_each", attend)
    monkeypatch.setattr(packing, "_varlen", lambda: (None, {}))
    monkeypatch.setattr(packing, "_why_not", lambda classifier, runtime: why_not(classifier, _gpu_of(runtime)))
    return seen


def _gpu_of(runtime: packing.Runtime) -> packing.Runtime:
    return packing.Runtime("cuda", "bf16", runtime.threads, ())
