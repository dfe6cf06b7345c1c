"""The error book of a run: what its best variant gets wrong, told in results.json and as files to relabel from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textlift.data.batching import token_counts
from textlift.data.findings import Cell
from textlift.data.label_errors import Doubted, doubted, told_doubt
from textlift.data.listing import shortened, write_table
from textlift.data.traits import classes, traits
from textlift.evaluation.calibration import applied_temperature, fit_temperature
from textlift.evaluation.error_book import Change, changed, confident_mistakes
from textlift.evaluation.metrics import softmax
from textlift.evaluation.occlusion import Explained, explain
from textlift.evaluation.slices import LEAST_ROWS, LEVEL, Slice, compare_slices
from textlift.evaluation.statistics import mcnemar_exact
from textlift.export.loading import load_variant
from textlift.inference import Predictor
from textlift.progress import Progress
from textlift.runs import RunDirectory
from textlift.workflow.features import kept_features, nearest_train_rows
from textlift.workflow.measuring import MEASURED, Measured
from textlift.workflow.preparation import Job
from textlift.workflow.results import best_variant

FOLDER = "error-book"
OF_THE_BASE = ("untrained", "probe")  # baselines of the same base model
_CHARACTERS = 600  # of a text in results.json
_MISTAKES, _CHANGED, _LABELS, _SLICES = 12, 6, 8, 12  # rows and slices in results.json; all of them are in the files

PLACE = ("split", "source", "row", "label")
SAID = ("prediction", "probability")
COLUMNS: Mapping[str, Sequence[str]] = {
    "mistakes.csv": (*PLACE, *SAID, "probability_of_label", "text"),
    "likely-wrong-labels.csv": (*PLACE, "new_label", *SAID, "probability_of_label", "doubt", "text"),
    "became-right.csv": (*PLACE, *SAID, "against", "prediction_before", "text"),
    "became-wrong.csv": (*PLACE, *SAID, "against", "prediction_before", "text"),
}
_SLICE_COLUMNS = (
    "slice", "rows", "right", "accuracy", "low", "high", "rest_accuracy", "class_accuracy", "p", "p_holm", "is_below",
    "same_as", "commonest_mistake",
)  # fmt: skip


@dataclass(frozen=True)
class _Case:
    """The best variant of a run with its probabilities, (N, C), of each measured split."""

    job: Job
    best: Measured
    probabilities: Mapping[str, np.ndarray]

    def row(self, split: str, place: int) -> dict[str, Any]:
        """A row as it stands in results.json."""
        rows, names = self.job.dataset.splits[split], self.job.dataset.label_names
        given, label = self.probabilities[split][place], int(self.job.labels[split][place])
        text = rows.texts[place]
        return {
            "split": split,
            "source": rows.sources[place],
            "row": rows.row_numbers[place],
            "label": names[label],
            "prediction": names[int(given.argmax())],
            "probability": round(float(given.max()), 6),
            "probability_of_label": round(float(given[label]), 6),
            "text": text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} ...",
        }

    def cells(self, split: str, place: int, **others: Cell) -> dict[str, Cell]:
        """The same for a file."""
        text = shortened(self.job.dataset.splits[split].texts[place])
        return {**self.row(split, place), "text": text, **others}


@dataclass(frozen=True)
class _Tried:
    """A slice, its commonest mistake in words, and the accuracy that its mix of classes alone would give."""

    slice: Slice
    mistake: str
    class_accuracy: float


def error_book(
    run: RunDirectory, job: Job, measured: Sequence[Measured], *, progress: Progress
) -> dict[str, Any] | None:
    """What the best variant gets wrong, as results.json has it (docs/error-book.md); its files are written to the run.

    It takes the predictions and features that the run has; one pass over the words of about 20 texts is added.

    Returns:
        None where no variant was tuned.

    Raises:
        CannotCreateError: A file cannot be written.
        TextliftError: The variant that the run saved cannot be loaded.
    """
    name = best_variant({one.name: one.record for one in measured})
    if name is None:
        return None
    best = next(one for one in measured if one.name == name)
    scale = applied_temperature(best.record)
    case = _Case(job, best, {split: softmax(best.logits[split] / scale) for split in MEASURED})
    mistakes = {split: confident_mistakes(job.labels[split], case.probabilities[split]).tolist() for split in MEASURED}
    changes = _changes(case, measured)
    slices = _slices(case)
    labels = {split: _doubted(case, split) for split in MEASURED}
    _write(run, case, mistakes=mistakes, changes=changes, slices=slices, labels=labels)
    first = next(iter(changes.values())).became_wrong.tolist()[:_CHANGED] if changes else []
    listed = list(dict.fromkeys([*mistakes["test"][:_MISTAKES], *first]))
    predictor = load_variant(_saved(run, name), job.runtime, base_name=str(job.base.folder.path))
    explained = _explained(case, predictor, listed)
    near, note = _nearest(run, case, listed)
    rows = {
        place: {**case.row("test", place), "words": explained[place], "nearest": near.get(place, [])}
        for place in listed
    }
    book = {
        "variant": name,
        "folder": FOLDER,
        "rows": {split: len(job.labels[split]) for split in MEASURED},
        "mistakes": {split: len(found) for split, found in mistakes.items()},
        "confident": [rows[place] for place in mistakes["test"][:_MISTAKES]],
        "nearest_by": note,
        "slices": _told_slices(case, slices),
        "label_errors": [_told_labels(case, split, found) for split, found in labels.items() if found is not None],
        "changes": [_told_change(case, against, change, rows=rows) for against, change in changes.items()],
    }
    progress.say(f"error book: {summary(book)}")
    return book


def summary(book: Mapping[str, Any]) -> str:
    """The error book in one sentence."""
    below = len([one for one in book["slices"]["shown"] if one["is_below"]])
    parts = [
        f"{book['variant']} is wrong on {book['mistakes']['test']:,} of {book['rows']['test']:,} test rows",
        f"{below} of {book['slices']['tried']:,} slices significantly below the rest" if below else "no slice is worse",
    ]
    for change in book["changes"][:1]:
        right, wrong = change["became_right"], change["became_wrong"]
        parts.append(f"against {change['against']} {right:,} rows became right and {wrong:,} wrong")
    return f"{'; '.join(parts)}; rows in {book['folder']}/"


def words_record(explained: Explained) -> dict[str, Any]:
    """What each part of a text carries, as JSON."""
    parts = zip(explained.parts, explained.weights, strict=True)
    return {
        "log_odds": round(explained.log_odds, 4),
        "parts": [[part, round(weight, 4)] for part, weight in parts],
        "unread": explained.unread,
    }


def explained_by(predictor: Predictor, texts: Sequence[str]) -> list[Explained]:
    """Which words carry what a predictor says of texts; of what it cuts off nothing is said."""

    def is_read_whole(text: str) -> bool:
        return int(token_counts(predictor.tokenizer, [text])[0]) <= predictor.max_length

    return explain(texts, predictor.exact_logits, is_read_whole=is_read_whole)


# ---- what is found


def _changes(case: _Case, measured: Sequence[Measured]) -> dict[str, Change]:
    """Against each baseline of the same base model, the one of the highest validation accuracy first."""
    baselines = [one for one in measured if one.name in OF_THE_BASE]
    baselines.sort(key=lambda one: -one.record["validation"]["accuracy"])
    labels, after = case.job.labels["test"], case.probabilities["test"]
    return {one.name: changed(labels, one.logits["test"], after) for one in baselines}


def _slices(case: _Case) -> list[_Tried]:
    """Every slice of test that was tried, the clearest first."""
    job, names = case.job, case.job.dataset.label_names
    labels, predicted = job.labels["test"], case.probabilities["test"].argmax(axis=1)
    parts = (
        traits(job.dataset.splits["test"].texts, token_lengths=job.tokens["test"].lengths)
        | classes(labels, names, kind="labelled")
        | classes(predicted, names, kind="predicted")
    )
    right = predicted == labels
    of_class = np.bincount(labels, weights=right, minlength=len(names)) / np.maximum(
        1, np.bincount(labels, minlength=len(names))
    )
    found = []
    for one in compare_slices(right, parts):
        mask = parts[one.kind, one.name]
        places = np.flatnonzero(mask & ~right)
        pairs = Counter(zip(labels[places].tolist(), predicted[places].tolist(), strict=True))
        (true, said), count = min(pairs.items(), key=lambda pair: (-pair[1], pair[0])) if pairs else ((0, 0), 0)
        mistake = f"{names[true]} taken for {names[said]}: {count}" if count else ""
        found.append(_Tried(one, mistake, float(of_class[labels[mask]].mean())))
    return found


def _doubted(case: _Case, split: str) -> Doubted | None:
    """Labels that the best variant doubts; its logits are first divided by the temperature that fits them best."""
    labels, logits = case.job.labels[split], case.best.logits[split]
    return doubted(labels, softmax(logits / fit_temperature(labels, logits)))


def _saved(run: RunDirectory, name: str) -> Any:
    folder = run.saved_folder(name)
    assert folder is not None, "a tuned variant is saved before it counts"
    return folder


def _explained(case: _Case, predictor: Predictor, places: Sequence[int]) -> dict[int, dict[str, Any]]:
    texts = case.job.dataset.splits["test"].texts
    found = explained_by(predictor, [texts[place] for place in places])
    return {place: words_record(one) for place, one in zip(places, found, strict=True)}


def _nearest(run: RunDirectory, case: _Case, places: Sequence[int]) -> tuple[dict[int, list[dict[str, object]]], str]:
    """The training rows nearest to test rows, and by what; nothing where the run made no frozen pass."""
    kept = kept_features(run)
    if kept is None:
        return {}, ""
    known = {place: row for place in places if (row := kept.of_test(place)) is not None}
    queries = np.stack(list(known.values())) if known else np.empty((0, 1))
    found = nearest_train_rows(kept, queries, case.job.dataset, most_characters=_CHARACTERS // 2)
    total, looked = len(case.job.labels["train"]), len(kept.rows["train"])
    sampled = "" if looked == total else f" of a sample of {looked:,} of {total:,} training rows"
    note = f"cosine of the features that the base model has before tuning{sampled}"
    return dict(zip(known, found, strict=True)), note


# ---- how it is told


def _told_slices(case: _Case, slices: Sequence[_Tried]) -> dict[str, Any]:
    distinct = [(tried.slice, tried) for tried in slices if not tried.slice.same_as]
    labels = case.job.labels["test"]
    return {
        "tried": len(slices),
        "least_rows": LEAST_ROWS,
        "level": LEVEL,
        "accuracy": float((case.probabilities["test"].argmax(axis=1) == labels).mean()),
        "below": sum(tried.slice.is_below for tried in slices),
        "shown": [
            {
                "slice": one.title,
                "rows": one.n,
                "right": one.right,
                "accuracy": one.accuracy,
                "low": one.low,
                "high": one.high,
                "rest_accuracy": one.rest_accuracy,
                "class_accuracy": tried.class_accuracy,
                "p": one.p_value,
                "p_holm": one.p_holm,
                "is_below": one.is_below,
                "commonest_mistake": tried.mistake,
            }
            for one, tried in distinct[:_SLICES]
        ],
    }


def _told_labels(case: _Case, split: str, found: Doubted) -> dict[str, Any]:
    return {
        "split": split,
        "sentence": told_doubt(split, found, judge=f"variant {case.best.name}"),
        "is_sign": found.limit is not None and not found.is_miscalibrated,
        "count": len(found.rows),
        "rows": [case.row(split, place) for place in found.rows.tolist()[:_LABELS]],
    }


def _told_change(case: _Case, against: str, change: Change, *, rows: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    right, wrong = change.became_right.tolist(), change.became_wrong.tolist()
    names, places = case.job.dataset.label_names, np.arange(len(case.job.labels["test"]))

    def told(place: int) -> dict[str, Any]:
        row = rows[place] if place in rows else case.row("test", place)
        return {**row, "prediction_before": names[change.before[place]]}

    return {
        "against": against,
        "became_right": len(right),
        "became_wrong": len(wrong),
        "p_value": mcnemar_exact(np.isin(places, right), np.isin(places, wrong)),
        "right": [told(place) for place in right[:_CHANGED]],
        "wrong": [told(place) for place in wrong[:_CHANGED]],
    }


def _write(
    run: RunDirectory,
    case: _Case,
    *,
    mistakes: Mapping[str, list[int]],
    changes: Mapping[str, Change],
    slices: Sequence[_Tried],
    labels: Mapping[str, Doubted | None],
) -> None:
    """The files of the error book; each has its columns also where it has no rows."""
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    rows: dict[str, Iterable[Mapping[str, Cell]]] = {
        "mistakes.csv": (case.cells(split, place) for split in reversed(MEASURED) for place in mistakes[split]),
        "likely-wrong-labels.csv": _label_cells(case, labels),
        "became-right.csv": _change_cells(case, changes, "became_right"),
        "became-wrong.csv": _change_cells(case, changes, "became_wrong"),
    }
    for name, columns in COLUMNS.items():
        chosen = ({column: row[column] for column in columns} for row in rows[name])
        write_table(folder / name, columns, chosen)
    write_table(folder / "slices.csv", _SLICE_COLUMNS, (_slice_cells(one) for one in slices))


def _label_cells(case: _Case, labels: Mapping[str, Doubted | None]) -> Iterable[Mapping[str, Cell]]:
    for split in reversed(MEASURED):
        found = labels[split]
        for place in () if found is None else found.rows.tolist():
            doubt = "within chance" if found is None or found.limit is None else "beyond chance"
            yield case.cells(split, place, new_label="", doubt=doubt)


def _change_cells(case: _Case, changes: Mapping[str, Change], kind: str) -> Iterable[Mapping[str, Cell]]:
    """Rows that changed against the strongest baseline; of the others the counts are told."""
    names = case.job.dataset.label_names
    for against, change in list(changes.items())[:1]:
        for place in getattr(change, kind).tolist():
            yield case.cells("test", place, against=against, prediction_before=names[change.before[place]])


def _slice_cells(tried: _Tried) -> Mapping[str, Cell]:
    one = tried.slice
    return {
        "slice": one.title,
        "rows": one.n,
        "right": one.right,
        "accuracy": round(one.accuracy, 4),
        "low": round(one.low, 4),
        "high": round(one.high, 4),
        "rest_accuracy": round(one.rest_accuracy, 4),
        "class_accuracy": round(tried.class_accuracy, 4),
        "p": float(f"{one.p_value:.3g}"),
        "p_holm": float(f"{one.p_holm:.3g}"),
        "is_below": str(one.is_below).lower(),
        "same_as": one.same_as,
        "commonest_mistake": tried.mistake,
    }
