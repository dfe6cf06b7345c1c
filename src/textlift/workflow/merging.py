"""What folding an adapter into its base costs where the base was quantized, and when the merged model is refused.

The adapter was trained on weights that were rounded to few bits; in full precision it meets others, and some answers
turn out otherwise, for better or worse. Within the run the two are compared on validation, never on test.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from textlift.errors import ModelError, TextliftError
from textlift.inference import Predictor
from textlift.progress import Progress
from textlift.recipe import read_recipe
from textlift.runs import RunDirectory
from textlift.workflow.measuring import restore
from textlift.workflow.preparation import read_and_check, split_digest

TOLERANCE = 0.01  # of accuracy on validation


@dataclass(frozen=True)
class MergeCost:
    """A merged model beside the quantized variant that it was made from, on the validation rows.

    Args:
        accuracy_before: Of the quantized variant.
        accuracy_after: Of the merged model.
        changed: Rows that get another answer.
        rows: N.
        largest_logit_difference: Over all rows and classes.
    """

    accuracy_before: float
    accuracy_after: float
    changed: int
    rows: int
    largest_logit_difference: float

    @property
    def is_too_high(self) -> bool:
        """Whether more accuracy is lost than the tolerance allows."""
        return self.accuracy_before - self.accuracy_after > TOLERANCE + 1e-9  # shares of rows are not exact

    def __str__(self) -> str:
        return (
            f"{self.accuracy_before:.2%} of validation became {self.accuracy_after:.2%}, {self.changed:,} of "
            f"{self.rows:,} answers differ, logits by at most {self.largest_logit_difference:.2g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the record of a variant."""
        return asdict(self)


def merge_cost(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> MergeCost:
    """The cost, from label ids (N,) and the logits (N, C) of the quantized variant and of the merged model."""
    old, new = before.argmax(axis=1), after.argmax(axis=1)
    return MergeCost(
        float((old == labels).mean()),
        float((new == labels).mean()),
        int((old != new).sum()),
        len(labels),
        float(np.abs(after - before).max()),
    )


def cost_in_run(run: RunDirectory, name: str, predictor: Predictor) -> MergeCost:
    """The cost of a merged model on the validation rows of a finished run, which are read again.

    Args:
        run: Holds the logits of the quantized variant.
        name: Of that variant.
        predictor: The merged model.

    Raises:
        ModelError: The rows cannot be had, or are not those of the run.
    """
    stored = restore(run, name)
    wanted = run.read("results.json")["task"]["test_fingerprint"]
    problem = ""
    try:
        dataset, _ = read_and_check(read_recipe(str(run.path / "recipe.yaml")), Progress(silent=True))
        problem = "" if split_digest(dataset, "test") == wanted else "they have changed"
    except TextliftError as error:
        problem = str(error).splitlines()[0].rstrip(".")
    if problem or stored is None:
        raise ModelError(
            f"{run.path}: a merged model of {name}, whose base was quantized, must be measured on the run's rows; "
            f"{problem or 'its logits are not there'}.\nBring them back, or pass --force to go without."
        )
    rows = dataset.splits["validation"].texts
    after = predictor.forward(predictor.tokenize(rows)).logits
    return merge_cost(dataset.label_ids("validation"), stored.logits["validation"], after)


def cost_warning(name: str, origin: str, cost: MergeCost, *, force: bool) -> str | None:
    """A sentence where the merged model is too much worse than the variant that it came from, else None."""
    if not cost.is_too_high:
        return None
    use = "kept for use because force says so" if force else "not handed out"
    return f"{name} is worse than {origin} ({cost}) and is {use}."


def require_usable(name: str, record: Mapping[str, Any], *, advice: str) -> None:
    """Refuse a merged variant that its run measured as too much worse than the one it came from.

    Args:
        name: Of the variant.
        record: Of results.json.
        advice: What to do to have it all the same.

    Raises:
        ModelError: It is, and the recipe did not force it.
    """
    if record.get("merge_cost") is not None and not record.get("forced"):
        _require_low(name, str(record["merged_from"]), MergeCost(**record["merge_cost"]), advice=advice)


def require_low_cost(run: RunDirectory | None, name: str | None, predictor: Predictor, *, path: str) -> MergeCost:
    """The cost of a merged model of a quantized variant, as its run measured it or as it is measured now.

    Args:
        run: Of the variant; None for a folder outside a run.
        name: Of the variant in it, merged or not.
        predictor: The merged model.
        path: As typed.

    Raises:
        ModelError: It is too high and the recipe did not force it, or it cannot be measured.
    """
    if run is None or name is None:
        raise ModelError(
            f"{path}: a merged model of a variant whose base was quantized must be measured on the rows of its run; "
            "this folder is outside one.\nName RUN/variant, or pass --force to go without."
        )
    variants = run.read("results.json")["variants"]
    origin = variants[name].get("merged_from", name)
    merged = (one for one in variants.values() if one.get("merged_from") == origin and one.get("merge_cost"))
    measured = next(merged, None)
    if measured is not None:
        require_usable(path, measured, advice="pass --force")
        return MergeCost(**measured["merge_cost"])
    cost = cost_in_run(run, origin, predictor)
    _require_low(path, origin, cost, advice="pass --force")
    return cost


def _require_low(name: str, origin: str, cost: MergeCost, *, advice: str) -> None:
    if cost.is_too_high:
        raise ModelError(
            f"{name}: folding the adapter of {origin} into the base in full precision must cost at most "
            f"{100 * TOLERANCE:g} point of accuracy; {cost}.\nUse {origin} itself, or {advice}."
        )
