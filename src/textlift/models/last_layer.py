"""The end of the last layer for the pooled position alone: the head sees no other, so nothing else is computed there.

Keys and values are needed of every token; what comes after attention is not. Exact: the same arithmetic on fewer rows.
Saves three quarters of the last layer's products in an encoder, two thirds in a decoder.
"""

from typing import Any

import torch
from torch import nn

from textlift.errors import ModelError
from textlift.models.families import Family, locate


class LastLayer:
    """Hooks on the last layer of a model; what the head sees stays as it was.

    Args:
        model: A sequence-classification model that pools one position, before any adapter wraps it.
        family: Names the part of a layer that can be cut, if any.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.places: torch.Tensor | None = None  # the pooled position of each text, (B,); None computes all
        config: Any = model.config
        tail = _tail(model, family)
        self.is_cut = tail is not None
        self.pad_token_id: int | None = config.get_text_config().pad_token_id
        self._first_token = not family.is_decoder
        if tail is None:
            return
        layer: Any = [*model.get_submodule(locate(model, family.layer_list)).children()][-1]
        layer.pooled_alone = self  # for `encoder_layer`, which computes a layer without calling its parts
        tail.register_forward_pre_hook(self._pick)
        if family.tail_is_added:
            tail.register_forward_hook(self._put_back)

    def is_alone(self, tail: nn.Module) -> bool:
        """Whether the part that is cut has no hook but this one."""
        return len(tail._forward_pre_hooks) == 1 and not (tail._forward_hooks or tail._backward_hooks)

    def see(self, input_ids: torch.Tensor | None, *, virtual_tokens: int) -> None:
        """Tell the token ids (B, L) of the next forward pass, and how many positions a method puts before them.

        None for rows of another form: all of the last layer is computed.
        """
        if input_ids is None or not self.is_cut or (virtual_tokens and not self._first_token):
            self.places = None
        elif self._first_token:
            self.places = torch.zeros(len(input_ids), dtype=torch.long, device=input_ids.device)
        else:
            self.places = last_tokens(input_ids, pad_token_id=self.pad_token_id)

    def _pick(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self.places is None:
            return None
        self._length = inputs[0].shape[1]
        if self._first_token:
            return tuple(states[:, :1].contiguous() for states in inputs)  # (B, 1, D)
        rows = torch.arange(len(self.places), device=self.places.device)
        return tuple(states[rows, self.places][:, None] for states in inputs)

    def _put_back(self, _: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor | None:
        if self.places is None:
            return None
        rows = torch.arange(len(self.places), device=self.places.device)
        whole = output.new_zeros(len(output), self._length, output.shape[2])
        return whole.index_put((rows, self.places), output[:, 0])  # (B, L, D)


def last_tokens(input_ids: torch.Tensor, *, pad_token_id: int | None) -> torch.Tensor:
    """The position that a decoder pools, (B,), of input_ids (B, L).

    Source:
        transformers, GenericForSequenceClassification: the rightmost token that is not the padding token.
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * (input_ids != pad_token_id)).argmax(dim=1)


def pooled_rows(features: torch.Tensor, input_ids: torch.Tensor, *, pad_token_id: int | None) -> torch.Tensor:
    """What the head saw of each text, (B, D), of (B, D), (B, 1, D) or all positions (B, L, D), of which one is picked.

    Decoders run their head over every position and pick one afterwards.
    """
    if features.dim() == 2:
        return features
    if features.shape[1] == 1:
        return features[:, 0]
    last = last_tokens(input_ids.to(features.device), pad_token_id=pad_token_id)
    return features[torch.arange(len(last), device=features.device), last]


def _tail(model: nn.Module, family: Family) -> nn.Module | None:
    """The part of the last layer that only the pooled position must go through; None where there is none."""
    config: Any = model.config
    if not family.tail or getattr(config, "chunk_size_feed_forward", False):
        return None
    try:
        layers = [*model.get_submodule(locate(model, family.layer_list)).children()]
        return layers[-1].get_submodule(family.tail)
    except (ModelError, AttributeError, IndexError):
        return None
