"""A trained variant on disk: a PEFT adapter, or a Hugging Face model folder, each complete in itself.

Adapter folder: adapter_config.json, adapter_model.safetensors, head.safetensors (mean pooling), tokenizer,
README.md, decision.json, textlift.json. Model folder: what save_pretrained writes, or a sentence-transformers folder
(mean pooling), with decision.json too.
textlift.json names base, tokenizer, labels and limits, and the sha256 of every other file and of its own content.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from textlift.digests import file_sha256
from textlift.errors import ModelError
from textlift.escaping import json_text
from textlift.export.deciding import DECISION, write_decision
from textlift.export.fingerprint import tokenizer_fingerprint
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel
from textlift.models.quantized import quantization_of, settings_of_quantized
from textlift.recipe import Quantization
from textlift.runtime import quiet_libraries
from textlift.storage import storing

FORMAT_VERSION = 1
SETTINGS = "textlift.json"
HEAD = "head.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class SavedSettings:
    """What a loader must know beside the weights; the content of textlift.json.

    quantization_settings are those of transformers' BitsAndBytesConfig, for those who load it without textlift; None
    where the base is in full precision, or cannot be trusted to bitsandbytes alone. tokenizer_sha256 is that of
    `tokenizer_fingerprint`; None in what was saved before it was recorded.
    """

    kind: str
    method: str
    base_name: str
    base_public_name: str
    base_revision: str | None
    base_sha256: dict[str, str]
    pooling: str
    max_length: int
    label_names: tuple[str, ...]
    label_values: tuple[str, ...]
    quantization: Quantization = "none"
    quantization_settings: Mapping[str, Any] | None = None
    tokenizer_sha256: str | None = None

    @property
    def loads_without_textlift(self) -> bool:
        """Whether plain libraries give its logits."""
        if self.kind == "model" or self.method not in METHODS:
            return True
        is_full = self.quantization == "none"
        return METHODS[self.method].loads_with_peft and (is_full or self.quantization_settings is not None)


def settings_of(
    base: BaseModel, predictor: Predictor, *, kind: str, method: str, label_values: Sequence[str]
) -> SavedSettings:
    """The settings of a variant that is about to be saved; kind is "adapter" or "model"."""
    folder = base.folder
    return SavedSettings(
        kind,
        method,
        folder.name,
        folder.public_name,
        folder.revision,
        folder.sha256,
        base.pooling,
        predictor.max_length,
        predictor.label_names,
        tuple(label_values),
        quantization_of(predictor.classifier),
        settings_of_quantized(predictor.classifier.model),
        tokenizer_fingerprint(base.tokenizer),
    )


def save_adapter(predictor: Predictor, folder: Path, *, settings: SavedSettings, card: str) -> None:
    """Write the adapter of a wrapped classifier, with head, tokenizer, label names and model card.

    Raises:
        StorageError: The folder cannot be written.
    """
    classifier = predictor.classifier
    with storing(f"adapter {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        own_save = METHODS[settings.method].save
        if own_save is not None:
            named = {"base_model_name_or_path": settings.base_public_name, "revision": settings.base_revision}
            own_save(classifier.model, folder, named)
        else:
            _save_peft(classifier.model, folder, settings)
        if classifier.head is not None:
            save_file(_tensors(classifier.head.state_dict()), folder / HEAD)
        _save_shared(predictor, folder, settings=settings, card=card)


def _save_peft(model: Any, folder: Path, settings: SavedSettings) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = settings.base_public_name
        config.revision = settings.base_revision
    with quiet_libraries():
        model.save_pretrained(str(folder), save_embedding_layers=False)


def save_model(predictor: Predictor, folder: Path, *, settings: SavedSettings, card: str) -> None:
    """Write a plain classifier (nothing wrapped) as a folder that other tools load without textlift.

    With native pooling it is a transformers folder; with mean pooling a sentence-transformers folder (Transformer,
    Pooling, Dense with the head and identity activation) whose `encode` gives the logits.

    Raises:
        StorageError: The folder cannot be written.
    """
    classifier = predictor.classifier
    with storing(f"model {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_libraries():
            classifier.model.save_pretrained(str(folder))
        if classifier.head is not None:
            _save_sentence_modules(classifier.head, folder, predictor.max_length)
        _save_shared(predictor, folder, settings=settings, card=card)


def read_settings(folder: Path) -> SavedSettings:
    """The settings of a saved variant, after every file it names was compared with its sha256.

    Raises:
        ModelError: textlift.json is missing, of another format, or a file is not the one that was written.
    """
    path = folder / SETTINGS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: must be a variant that textlift saved; {SETTINGS} cannot be read.") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(f"{path}: format_version must be {FORMAT_VERSION}; found {version!r}.")
    if values.pop("sha256", None) != _digest(values):
        raise ModelError(
            f"{path}: must be the file that textlift wrote; its own sha256 does not fit."
            "\nThe file was changed or damaged; train again or restore it."
        )
    settings, files = _settings(values, path)
    if DECISION not in files and (folder / DECISION).exists():
        raise ModelError(
            f"{folder / DECISION}: must be named by {SETTINGS}; it was put there by another hand.\nTake it out."
        )
    for name, digest in files.items():
        found = file_sha256(folder / name) if (folder / name).is_file() else "no file"
        if found != digest:
            raise ModelError(
                f"{folder / name}: must be the file that textlift wrote (sha256 {digest[:12]}...); found {found[:12]}."
                "\nThe file was changed or damaged; train again or restore it."
            )
    return settings


def _settings(values: dict[str, Any], path: Path) -> tuple[SavedSettings, dict[str, str]]:
    """What textlift.json says, and the sha256 of each file by name; anybody may have written it."""
    fields = {key: value for key, value in values.items() if key not in {"format_version", "files"}}
    try:
        names, label_values = tuple(fields["label_names"]), tuple(fields["label_values"])
        settings = SavedSettings(**{**fields, "label_names": names, "label_values": label_values})
        files = {str(name): str(digest) for name, digest in values["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: must say what this version of textlift reads; {error} does not fit.") from error
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names) or len(names) < 1:
        raise ModelError(f"{path}: label_names must be different strings; found {names!r:.80}.")
    if len(label_values) != len(names):
        raise ModelError(
            f"{path}: label_values must be one for each of the {len(names)} label_names; found {len(label_values)}."
        )
    outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ModelError(f"{path}: must name files of its own folder; found {outside[0]!r:.80}.")
    return settings, files


def _save_shared(predictor: Predictor, folder: Path, *, settings: SavedSettings, card: str) -> None:
    tokenizer: Any = predictor.tokenizer
    limit = tokenizer.model_max_length
    tokenizer.model_max_length = predictor.max_length  # so that a plain pipeline cuts where this one does
    try:
        tokenizer.save_pretrained(str(folder))
    finally:
        tokenizer.model_max_length = limit
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_decision(folder, predictor.decision, predictor.label_names)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SETTINGS)
    values = {
        "format_version": FORMAT_VERSION,
        **vars(settings),
        "files": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    }
    values["sha256"] = _digest(values)
    (folder / SETTINGS).write_text(json_text(values, indent=2) + "\n", encoding="utf-8")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _save_sentence_modules(head: torch.nn.Linear, folder: Path, max_length: int) -> None:
    """The files that sentence-transformers reads beside the Transformer at the root."""
    package = "sentence_transformers.models"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    described = [
        {"idx": index, "name": str(index), "path": path, "type": f"{package}.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    for path in ("1_Pooling", "2_Dense"):
        (folder / path).mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": head.in_features,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    dense = {
        "in_features": head.in_features,
        "out_features": head.out_features,
        "bias": head.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(folder / "modules.json", described)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "2_Dense" / "config.json", dense)
    save_file(
        {f"linear.{name}": tensor for name, tensor in _tensors(head.state_dict()).items()},
        folder / "2_Dense" / "model.safetensors",
    )


def _tensors(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
