"""A saved variant back into a Predictor: files verified, base model and labels held against those of its training."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from textlift.errors import ModelError
from textlift.export.deciding import read_decision
from textlift.export.saving import HEAD, SavedSettings, read_settings
from textlift.export.verifying import (
    require_same_base,
    require_same_head,
    require_same_labels,
    require_same_tokenizer,
)
from textlift.inference import Predictor
from textlift.methods.prompt import virtual_tokens_of
from textlift.methods.registry import METHODS
from textlift.models.classifier import Classifier
from textlift.models.loading import BaseModel, build_classifier, open_base
from textlift.models.quantized import quantization_of, require_quantizable
from textlift.runtime import Runtime, quiet_libraries


def load_variant(
    folder: Path, runtime: Runtime, *, base_name: str | None = None, full_precision: bool = False
) -> Predictor:
    """The classifier that a folder holds, ready to predict.

    Args:
        folder: An adapter or model folder that textlift wrote.
        runtime: Where it shall run.
        base_name: Base model to use in place of the recorded one, such as a copy of it on this machine.
        full_precision: Load the base in fp32 though the adapter was trained on a quantized one, to be merged.

    Raises:
        ModelError: A file is damaged; base model or tokenizer are not those the variant was trained with; or its
            label names do not fit its weights.
        RecipeError: The base was quantized, and this device cannot hold it so.
        InputNotFoundError, UnavailableError, MissingExtraError: The base model cannot be had.
    """
    settings = read_settings(folder)
    if settings.kind == "model":
        return _predictor(*_load_whole(folder, settings), settings=settings, runtime=runtime, folder=folder)
    quantization = "none" if full_precision else settings.quantization
    require_quantizable(quantization, device=runtime.device)
    base = open_base(base_name or settings.base_name, revision=settings.base_revision, pooling=settings.pooling)
    require_same_base(settings, base, folder)
    require_same_tokenizer(settings, base, folder)
    classifier = build_classifier(
        base, settings.label_names, seed=0, quantization=quantization, linear_kernel=runtime.linear_kernel
    )
    attach_adapter(classifier, folder)
    return _predictor(classifier, base, settings=settings, runtime=runtime, folder=folder)


def attach_adapter(classifier: Classifier, folder: Path) -> None:
    """Put the adapter and head of a folder that `save_adapter` wrote onto a fresh classifier.

    Raises:
        ModelError: They do not fit, or are of a method that this version does not have.
    """
    from peft import PeftModel

    settings = read_settings(folder)
    method = settings.method
    if method not in METHODS:
        raise ModelError(f"{folder}: the adapter must be of a method that textlift has; found {method!r}.")
    require_same_head(settings, classifier, folder)
    own_load = METHODS[method].load
    try:
        with quiet_libraries():
            if own_load is not None:
                classifier.model = own_load(classifier.model, folder)
            else:
                classifier.model = PeftModel.from_pretrained(classifier.model, str(folder))
            if classifier.head is not None:
                classifier.head.load_state_dict(load_file(folder / HEAD))
            classifier.virtual_tokens = virtual_tokens_of(classifier.model)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{folder}: the adapter must fit its base model; {line}.") from error
    classifier.requires_grad_(False)
    classifier.eval()


def merge(predictor: Predictor) -> Predictor:
    """The same predictor with its adapter folded into the base weights, in place.

    Raises:
        ModelError: The base is quantized: the sum would be rounded once more.
    """
    classifier = predictor.classifier
    if quantization_of(classifier) != "none":
        raise ModelError(
            f"the base must be in full precision to fold an adapter into it; it is in {quantization_of(classifier)}."
            "\nLoad it with full_precision=True."
        )
    _unwrap_heads(classifier.model)
    with quiet_libraries():
        classifier.model = classifier.model.merge_and_unload()
    classifier.requires_grad_(False)
    classifier.eval()
    return predictor


def _unwrap_heads(model: Any) -> None:
    """Put the trained head in the place of peft's wrapper: for some methods peft unwraps only a head of one layer."""
    from peft.utils.other import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save["default"])


def _load_whole(folder: Path, settings: SavedSettings) -> tuple[Classifier, BaseModel]:
    require_same_labels(settings, folder)
    base = open_base(str(folder), pooling=settings.pooling)
    require_same_tokenizer(settings, base, folder)
    classifier = build_classifier(base, settings.label_names, seed=0, fresh_head=False)
    if classifier.head is not None:
        state = load_file(folder / "2_Dense" / "model.safetensors")
        classifier.head.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in state.items()})
    return classifier.requires_grad_(False).eval(), base


def _predictor(
    classifier: Classifier, base: BaseModel, *, settings: SavedSettings, runtime: Runtime, folder: Path
) -> Predictor:
    tokenizer: Any = base.tokenizer
    return Predictor(
        classifier.to(runtime.device),
        tokenizer,
        settings.label_names,
        settings.max_length,
        runtime,
        name=settings.method,
        decision=read_decision(folder, settings.label_names),
    )
