"""Results and histories of a made-up run, computed from a seed, in the shape of results.json."""

import random
from typing import Any

from textlift.evaluation.soundness import soundness

EMOTIONS = ["sadness", "joy", "love", "anger", "fear", "surprise"]

# Name, kind, accuracy, trained and total parameters, seconds of training, samples per second.
VARIANTS = [
    ("majority", "baseline", 0.0, 0, 0, None, 250_000.0),
    ("tfidf", "baseline", 0.872, 83_412, 83_412, 3.4, 41_000.0),
    ("untrained", "baseline", 0.16, 0, 22_715_526, None, 412.3),
    ("probe", "baseline", 0.638, 2_310, 22_715_526, 41.0, 410.1),
    ("lora", "tuned", 0.931, 445_446, 23_158_662, 372.4, 388.6),
    ("full", "tuned", 0.926, 22_715_526, 22_715_526, 901.2, 411.9),
    ("merged", "merged", 0.931, 445_446, 22_715_526, None, 413.0),
]

TEXTS = [
    "i didn t feel humiliated",
    "i can go from feeling so hopeless to so damned hopeful just from being around someone who cares and is awake",
    "im grabbing a minute to post i feel greedy wrong",
    "i am ever feeling nostalgic about the fireplace i will know that it is still on the property",
    "لا أستطيع أن أصدق كم أنا سعيد اليوم",
    "今日は本当に疲れたけれど、友達に会えて嬉しかった。",
]


