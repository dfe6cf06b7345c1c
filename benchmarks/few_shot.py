"""Few labelled texts of each class: textlift against SetFit, seconds of training and accuracy on the test rows.

    python benchmarks/few_shot.py RECIPE --data FOLDER [--shots 8,16] [--rounds 5] [--limit 1000] [--json OUT]

Both tune the embedded all-MiniLM-L6-v2 on the same few rows of train, drawn for each round, and are scored on the same
test rows. SetFit (pip install setfit) has its defaults: contrastive pairs, one epoch, then logistic regression.
textlift has its defaults but for the epochs: with so few rows two of them are a handful of steps; then also pairs in
the loss, and no rows set apart for validation. Told too is by how much each is over SetFit, draw by draw. Loading the
model is in textlift's time alone. Sides take turns.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textlift import TextClassifier
from textlift.data import prepare_splits, read_dataset
from textlift.models.loading import open_base
from textlift.runtime import choose_runtime, environment
from textlift.workflow.planning import Request, resolve

PAIRS = {"validation_size": 0, "batch_size": 64, "contrastive_weight": 4.0}
OURS: dict[str, dict[str, Any]] = {"textlift": {}, "textlift, pairs": PAIRS}

Rows = tuple[list[str], np.ndarray]


def of_textlift(train: Rows, test: Rows, *, epochs: int, seed: int, settings: dict[str, Any]) -> tuple[float, float]:
    """Seconds of fit, and accuracy."""
    model = TextClassifier(epochs=epochs, random_state=seed, **settings)
    began = time.perf_counter()
    model.fit(*train)
    seconds = time.perf_counter() - began
    return seconds, float((model.predict(test[0]) == test[1]).mean())


def of_setfit(train: Rows, test: Rows, *, seed: int) -> tuple[float, float]:
    """Seconds of training, and accuracy."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(str(open_base("embedded").folder.path))
    rows = Dataset.from_dict({"text": train[0], "label": train[1].tolist()})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, seed=seed, report_to="none", save_strategy="no", show_progress_bar=False)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    return seconds, float((np.asarray(model.predict(test[0])) == test[1]).mean())


def drawn(texts: list[str], labels: np.ndarray, shots: int, *, seed: int) -> Rows:
    """So many rows of each class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [row for label in np.unique(labels) for row in order[labels[order] == label][:shots]]
    return [texts[row] for row in chosen], labels[chosen]


def spread_of(shares: Sequence[float]) -> str:
    """Least to most, in percent."""
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--shots", default="8,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="of textlift")
    parser.add_argument("--limit", type=int, default=1000, help="test rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runtime = choose_runtime(device="cpu")
    recipe = resolve(Request(options.recipe, data=[options.data], model="embedded", values={"data.allow_leak": True}))
    dataset = prepare_splits(read_dataset(recipe.data), recipe.data, seed=0)
    test_texts, test_labels = dataset.splits["test"].texts, dataset.label_ids("test")
    kept = np.random.default_rng(0).permutation(len(test_labels))[: options.limit]
    test = ([test_texts[row] for row in kept], test_labels[kept])
    found: dict[str, list[dict[str, Any]]] = {}
    print("| texts of each class | side | seconds | accuracy, median | over SetFit, draw by draw, mean |")
    print("|---:|---|---:|---:|---:|")
    for shots in (int(shots) for shots in options.shots.split(",")):
        trials: dict[str, list[tuple[float, float]]] = {side: [] for side in (*OURS, "SetFit")}
        for seed in range(options.rounds):
            train = drawn(dataset.splits["train"].texts, dataset.label_ids("train"), shots, seed=seed)
            for side, settings in OURS.items():
                trials[side].append(of_textlift(train, test, epochs=options.epochs, seed=seed, settings=settings))
            trials["SetFit"].append(of_setfit(train, test, seed=seed))
        for side, results in trials.items():
            seconds, scores = (statistics.median(column) for column in zip(*results, strict=True))
            spread = spread_of([score for _, score in results])
            gains = [score - peer for (_, score), (_, peer) in zip(results, trials["SetFit"], strict=True)]
            over = "" if side == "SetFit" else f"{100 * statistics.mean(gains):+.1f} ({spread_of(gains)})"
            print(f"| {shots} | {side} | {seconds:.0f} | {100 * scores:.1f} ({spread}) | {over} |", flush=True)
            found[f"{side}, {shots}"] = [{"seconds": one, "accuracy": score} for one, score in results]
    if options.json:
        options.json.write_text(json.dumps({"found": found, "environment": environment(runtime)}, indent=2))


if __name__ == "__main__":
    main()
