"""What a method is: a record with its options, its wrapping and its facts.

Does not know models by name: it is handed a module and the names of its parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from textlift.recipe import Quantization

Need = Literal["past-key-values", "biases", "plain-linear", "encoder"]


class MethodOptions(BaseModel):
    """Options of a method: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Parts:
    """A base model in the terms that every method needs.

    Args:
        model: The module to wrap, with a head of its own or without.
        linear_layers: Full names of the linear layers that an adapter can wrap.
        head_modules: Full names of the modules trained whole; empty where the head stands beside the model.
        layer_list: Full name of the list of repeated layers.
        fan_in_fan_out: Whether the linear layers keep their weight transposed.
        has_head: Whether the model is a sequence-classification model of transformers.
        is_decoder: Whether a token sees only those before it.
        total_steps: Optimizer steps that are planned, for methods with a schedule of their own.
    """

    model: Any
    linear_layers: tuple[str, ...]
    head_modules: tuple[str, ...]
    layer_list: str
    fan_in_fan_out: bool
    has_head: bool
    is_decoder: bool = False
    total_steps: int = 100


def _no_ratios(_options: Any) -> dict[str, float]:
    return {}


def _no_sources(_options: Any) -> tuple[Path, ...]:
    return ()


@dataclass(frozen=True)
class Method:
    """One way to tune: a row of the method table.

    Args:
        name: As on the command line.
        summary: One line for help and docs.
        options: Its options with range and default.
        wrap: Takes parts and options, gives the module with exactly its own weights (and the head's) set to train.
        learning_rate: Peak learning rate at a hidden size of 384; wider models get less (see `peak_learning_rate`).
        learning_rates: Lowest and highest peak learning rate at that width that is not warned of.
        few_steps_factor: What that rate is multiplied with at most where a training has fewer than 1,000 steps.
        fullest_batch: Examples of a step at most, where the recipe leaves batch and learning rate to us.
        paper: Where it was published.
        mergeable: Whether what it trained folds into the base.
        saves_adapter: Whether an adapter is saved; else the whole model.
        weights: What the names of its own weights contain; empty where they are weights of the base model.
        late_weights: Those among them that have no gradient before the second step, because a factor starts at zero.
        needs: What a base model must have (see capability.py).
        base_dropout: Whether the dropout inside the base is on while it trains: where its own matrices move.
        quantized_base: Whether it trains on a base in 8 or 4 bits: no weight that it changes is among the quantized.
        quantization: What it keeps the base in where the recipe does not say.
        virtual_tokens: Positions that it puts before the text in the model's output, of its options.
        rate_ratios: Learning rate of some weights over that of the others: what their names contain to the ratio.
        after_step: Called with the module and the step's number between the optimizer's step and the next.
        penalty: A loss of its own, of the module; added to that of the rows.
        before_save: Called with the module and its options once training has ended, before it is measured.
        state: What it keeps beside the weights that train, as tensors of the module: part of a checkpoint.
        restore_state: Puts those tensors back into the module.
        sources: Folders of saved adapters that it starts from, of its options; they belong to a run's fingerprint.
        require_base: Called with its options, the sha256 of each weight file of the base model, and the pooling, before
            weights are loaded; raises ModelError where its sources are of another base model.
        save: Writes the adapter of a module into a folder, in place of peft; its configuration says of the base model
            what it is handed.
        load: Puts the adapter of a folder onto a module, in place of peft.
    """

    name: str
    summary: str
    options: type[MethodOptions]
    wrap: Callable[[Parts, Any], Any]
    learning_rate: float
    paper: str
    mergeable: bool
    saves_adapter: bool
    learning_rates: tuple[float, float] = (1e-5, 1e-2)
    few_steps_factor: float = 1.0
    fullest_batch: int = 32
    weights: tuple[str, ...] = ()
    late_weights: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    base_dropout: bool = False
    quantized_base: bool = False
    quantization: Quantization = "none"
    virtual_tokens: Callable[[Any], int] | None = None
    rate_ratios: Callable[[Any], Mapping[str, float]] = _no_ratios
    after_step: Callable[[Any, int], None] | None = None
    penalty: Callable[[Any], Any] | None = None
    before_save: Callable[[Any, Any], Any] | None = None
    state: Callable[[Any], Mapping[str, Any]] | None = None
    restore_state: Callable[[Any, Mapping[str, Any]], None] | None = None
    sources: Callable[[Any], Sequence[Path]] = _no_sources
    require_base: Callable[[Any, Mapping[str, str], str], None] | None = None
    save: Callable[[Any, Path, Mapping[str, Any]], None] | None = None
    load: Callable[[Any, Path], Any] | None = None

    @property
    def loads_with_peft(self) -> bool:
        """Whether plain peft loads what is saved of it."""
        return self.saves_adapter and self.load is None


def peak_learning_rate(method: Method, *, hidden_size: int, factor: float = 1.0) -> tuple[float, str]:
    """The default learning rate for a width, with its reason.

    Wider layers need smaller steps: the rate falls as 1/width above 384, the width at which the defaults were measured.

    Args:
        method: Whose.
        hidden_size: Of the base model.
        factor: For the number and size of the steps; see `training.steps.rate_factor`.

    Source:
        Yang et al. (2022), Tensor Programs V, section 3 (hidden weights under Adam).
    """
    rate = method.learning_rate * width_factor(hidden_size) * factor
    times = f", times {factor:.2g} for few, or fuller, steps" if factor > 1 else ""
    return rate, f"learning_rate {rate:.2g}: default of {method.name} at a hidden size of {hidden_size}{times}"


def learning_rate_warning(method: Method, rate: float, *, hidden_size: int) -> str | None:
    """A sentence where a learning rate is far from what the method is known to train with, else None."""
    low, high = (bound * width_factor(hidden_size) for bound in method.learning_rates)
    if low <= rate <= high:
        return None
    side = "below" if rate < low else "above"
    return f"learning_rate {rate:.2g} is {side} the usual {low:.1g} to {high:.1g} of {method.name} at this width"


def width_factor(hidden_size: int) -> float:
    """What a learning rate at a hidden size of 384 is multiplied with."""
    return min(1.0, 384 / hidden_size)
