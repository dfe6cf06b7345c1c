"""A classifier: a base model, its pooling and its head, behind one forward.

The same object serves a model with a head of its own (native pooling) and an encoder with mean pooling and a linear
head beside it; adapters wrap what is inside.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from textlift.errors import ModelError
from textlift.models.encoder_layer import PACKING, WholeLayers
from textlift.models.families import Family, linear_layer_names, locate, located
from textlift.models.grouping import groups_of
from textlift.models.last_layer import LastLayer, pooled_rows
from textlift.models.packing import no_mask, packing_of

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)


class Classifier(nn.Module):
    """Logits for batches of tokens.

    Shapes: B batch, L tokens, D hidden, C classes.
    """

    def __init__(self, model: nn.Module, family: Family, *, n_classes: int, mean_pooled: bool) -> None:
        super().__init__()
        self.model: Any = model
        self.family = family
        self.n_classes = n_classes
        self.mean_pooled = mean_pooled
        self.virtual_tokens = 0  # positions that a method puts before the text in the output
        self.packs = False  # whether it computes without padding; see `packing.use_packing`
        self.not_packed = ""
        self.groups = False  # whether its layers may put texts of like length together; see `grouping`
        self.usual_attention = ""  # what attention it had before it was let pack
        self.head: nn.Linear | None = None
        if mean_pooled:
            config: Any = model.config
            self.head = nn.Linear(int(config.hidden_size), n_classes)
        self._last_layer = None if mean_pooled else LastLayer(model, family)
        # Modules that come later are an adapter's: their dropout is on while training, the base model's is not.
        self._base_modules = set(self.modules())
        self._mode: tuple[bool, Any] | None = None  # what set_training set, of which model, if nothing changed it
        self.whole_layers: WholeLayers | None = None  # see `use_whole_layers`
        self._recomputed: list[Any] = []
        self._recomputing = _Recomputing()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) in fp32 of input_ids and attention_mask, both (B, L), padded on the right, on any device."""
        device = next(self.model.parameters()).device
        options: dict[str, Any] = {}
        if self.family.is_decoder and (self._recomputed or self.packs):
            options["use_cache"] = False
        in_passing = device.type == "cuda"  # copies wait for nothing: the GPU takes them in order
        mask = attention_mask.to(device, non_blocking=in_passing)
        packs = self.packs and not self.training  # its attention has no dropout
        groups = None
        if packs:
            options[PACKING] = packing_of(attention_mask, device=device, is_causal=self.family.is_decoder)
        elif len(input_ids) > 1 and self.pads_less():
            groups = groups_of(attention_mask, self.model.config.num_attention_heads)
            options |= {} if groups is None else {PACKING: groups}
        ids = input_ids.to(device, non_blocking=in_passing)
        if self._last_layer is not None:
            self._last_layer.see(None if packs else ids, virtual_tokens=self.virtual_tokens)
        with self._last_token_pooled(mask):
            seen = no_mask(device) if PACKING in options else mask
            output = self.model(input_ids=ids, attention_mask=seen, **options)
        if groups is not None and not groups.are_packed:
            self.groups = False
            logger.warning("Batches stay padded: %s keeps options to itself.", type(self._inner()).__name__)
            return self(input_ids, attention_mask)  # type: ignore[no-any-return]
        if self.head is None:
            logits: torch.Tensor = output.logits
            return logits.float()
        hidden = output.last_hidden_state[:, self.virtual_tokens :]  # (B, L, D): the mean is over the text's own tokens
        with torch.autocast(device.type, enabled=False):
            pooled_logits: torch.Tensor = self.head(mean_pool(hidden.float(), mask))
            return pooled_logits

    def pads_less(self) -> bool:
        """Whether texts of unlike length may be one pass on a CPU without padding all to the longest."""
        if not self.groups or self.training or self._recomputed or self.virtual_tokens or self.whole_layers is None:
            return False
        return self.whole_layers.take_groups(self.layers())

    @contextmanager
    def _last_token_pooled(self, attention_mask: torch.Tensor) -> Iterator[None]:
        """While open, the head of a decoder with virtual tokens sees the last token of each text alone, (B, 1, D).

        transformers takes the last position where it is given embeddings, as peft gives them: a padding one.
        """
        if not self.virtual_tokens or self.head is not None:
            yield
            return

        def pick(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor] | None:
            hidden = inputs[0]
            if hidden.dim() == 2:  # an encoder pools before its last layer
                return None
            last = self.virtual_tokens + attention_mask.sum(1) - 1  # (B,)
            return (hidden[torch.arange(len(hidden), device=hidden.device), last][:, None],)

        final = self.final_linear()
        _quieten(self._inner())
        hook = final.register_forward_pre_hook(pick, prepend=True)  # before that of captured_features
        try:
            yield
        finally:
            hook.remove()

    def set_training(self, *, base_dropout: bool) -> None:
        """Go into training mode: the dropout of an adapter is on, that of the base model only where asked for.

        The copy of the head that an adapter trains counts as part of the base model.
        """
        if self._mode is not None and self._mode[0] == base_dropout and self._mode[1] is self.model:
            return
        for name, module in self.named_modules():
            in_base = module in self._base_modules or ".modules_to_save." in name
            module.training = base_dropout or not in_base
        self._recomputing.with_dropout = base_dropout
        for layer in self._recomputed:
            layer.training = True  # else transformers does not ask; see _Recomputing
        self._mode = (base_dropout, self.model)
        if self.whole_layers is not None:
            self.whole_layers.forget()

    def train(self, mode: bool = True) -> "Classifier":
        """As any module: `eval()` ends what `set_training` set."""
        self._mode = None
        if self.whole_layers is not None:
            self.whole_layers.forget()
        return super().train(mode)

    def recompute_layers(self) -> int:
        """From now on, keep only the inputs of each layer while training and compute the rest again going back.

        Returns:
            How many layers do so; 0 where the architecture has none that can.

        Source:
            Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost, section 4.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        self._mode = None
        self._recomputed = [module for module in self.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in self._recomputed:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = self._recomputing
        return len(self._recomputed)

    def with_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) and the pooled texts that the last linear layer sees, (B, D); gradients go through both."""
        seen: list[torch.Tensor] = []
        hook = self.final_linear().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self(input_ids, attention_mask)
        finally:
            hook.remove()
        pad_token_id = self._last_layer.pad_token_id if self._last_layer is not None else None
        return logits, pooled_rows(seen[-1], input_ids, pad_token_id=pad_token_id)

    @contextmanager
    def captured_features(self) -> Iterator[list[torch.Tensor]]:
        """While open, every forward appends what the last linear layer sees: the pooled text, (B, D)."""
        captured: list[torch.Tensor] = []

        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen = inputs[0].detach()
            captured.append(seen[:, -1] if self.virtual_tokens and seen.dim() == 3 else seen)

        hook = self.final_linear().register_forward_pre_hook(keep)
        try:
            yield captured
        finally:
            hook.remove()

    def final_linear(self) -> nn.Linear:
        """The last linear layer, D to C (inside an adapter's copy of the head where there is one)."""
        if self.head is not None:
            return self.head
        module = self._inner()
        for part in self.family.final_linear.split("."):
            module = getattr(module, part)
            copies = getattr(module, "modules_to_save", None)
            if copies is not None:
                module = copies["default"]
        if not isinstance(module, nn.Linear):
            raise ModelError(f"{self.family.final_linear} must be a linear layer; it is {type(module).__name__}.")
        return module

    def _inner(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def draw_head(self, seed: int) -> None:
        """Draw the last linear layer afresh: normal with the model's initializer range (0.02), bias zero."""
        generator = torch.Generator().manual_seed(seed)
        linear = self.final_linear()
        spread = float(getattr(self.model.config, "initializer_range", 0.02) or 0.02)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) * spread)
            if linear.bias is not None:
                linear.bias.zero_()

    def set_head(self, weight: "np.ndarray", bias: "np.ndarray | None") -> None:
        """Start the last linear layer from weight (C, D) and bias (C,), as a probe found them.

        Raises:
            ValueError: They do not have the form of the layer; None stands for no bias.
        """
        linear = self.final_linear()
        wanted = (tuple(linear.weight.shape), linear.bias is not None)
        found = (weight.shape, bias is not None)
        if wanted != found:
            raise ValueError(
                f"the head must have weight {wanted[0]} and bias {wanted[1]}; found {found[0]}, {found[1]}."
            )
        with torch.no_grad():
            linear.weight.copy_(torch.as_tensor(weight))
            if bias is not None:
                linear.bias.copy_(torch.as_tensor(bias))

    def layers(self) -> list[nn.Module]:
        """The repeated layers of the base model, in order."""
        inner = self._inner()
        return list(inner.get_submodule(locate(inner, self.family.layer_list)).children())

    def linear_layers(self) -> list[str]:
        """Full names of the linear layers of the base model that an adapter can wrap, none of the head."""
        return linear_layer_names(self.model, self.family)

    def head_modules(self) -> list[str]:
        """Full names of the modules that are trained and saved whole; none where the head stands beside the model."""
        return [] if self.mean_pooled else located(self.model, self.family.head_modules)


