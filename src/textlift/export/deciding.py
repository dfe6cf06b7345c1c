"""decision.json: how the logits of a saved variant become answers, beside its weights.

Says which label is at which place, so that a file of other labels is refused. Folders saved before there were decisions
have none, and none is as good as the one that changes nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from textlift.errors import ModelError
from textlift.escaping import json_text
from textlift.evaluation.decisions import Decision

DECISION = "decision.json"
_MOST_BYTES = 50_000_000  # costs of a thousand classes are 20 MB


def write_decision(folder: Path, decision: Decision, label_names: Sequence[str]) -> None:
    """Write the decision into the folder of a saved variant."""
    values = {"label_names": list(label_names), **decision.to_dict()}
    (folder / DECISION).write_text(json_text(values, indent=2) + "\n", encoding="utf-8")


def read_decision(folder: Path, label_names: Sequence[str]) -> Decision:
    """The decision of a saved variant; the one that changes nothing where none was saved.

    Raises:
        ModelError: It cannot be read, is for other labels, or holds a value out of range.
    """
    path = folder / DECISION
    if not path.exists():
        return Decision()
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{path}: must be a decision that textlift wrote; it is too large for one.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: must be JSON that textlift wrote; it cannot be read.") from error
    names = values.pop("label_names", None) if isinstance(values, dict) else None
    if names != list(label_names):
        raise ModelError(
            f"{path}: must be for the {len(label_names)} labels of the variant, in their order; found others."
            "\nRestore the folder, or train again."
        )
    try:
        decision = Decision.from_dict(values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}\nRestore the folder, or train again.") from error
    if decision.n_classes not in {None, len(label_names)}:
        raise ModelError(f"{path}: must be for {len(label_names)} classes; it is for {decision.n_classes}.")
    return decision


def require_same_decision(folder: Path, decision: Decision, label_names: Sequence[str]) -> None:
    """Refuse a folder whose decision, read back, is not the one that was to be saved.

    Raises:
        ModelError: It is another one.
    """
    if read_decision(folder, label_names) != decision:
        raise ModelError(f"{folder / DECISION}: must be the decision of the variant; read back it is another one.")
