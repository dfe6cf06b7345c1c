"""A saved variant held against what it shall work with: base weights, tokenizer, label names; both sides are told.

Knows what textlift.json says and what lies beside it. That each file is the one that was written, `saving` sees to.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from textlift.errors import ModelError
from textlift.export.fingerprint import tokenizer_fingerprint
from textlift.export.saving import ADAPTER_WEIGHTS, HEAD, SETTINGS, SavedSettings
from textlift.models.classifier import Classifier
from textlift.models.loading import BaseModel

_ADVICE = "\nUse the same base model and revision."


def require_same_base(settings: SavedSettings, base: BaseModel, folder: Path) -> None:
    """Refuse a base model of other weights than those the adapter was trained on.

    Raises:
        ModelError: The sha256 of a file of weights differs.
    """
    trained, found = settings.base_sha256, base.folder.sha256
    if trained != found:
        raise ModelError(
            f"{folder}: the base model must be {settings.base_name} with weights {_short(trained)}, on which the "
            f"adapter was trained; found {base.folder.name} with {_short(found)}.{_ADVICE}"
        )


def require_same_tokenizer(settings: SavedSettings, base: BaseModel, folder: Path) -> None:
    """Refuse a tokenizer that reads texts otherwise than the one that the variant was trained with.

    Raises:
        ModelError: The fingerprints differ; where none was recorded, nothing is compared.
    """
    if settings.tokenizer_sha256 is None:
        return
    found = tokenizer_fingerprint(base.tokenizer)
    if found == settings.tokenizer_sha256:
        return
    trained = f"fingerprint {settings.tokenizer_sha256[:12]}"
    if settings.kind == "adapter":
        raise ModelError(
            f"{folder}: the tokenizer must be that of {settings.base_name} ({trained}), with which the adapter was "
            f"trained; found that of {base.folder.name} ({found[:12]}).{_ADVICE}"
        )
    from transformers import __version__

    raise ModelError(
        f"{folder}: the tokenizer must read texts as when the model was trained ({trained}); found {found[:12]}, as "
        f"transformers {__version__} reads its files.\nUse the version of transformers that the model was saved with."
    )


def require_same_labels(settings: SavedSettings, folder: Path) -> None:
    """Refuse a model folder whose own configuration has other labels than textlift.json.

    Raises:
        ModelError: They differ in number, name or order.
    """
    names = settings.label_names
    if settings.pooling == "mean":
        rows = _json(folder / "2_Dense" / "config.json").get("out_features")
        if rows != len(names):
            raise _other_labels(folder / "2_Dense" / "config.json", names, f"{rows} outputs")
        return
    by_id = _json(folder / "config.json").get("id2label")
    told = [str(by_id[key]) for key in sorted(by_id, key=int)] if isinstance(by_id, dict) else []
    if len(told) != len(names):
        raise _other_labels(folder / "config.json", names, _listed(told))
    for number, (ours, theirs) in enumerate(zip(names, told, strict=True)):
        if ours != theirs:
            raise ModelError(
                f"{folder}: {SETTINGS} and config.json must name the same labels in the same order; label {number} is "
                f"{_quoted(ours)} in {SETTINGS}, {_quoted(theirs)} in config.json.\nRestore the folder, or train again."
            )


def require_same_head(settings: SavedSettings, classifier: Classifier, folder: Path) -> None:
    """Refuse an adapter whose head does not have one row for each label name.

    Raises:
        ModelError: It has more or fewer, or the classifier has other classes.
    """
    names = settings.label_names
    if classifier.n_classes != len(names):
        raise _other_labels(folder, names, f"a classifier of {classifier.n_classes} classes")
    mean = classifier.head is not None
    path, ending = (
        (folder / HEAD, "weight") if mean else (folder / ADAPTER_WEIGHTS, f"{classifier.family.final_linear}.weight")
    )
    for rows in _head_rows(path, f".{ending}"):
        if rows != len(names):
            raise _other_labels(path, names, f"a head of {rows} rows")


def _head_rows(path: Path, ending: str) -> list[int]:
    """Rows of the tensors whose name ends so; none where the file cannot be read, which loading it tells better."""
    try:
        with safe_open(path, framework="pt") as file:
            return [int(file.get_slice(name).get_shape()[0]) for name in file.keys() if f".{name}".endswith(ending)]  # noqa: SIM118
    except Exception:  # noqa: BLE001 - safetensors raises its own kinds
        return []


def _other_labels(path: Path, names: Sequence[str], found: str) -> ModelError:
    return ModelError(
        f"{path}: must fit the {len(names)} label names of {SETTINGS} ({_listed(names)}); found {found}."
        "\nRestore the folder, or train again."
    )


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = ", ..." if len(names) > most else ""
    return (", ".join(_quoted(name) for name in names[:most]) + more) or "no label names"


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: must be JSON that textlift wrote; it cannot be read.") from error
    return values if isinstance(values, dict) else {}


def _short(hashes: dict[str, str]) -> str:
    return ", ".join(sorted(digest[:12] for digest in hashes.values()))