class _Recomputing:
    """How transformers is told to run a layer that is computed again.

    It only does so for layers in training mode, in which some (OPT's) drop values themselves; so the mode is what the
    dropout of the base model asks for again once the layer runs.
    """

    with_dropout = False

    def __call__(self, run: Any, *inputs: Any) -> Any:
        """The output of a layer bound to its other arguments, of its inputs; only those are kept."""
        from torch.utils.checkpoint import checkpoint

        return checkpoint(partial(self._run, run), *inputs, use_reentrant=False)

    def _run(self, run: Any, *inputs: Any) -> Any:
        layer = run.args[0]
        layer.training = self.with_dropout
        try:
            return run(*inputs)
        finally:
            layer.training = True


def _quieten(model: nn.Module) -> None:
    """Keep transformers from warning that it cannot find the padding among embeddings: it is found here."""
    for kind in type(model).__mro__:
        logging.getLogger(kind.__module__).addFilter(_is_not_about_padding)


def _is_not_about_padding(record: logging.LogRecord) -> bool:
    return "will not detect padding tokens" not in record.getMessage()


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are not padding, (B, L, D) and (B, L) to (B, D); as sentence-transformers does."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, L, 1)
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def padding_shift(classifier: Classifier, input_ids: torch.Tensor, *, pad_token_id: int, padding: int = 3) -> float:
    """Largest change of a logit, as a share of the largest logit, when a text (1, L) is padded on the right."""
    mask = torch.ones_like(input_ids)
    wide = torch.nn.functional.pad(input_ids, (0, padding), value=pad_token_id)
    with torch.inference_mode():
        plain = classifier(input_ids, mask)
        padded = classifier(wide, torch.nn.functional.pad(mask, (0, padding)))
    scale = max(float(plain.abs().max()), 1e-6)
    return float((plain - padded).abs().max()) / scale
