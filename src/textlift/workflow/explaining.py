"""`textlift explain`: which words carried a prediction, and which training rows are near to a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from textlift.data import Dataset, prepare_splits, read_dataset
from textlift.errors import TextliftError
from textlift.evaluation.error_book import unit_rows
from textlift.inference import Predictor
from textlift.models.loading import build_classifier, open_base
from textlift.recipe import Recipe, read_recipe
from textlift.runs import RunDirectory, find_variant
from textlift.workflow.error_book import explained_by, words_record
from textlift.workflow.features import kept_features, nearest_train_rows
from textlift.workflow.verbs import load

_CHARACTERS = 300  # of a training row


def explain_texts(path: str, texts: Sequence[str], *, device: str = "auto") -> list[dict[str, Any]]:
    """What a saved variant says of texts and why.

    Args:
        path: RUN, RUN/variant, or an exported folder.
        texts: N of them.
        device: As `load`.

    Returns:
        For each text "text", "prediction", "probability", "words" ("log_odds", "parts" with the drop of the log odds
        without each, "unread"), "nearest" (rows of train) and "note" (by what they are near, or why there are none).

    Raises:
        InputNotFoundError, ModelError: As `load`.
        DataError: A text is no Unicode.
    """
    predictor = load(path, device=device)
    predictions = predictor.predict(texts)
    explained = explained_by(predictor, texts)
    near, note = _nearest(find_variant(path)[0], texts, predictor)
    return [
        {
            "text": said.text,
            "prediction": said.label,
            "probability": said.probability,
            "words": words_record(words),
            "nearest": rows,
            "note": note,
        }
        for said, words, rows in zip(predictions, explained, near, strict=True)
    ]


def _nearest(
    run: RunDirectory | None, texts: Sequence[str], predictor: Predictor
) -> tuple[list[list[dict[str, object]]], str]:
    """Training rows near to each text; none, with the reason, where the run did not keep what it takes."""
    none: list[list[dict[str, object]]] = [[] for _ in texts]
    kept = None if run is None else kept_features(run)
    if run is None or kept is None:
        return none, "no near rows: only a run that passed train through the frozen base model knows them"
    try:
        recipe = read_recipe(str(run.path / "recipe.yaml"))
        dataset = _same_rows(run, recipe)
        features = _frozen_features(recipe, texts, predictor)
    except (TextliftError, OSError) as error:
        return none, f"no near rows: {(str(error) or type(error).__name__).splitlines()[0]}"
    if dataset is None:
        return none, "no near rows: the training rows are no longer those of the run"
    note = "near by cosine of the features that the base model has before tuning"
    return nearest_train_rows(kept, unit_rows(features), dataset, most_characters=_CHARACTERS), note


def _same_rows(run: RunDirectory, recipe: Recipe) -> Dataset | None:
    """The rows of a run read again, None where their files changed."""
    dataset = prepare_splits(read_dataset(recipe.data), recipe.data, seed=recipe.seed)
    before = {name: record["sha256"] for name, record in run.read("data.json")["files"].items()}
    now = {name: record["sha256"] for name, record in dataset.fingerprints.items()}
    return dataset if before == now else None


def _frozen_features(recipe: Recipe, texts: Sequence[str], predictor: Predictor) -> np.ndarray:
    base = open_base(recipe.model.name, revision=recipe.model.revision, pooling=recipe.model.pooling)
    classifier = build_classifier(
        base,
        predictor.label_names,
        seed=recipe.seed,
        quantization=recipe.model.quantization,
        linear_kernel=predictor.runtime.linear_kernel,
    )
    frozen = Predictor(
        classifier.requires_grad_(False).to(predictor.runtime.device),
        base.tokenizer,
        predictor.label_names,
        predictor.max_length,
        predictor.runtime,
    )
    features = frozen.forward(frozen.tokenize(texts), features=True).features
    assert features is not None
    return features
