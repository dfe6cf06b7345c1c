"""Methods that train some of the base model's own weights, or none but the head; the whole model is saved.

Source:
    Ben Zaken et al. (2022), BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models, section 3 (every bias, those of norms too).
    Lee et al. (2019), What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning (the last layers alone).
    Alain and Bengio (2016), Understanding Intermediate Layers Using Linear Classifier Probes (the head alone).
"""

from typing import Any

from pydantic import Field

from textlift.errors import RecipeError
from textlift.methods.base import Method, MethodOptions, Parts

# The norm after the last layer, as gpt2; llama and qwen; modernbert; opt and gpt_neox; phi call it.
_FINAL_NORMS = ("ln_f", "norm", "final_norm", "final_layer_norm", "final_layernorm")


class FullOptions(MethodOptions):
    """Full fine-tuning has no options."""


class ProbeOptions(MethodOptions):
    """A trained head has no options."""


class BitfitOptions(MethodOptions):
    """BitFit has no options."""


class LastLayersOptions(MethodOptions):
    """Options of training the last layers."""

    layers: int = Field(2, ge=1, le=1000, description="How many of the repeated layers train, counted from the top.")


def wrap_full(parts: Parts, _options: FullOptions) -> Any:
    """The model with every weight set to train."""
    return parts.model.requires_grad_(True)


def wrap_probe(parts: Parts, _options: ProbeOptions) -> Any:
    """The model with its head set to train, and nothing else."""
    _train(parts, parts.head_modules)
    return parts.model


def wrap_bitfit(parts: Parts, _options: BitfitOptions) -> Any:
    """The model with its head and every bias set to train, those of norms included.

    Raises:
        RecipeError: The base model has no bias.
    """
    heads = tuple(f"{name}." for name in parts.head_modules)
    biases = [p for name, p in parts.model.named_parameters() if name.endswith(".bias") and not name.startswith(heads)]
    if not biases:
        raise RecipeError(
            f"method bitfit trains biases, so the base model must have some; {type(parts.model).__name__} has none."
            "\nUse lora, or last-layers."
        )
    for bias in biases:
        bias.requires_grad_(True)
    _train(parts, parts.head_modules)
    return parts.model


def wrap_last_layers(parts: Parts, options: LastLayersOptions) -> Any:
    """The model with its last layers, the norm that follows them, and its head set to train.

    The norm after the layers (gpt2, llama, modernbert; none in bert) sees only what they put out, so that it belongs
    to the part that trains.

    Raises:
        RecipeError: The model has fewer layers, or repeats one that it has.
    """
    names = [f"{parts.layer_list}.{name}" for name, _ in parts.model.get_submodule(parts.layer_list).named_children()]
    repeats = int(getattr(parts.model.config, "num_hidden_layers", len(names)) or len(names))
    if len(names) < repeats:
        raise RecipeError(
            f"method last-layers needs layers with weights of their own; the {repeats} of {type(parts.model).__name__} "
            f"share {len(names)}.\nUse lora, or full."
        )
    if options.layers > len(names):
        raise RecipeError(
            f"method.layers must be at most {len(names)}, all that the base model has; found {options.layers}."
        )
    owner = parts.layer_list.rpartition(".")[0]
    norms = [
        f"{owner}.{name}".lstrip(".")
        for name, _ in parts.model.get_submodule(owner).named_children()
        if name in _FINAL_NORMS
    ]
    _train(parts, (*names[-options.layers :], *norms, *parts.head_modules))
    return parts.model


def _train(parts: Parts, names: tuple[str, ...]) -> None:
    for name in names:
        parts.model.get_submodule(name).requires_grad_(True)


METHODS = (
    Method(
        "full",
        "Every weight of the base model.",
        FullOptions,
        wrap_full,
        learning_rate=1e-4,
        paper="https://arxiv.org/abs/1810.04805",
        mergeable=False,
        saves_adapter=False,
        learning_rates=(1e-6, 1e-3),
        base_dropout=True,
    ),
    Method(
        "last-layers",
        "Every weight of the last layers of the base model.",
        LastLayersOptions,
        wrap_last_layers,
        learning_rate=3e-4,  # measured: 6 points of accuracy over 1e-4
        paper="https://arxiv.org/abs/1911.03090",
        mergeable=False,
        saves_adapter=False,
        learning_rates=(1e-6, 3e-3),
        base_dropout=True,
    ),
    Method(
        "bitfit",
        "Every bias of the base model.",
        BitfitOptions,
        wrap_bitfit,
        learning_rate=5e-3,  # measured: in a short training 1e-3 stays 6 points of accuracy behind 1e-2
        paper="https://arxiv.org/abs/2106.10199",
        mergeable=False,
        saves_adapter=False,
        learning_rates=(1e-4, 3e-2),
        weights=(".bias",),
        needs=("biases",),
    ),
    Method(
        "probe",
        "The head alone; the base model stays as it is.",
        ProbeOptions,
        wrap_probe,
        learning_rate=1e-2,  # measured: 1e-3 leaves a fresh head half trained after two epochs
        paper="https://arxiv.org/abs/1610.01644",
        mergeable=False,
        saves_adapter=False,
        learning_rates=(1e-3, 1e-1),
    ),
)