def make_scores(accuracy: float, n_classes: int, *, n: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Scores of a classifier with about this accuracy, consistent with the confusion matrix in them."""
    draw = random.Random(seed)
    confusion = [[0] * n_classes for _ in range(n_classes)]
    weights = [1 / (1 + 0.6 * label) for label in range(n_classes)]
    for true in draw.choices(range(n_classes), weights, k=n):
        is_right = draw.random() < accuracy
        guess = true if is_right else 0 if not accuracy else min(int(draw.expovariate(0.4)), n_classes - 1)
        confusion[true][guess] += 1
    per_class = [_class_scores(confusion, label) for label in range(n_classes)]
    right = sum(confusion[label][label] for label in range(n_classes)) / n
    scores: dict[str, Any] = {"n": n, "log_loss": 2.0 - 1.8 * right, "per_class": per_class, "confusion": confusion}
    for metric in ("precision", "recall", "f1"):
        scores[f"{metric}_macro"] = sum(row[metric] for row in per_class) / n_classes
        scores[f"{metric}_weighted"] = sum(row[metric] * row["support"] for row in per_class) / n
    scores["accuracy"] = right
    for name in [name for name, value in scores.items() if isinstance(value, float)]:
        scores[f"{name}_low"], scores[f"{name}_high"] = scores[name] - 0.011, scores[name] + 0.012
    return scores


def _class_scores(confusion: list[list[int]], label: int) -> dict[str, Any]:
    hits, support = confusion[label][label], sum(confusion[label])
    predicted = sum(row[label] for row in confusion)
    return {
        "label_id": label,
        "precision": hits / (predicted or 1),
        "recall": hits / (support or 1),
        "f1": 2 * hits / ((support + predicted) or 1),
        "support": support,
    }


def make_results(label_names: list[str] | None = None, *, variants: int = 7) -> dict[str, Any]:
    """Complete results; label_names may be of any number, variants are the first so many plus lora."""
    labels = EMOTIONS if label_names is None else label_names
    chosen = [row for index, row in enumerate(VARIANTS) if index < variants or row[0] == "lora"]
    shown = {name: _variant(row, len(labels)) for row in chosen for name in [row[0]]}
    gap = shown["lora"]["test"]["accuracy"] - make_scores(0.872, len(labels), seed=2)["accuracy"]
    low, high = 100 * (gap - 0.013), 100 * (gap + 0.012)
    return {
        "format_version": 1,
        "name": "emotion",
        "description": "Which of six emotions a short English message tells of.",
        "created": "2026-05-12T14:03:20.481516+00:00",
        "command": "textlift run emotion --seed 0",
        "status": "complete",
        "task": {
            "label_names": labels,
            "rows": {"train": 16_000, "validation": 2_000, "test": 2_000},
            "text_column": "text",
            "label_column": "label",
            "sources": ["train.csv", "validation.csv", "test.csv"],
            "reasons": ["The text column is 'text': the only one with more than one word per cell."],
        },
        "model": {
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "revision": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            "family": "bert",
            "pooling": "mean",
            "max_length": 256,
            "total_parameters": 22_715_526,
            "reasons": ["Pooling is mean: the base model says that it is a sentence embedder."],
        },
        "variants": shown,
        "comparisons": [_comparison(a, b, shown) for a in shown for b in shown if a < b],
        "verdict": f"lora lifts accuracy over tfidf by {100 * gap:.1f} points ({low:.1f} to {high:.1f}).",
        "checks": _findings(),
        "soundness": soundness(_findings()),
        "without_leaks": {
            "left_out": 11,
            "n": 1989,
            "accuracy": dict.fromkeys(shown, 0.9),
            "accuracy_low": dict.fromkeys(shown, 0.89),
            "accuracy_high": dict.fromkeys(shown, 0.91),
        },
        "ledger": make_ledger(),
        "examples": _examples(labels),
        "error_book": _error_book(labels),
        "recipe": {"seed": 0, "model": {"name": "embedded", "pooling": "mean"}, "method": {"name": "lora", "rank": 16}},
        "environment": {"python": "3.12.3", "torch": "2.6.0", "threads": 2, "processors": ["x86_64", "AVX2"]},
    }


def _variant(row: tuple[Any, ...], n_classes: int) -> dict[str, Any]:
    name, kind, accuracy, trained, total, seconds, speed = row
    variant = {
        "kind": kind,
        "method": name,
        "description": f"What {name} does, in one sentence of ordinary length for a table like this.",
        "validation": make_scores(accuracy, n_classes, seed=1),
        "test": make_scores(accuracy, n_classes, seed=2),
        "trained_parameters": trained,
        "total_parameters": total,
        "train_seconds": seconds,
        "useful_tokens_per_second": 11_842.0 if kind == "tuned" else None,
        "peak_memory_bytes": 1_310_000_000 if kind == "tuned" else None,
        "samples_per_second": speed,
        "settings": {"rank": 16},
    }
    if name == "lora":
        variant["seeds"] = {"values": [0, 1, 2], "test": make_spread(accuracy), "validation": make_spread(accuracy)}
    if kind == "tuned":
        variant |= decision_records(n_classes)
    return {**variant, "largest_logit_difference": 3.1e-06} if kind == "merged" else variant


def decision_records(n_classes: int) -> dict[str, Any]:
    """Calibration, prior correction and decision of a tuned variant."""
    errors = {"ece_before": 0.062, "ece_after": 0.019, "ece_by_chance": 0.016}
    bins = [{"low": k / 15, "high": (k + 1) / 15, "rows": 40 * k, "confidence": (k + 0.5) / 15, "accuracy": k / 18}
            for k in range(3, 15)]  # fmt: skip
    shares = [1 / n_classes] * n_classes
    gain = {"priors": shares, "accuracy_before": 0.931, "accuracy_after": 0.942, "difference": 0.011, "low": 0.004,
            "high": 0.018, "p_value": 0.002, "n": 2000, "changed": 40}  # fmt: skip
    stored = {"format_version": 1, "temperature": 1.41, "bias": None, "trained_priors": None, "priors": None,
              "costs": None, "thresholds": [0.7, *[None] * (n_classes - 1)], "least_confidence": 0.6}  # fmt: skip
    outcome = {"n": 2000, "coverage": 0.91, "accuracy_answered": 0.96, "accuracy": 0.93, "ece": 0.019}
    return {
        "calibration": {"temperature": 1.41, "bins": 15, "applied": True, "validation": errors, "test": errors,
                        "reliability": {"before": bins, "after": bins[2:]}},
        "prior_correction": {"train_priors": shares, "effect": 0.41, "p_value": 1e-5, "is_noticeable": True,
                             "is_applied": False, "estimated": gain, "known": gain},
        "decision": {"stored": stored, "validation": outcome, "test": outcome, "chosen": [
            {"kind": "precision", "label_id": 0, "wanted": 0.9, "threshold": 0.7, "on_validation": 0.9,
             "is_reached": True},
            {"kind": "accuracy", "wanted": 0.99, "threshold": 0.6, "on_validation": 0.97, "is_reached": False}]},
        "coverage_curve": {"area": 0.98, "points": [
            {"coverage": k / 50, "accuracy": 1 - 0.07 * (k / 50) ** 2, "confidence": 1 - k / 100}
            for k in range(1, 51)]},
    }  # fmt: skip


def make_spread(accuracy: float) -> dict[str, Any]:
    """Scores of three seeds around an accuracy."""
    values = [accuracy - 0.004, accuracy, accuracy + 0.004]
    spread = {"values": values, "mean": accuracy, "sd": 0.004, "low": values[0], "high": values[-1]}
    return {"accuracy": spread, "f1_macro": spread, "agreement": 0.951, "pairwise_agreement": 0.967}


def make_ledger(*, recipes: int = 2) -> dict[str, Any]:
    """Three openings of the test rows, one of them by another run."""
    entry = {"time": "2026-05-12T14:03:20+00:00", "what": "run", "rows": "5f3c", "n": 2_000, "recipe": "ab12",
             "command": "textlift run emotion --seed 0"}  # fmt: skip
    return {"rows": "5f3c", "openings": 3, "recipes": recipes, "entries": [entry, {**entry, "what": "evaluate lora"}],
            "beside": [{"run": "emotion-2", "openings": 1}]}  # fmt: skip


def _comparison(a: str, b: str, variants: dict[str, Any]) -> dict[str, Any]:
    gap = variants[a]["test"]["accuracy"] - variants[b]["test"]["accuracy"]
    low, high, p_value = gap - 0.013, gap + 0.012, 0.0 if abs(gap) > 0.02 else 0.41
    return {"a": a, "b": b, "metric": "accuracy", "difference": gap, "low": low, "high": high, "p_value": p_value,
            "n": 2000}  # fmt: skip


def _findings() -> list[dict[str, Any]]:
    return [
        {"code": "leak_train_test", "severity": "warning", "message": "11 texts of test stand in train too.",
         "split": "test", "count": 11, "rows": [4, 18, 77, 204, 310, 311, 498, 1002, 1500],
         "details": {"share": 0.0055, "other_label": 3}, "why": "Memory is no skill.", "advice": "Take them out.",
         "against_scores": True, "file": "findings/leak_train_test.csv"},
        {"code": "duplicate", "severity": "info", "message": "31 texts of train stand there more than once.",
         "split": "train", "count": 31, "rows": [12, 90]},
        {"code": "sorted", "severity": "error", "message": "The rows are sorted by label.", "split": None, "count": 1,
         "rows": []},
    ]  # fmt: skip


def _examples(labels: list[str]) -> dict[str, Any]:
    def example(row: int, *, is_right: bool) -> dict[str, Any]:
        label = labels[row % len(labels)]
        prediction = label if is_right else labels[(row + 1) % len(labels)]
        return {"text": TEXTS[row % len(TEXTS)], "label": label, "prediction": prediction,
                "probability": 0.991 - 0.07 * row, "source": "test.csv", "row": 17 * row + 2}  # fmt: skip

    return {
        "variant": "lora",
        "right": [example(row, is_right=True) for row in range(3)],
        "wrong": [example(row, is_right=False) for row in range(2, 6)],
        "confident_wrong": [example(row, is_right=False) for row in range(2)],
    }


def _error_book(labels: list[str]) -> dict[str, Any]:
    def row(number: int) -> dict[str, Any]:
        found = _examples(labels)["confident_wrong"][0]
        parts = [["i ", 0.1], ["feel ", -0.8], ["greedy ", 2.5], ["wrong", 0.4]]
        near = {"source": "train.csv", "row": 7, "label": labels[0], "text": TEXTS[4], "similarity": 0.83}
        words = {"log_odds": 3.1, "parts": parts, "unread": 3 * number}
        return {
            **found,
            "split": "test",
            "row": number,
            "probability_of_label": 0.01,
            "words": words,
            "nearest": [near],
        }

    def part(name: str, *, is_below: bool) -> dict[str, Any]:
        return {"slice": name, "rows": 120, "right": 81, "accuracy": 0.675, "low": 0.58, "high": 0.76,
                "rest_accuracy": 0.94, "class_accuracy": 0.9, "p": 1e-9, "p_holm": 1e-7 if is_below else 0.8,
                "is_below": is_below, "commonest_mistake": f"{labels[0]} taken for {labels[-1]}: 20"}  # fmt: skip

    doubt = {"split": "test", "sentence": "12 labels of test have a probability of at most 0.01, where 2 are expected.",
             "is_sign": True, "count": 12, "rows": [row(1), row(2)]}  # fmt: skip
    change = {"against": "probe", "became_right": 590, "became_wrong": 12, "p_value": 0.0,
              "right": [row(3)], "wrong": [{**row(4), "prediction_before": labels[0]}]}  # fmt: skip
    return {
        "variant": "lora",
        "folder": "error-book",
        "rows": {"validation": 2000, "test": 2000},
        "mistakes": {"validation": 130, "test": 138},
        "confident": [row(number) for number in range(6)],
        "nearest_by": "cosine of the features that the base model has before tuning",
        "slices": {"tried": 214, "least_rows": 20, "level": 0.05, "accuracy": 0.931, "below": 3,
                   "shown": [part("with a hashtag", is_below=True), part("word love", is_below=False)]},
        "label_errors": [doubt],
        "changes": [change, {**change, "against": "untrained", "right": [], "wrong": []}],
    }  # fmt: skip


def make_histories(names: tuple[str, ...] = ("lora", "full"), *, steps: int = 400) -> dict[str, list[dict[str, Any]]]:
    """Training steps with a falling noisy loss and a validation every 50 steps, per variant."""
    histories: dict[str, list[dict[str, Any]]] = {}
    for seed, name in enumerate(names):
        draw = random.Random(seed)
        history: list[dict[str, Any]] = []
        for step in range(1, steps + 1):
            loss = 0.15 + (1.5 + 0.2 * seed) * 0.985**step + 0.08 * draw.random()
            epoch = 2 * step / steps
            history.append({"step": step, "epoch": epoch, "train_loss": loss, "learning_rate": 2e-4})
            if step % 50 == 0:
                accuracy = 0.93 - 0.3 * 0.99**step - 0.01 * seed + 0.005 * draw.random()
                validation = {"accuracy": accuracy, "f1_macro": accuracy - 0.04, "log_loss": 1 - accuracy}
                history.append({"step": step, "epoch": epoch, "validation": validation})
        histories[name] = history
    return histories


HARMLESS = "plain"

# Values by which the report decides what to show; everything else in results.json is somebody's text.
_OURS = {"kind", "level", "metric", "severity", "status"}
_NAMED_BY_USERS = {"variants", "recipe", "environment", "model_settings"}
_BY_VARIANT = {("without_leaks", name) for name in ("accuracy", "accuracy_low", "accuracy_high")}


def with_foreign_text(value: Any, text: str, *, key: str = "", parent: str = "") -> Any:
    """The same results or histories with text put before every string, and every key, that others may choose."""
    if isinstance(value, str):
        return value if key in _OURS else f"{text}{value}"
    if isinstance(value, list):
        return [with_foreign_text(item, text, key=key) for item in value]
    if isinstance(value, dict):
        is_named = key in _NAMED_BY_USERS or (parent, key) in _BY_VARIANT
        renamed = {f"{text}{name}" if is_named else name: name for name in value}
        return {shown: with_foreign_text(value[name], text, key=name, parent=key) for shown, name in renamed.items()}
    return value
