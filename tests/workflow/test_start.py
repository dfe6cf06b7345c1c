"""How a variant starts: the head from a probe, the first measurement from what is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import BaseFolder
from textlift.models.kernels import has_bf16_products
from textlift.progress import Progress
from textlift.runtime import ONEDNN, Runtime
from textlift.training import steps
from textlift.workflow import variants
from textlift.workflow.baselines import FrozenPass, head_sample
from textlift.workflow.main_job import frozen_pass
from textlift.workflow.planning import Request, resolve
from textlift.workflow.preparation import Job, prepare
from textlift.workflow.variants import start_tuning


def prepared(base_folder: BaseFolder, data_file: Path, *, method: str, **values: Any) -> Job:
    request = Request(str(data_file), model=str(base_folder("bert")), method=method, values=values)
    return prepare(resolve(request), Progress(silent=True))


@pytest.mark.parametrize(("method", "is_known"), [("lora", True), ("vera", True), ("prefix-tuning", False)])
def test_a_variant_that_starts_where_the_probe_stands_is_not_measured_again(
    base_folder: BaseFolder, data_file: Path, method: str, is_known: bool
) -> None:
    job = prepared(base_folder, data_file, method=method)
    (variant, *_) = job.recipe.settled_variants()
    frozen = FrozenPass(job, Progress(silent=True))
    session = start_tuning(job, variant, frozen, progress=Progress(silent=True)).session
    assert (session.start_logits is not None) == is_known
    if session.start_logits is not None:
        measured = session.predictor.forward(job.tokens["validation"]).logits
        assert session.start_logits == pytest.approx(measured, abs=1e-3)


@pytest.mark.skipif(not has_bf16_products(Runtime("cpu", "fp32", 1, (), ONEDNN)), reason="no bf16 products here")
@pytest.mark.parametrize("is_whole", [True, False])
def test_heads_of_variants_that_train_fast_start_from_features_in_bf16(
    base_folder: BaseFolder, data_file: Path, is_whole: bool
) -> None:
    job = prepared(base_folder, data_file, method="lora", **{"runtime.linear_kernel": ONEDNN, "training.fast": True})
    quiet = Progress(silent=True)
    exact, rounded = (FrozenPass(job, quiet, is_whole=is_whole, is_fast=fast) for fast in (False, True))
    first, second = (frozen.features("validation") for frozen in (exact, rounded))
    assert second == pytest.approx(first, abs=0.05)
    assert (first != second).any()
    (variant, *_) = job.recipe.settled_variants()
    assert start_tuning(job, variant, rounded, progress=quiet).session.start_logits is not None


@pytest.mark.parametrize(
    ("baselines", "fast", "is_whole", "is_fast"),
    [(["tfidf"], True, False, True), (["tfidf", "probe"], True, True, False), (["tfidf"], False, False, False)],
)
def test_a_baseline_on_the_frozen_pass_keeps_it_whole_and_exact(
    base_folder: BaseFolder, data_file: Path, baselines: list[str], fast: bool, is_whole: bool, is_fast: bool
) -> None:
    job = prepared(base_folder, data_file, method="lora", **{"baselines": baselines, "training.fast": fast})
    frozen = frozen_pass(job, Progress(silent=True))
    assert (frozen.is_whole, frozen.is_fast) == (is_whole, is_fast)


def test_where_only_heads_are_started_the_test_rows_are_not_passed(base_folder: BaseFolder, data_file: Path) -> None:
    job = prepared(base_folder, data_file, method="lora")
    frozen = FrozenPass(job, Progress(silent=True), is_whole=False)
    assert set(frozen.result.splits) == {"train", "validation"}
    assert frozen.probe[0].weight.shape[0] == job.n_classes


def test_a_head_starts_from_a_sample_of_many_rows_with_every_class_in_it() -> None:
    labels = np.random.default_rng(0).choice(3, p=[0.95, 0.049, 0.001], size=20_000)
    rows = head_sample(labels, seed=0)
    assert len(rows) == 1_024
    assert len(set(rows.tolist())) == 1_024
    assert np.bincount(labels[rows])[2] == min(16, int((labels == 2).sum()))


def test_a_head_starts_from_all_of_few_rows() -> None:
    assert head_sample(np.array([0, 1, 1, 2]), seed=0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("method", "is_fuller"), [("lora", True), ("dora", True), ("rslora", False), ("full", False)])
def test_a_method_that_bears_fuller_steps_takes_them_where_texts_are_many(
    base_folder: BaseFolder, data_file: Path, monkeypatch: pytest.MonkeyPatch, method: str, is_fuller: bool
) -> None:
    monkeypatch.setattr(steps, "_FEWEST_STEPS", 0)  # as if these few rows were many
    job = prepared(base_folder, data_file, method=method)
    (variant, *_) = job.recipe.settled_variants()
    session = start_tuning(job, variant, FrozenPass(job, Progress(silent=True)), progress=Progress(silent=True)).session
    assert (session.batch_size > steps.USUAL_BATCH) == is_fuller
    assert session.total_steps == math.ceil(len(session.train.tokens) / session.batch_size) * variant.training.epochs


@pytest.mark.parametrize(
    ("few", "values", "is_advised"),
    [
        (1000, {}, True),
        (1000, {"training.fast": True}, True),
        (1000, {"training.epochs": 3}, False),
        (1000, {"training.contrastive_weight": 4}, False),
        (1, {}, False),
    ],
)
def test_where_texts_are_few_and_nothing_was_asked_the_settings_that_won_there_are_told(
    base_folder: BaseFolder,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    few: int,
    values: dict[str, Any],
    is_advised: bool,
) -> None:
    monkeypatch.setattr(variants, "_FEW", few)
    job = prepared(base_folder, data_file, method="lora", **values)
    (variant, *_) = job.recipe.settled_variants()
    start_tuning(job, variant, FrozenPass(job, Progress(silent=True)), progress=Progress())
    advice = [line for line in capsys.readouterr().err.splitlines() if "few texts of each class" in line]
    assert len(advice) == is_advised
    if is_advised:
        asked = [word for word in advice[0].split() if "=" in word]
        request = Request(str(data_file), model=str(base_folder("bert")), overrides=asked)
        assert resolve(request).settled_variants()[0].training.contrastive_weight == 4
