"""TextClassifier keeps scikit-learn's rules."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

import textlift
from method_pairs import pairs
from textlift.errors import CannotCreateError, DataError, InputNotFoundError, ModelError, RecipeError
from textlift.estimator import TextClassifier
from textlift.methods.registry import METHODS, method_of
from textlift.recipe import ModelSection, Recipe
from tiny_models import SUBJECTS, lora_adapter, texts_and_labels

NAMES = np.array(sorted(SUBJECTS))
TEXTS, IDS = texts_and_labels(36)
LABELS = [str(name) for name in NAMES[IDS]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other made these tiny fits twenty times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(base_folder: Any) -> TextClassifier:
    return TextClassifier(str(base_folder("embedder")), epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def fitted(base_folder: Any) -> TextClassifier:
    """Fitted on the tiny texts; not to be changed."""
    return TextClassifier(str(base_folder("embedder")), batch_size=8).fit(TEXTS, LABELS)


def test_without_validation_rows_all_rows_train_and_steer(base_folder: Any) -> None:
    model = TextClassifier(str(base_folder("embedder")), epochs=1, batch_size=6, validation_size=0)
    model.fit(TEXTS, LABELS)
    assert model.n_iter_ == 6
    np.testing.assert_allclose(model.predict_proba(TEXTS[:3]), model.predict_proba(TEXTS[:3], raw=True))


def test_the_weight_of_pairs_reaches_the_training(tiny: TextClassifier) -> None:
    plain = tiny.fit(TEXTS, LABELS).history_[1]["train_loss"]
    assert tiny.set_params(contrastive_weight=4.0).fit(TEXTS, LABELS).history_[1]["train_loss"] > plain


def test_defaults_are_those_of_the_main_job() -> None:
    recipe, variant = TextClassifier()._settle()
    plain = Recipe()
    assert recipe.model == plain.model == ModelSection()
    assert recipe.seed == plain.seed
    assert recipe.data.validation_size == plain.data.validation_size
    (settled, _) = plain.settled_variants()
    assert variant.training == settled.training
    assert method_of(variant) == method_of(settled)


def test_tags_say_that_the_input_is_text() -> None:
    tags = get_tags(TextClassifier())
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert is_classifier(TextClassifier())


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["b", "c", "a"])[IDS], ["a", "b", "c"]),
        (np.array(["b", "c", "a"], dtype=object)[IDS], ["a", "b", "c"]),
        (np.array([10, 9, -1])[IDS], [-1, 9, 10]),
        (IDS == 1, [False, True]),
        (IDS.astype(float), [0.0, 1.0, 2.0]),
    ],
    ids=["str", "object", "int", "bool", "float"],
)
def test_classes_are_the_sorted_labels_in_their_own_type(tiny: TextClassifier, labels: Any, classes: list[Any]) -> None:
    tiny.fit(TEXTS, labels)
    assert tiny.classes_.tolist() == classes
    assert tiny.classes_.dtype == labels.dtype
    assert tiny.predict(TEXTS).dtype == labels.dtype


def test_it_learns(tiny: TextClassifier) -> None:
    assert tiny.set_params(epochs=8).fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.9


def test_probabilities_stand_in_the_order_of_classes(fitted: TextClassifier) -> None:
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert fitted.classes_[probabilities.argmax(axis=1)].tolist() == fitted.predict(TEXTS).tolist()


def test_probabilities_are_calibrated_unless_asked_for_raw(fitted: TextClassifier) -> None:
    temperature = fitted.predictor_.decision.temperature
    assert temperature != 1
    raw, calibrated = (np.log(fitted.predict_proba(TEXTS, raw=flag)) for flag in (True, False))
    np.testing.assert_allclose(
        (raw - raw[:, :1]) / temperature, calibrated - calibrated[:, :1], atol=1e-3
    )  # as logits do, up to a number for each row


def test_calibration_can_be_left_out(tiny: TextClassifier) -> None:
    tiny.set_params(calibrate=False).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(tiny.predict_proba(TEXTS), tiny.predict_proba(TEXTS, raw=True))


def test_rows_that_trained_calibrate_nothing(tiny: TextClassifier) -> None:
    texts, labels = TEXTS[:3], LABELS[:3]  # no class can spare a row for validation
    assert tiny.fit(texts, labels).predictor_.decision.is_identity


def test_what_was_trained_is_told(fitted: TextClassifier) -> None:
    assert 0 < fitted.trained_parameters_ < fitted.total_parameters_
    assert fitted.n_iter_ == max(record["step"] for record in fitted.history_) > 0
    assert fitted.learning_rate_ == 1.5e-3  # more than the usual: so few steps
    assert fitted.predictor_.predict(TEXTS[:1])[0].label == fitted.predict(TEXTS[:1])[0]


def test_texts_may_come_in_any_sequence(fitted: TextClassifier) -> None:
    expected = fitted.predict_proba(TEXTS)
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    for texts in (
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pandas.Series(TEXTS, index=range(5, 5 + len(TEXTS))),
        pandas.Series(TEXTS, dtype=object),
        pyarrow.array(TEXTS),
        pyarrow.chunked_array([TEXTS[:5], TEXTS[5:]]),
        (text for text in TEXTS),
    ):
        np.testing.assert_array_equal(fitted.predict_proba(texts), expected)


def test_labels_may_come_as_a_pandas_or_pyarrow_column(tiny: TextClassifier, fitted: TextClassifier) -> None:
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    for labels in (pandas.Series(LABELS), pandas.Series(LABELS, dtype="category"), pyarrow.array(LABELS)):
        assert tiny.fit(TEXTS, labels).classes_.tolist() == fitted.classes_.tolist()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "Iterable over raw text documents expected, string object received"),
        (np.array([["a", "b"]]), r"one sequence of texts \(str\); found ndarray of shape \(1, 2\)"),
        ([["a"], ["b"]], r"item 0 is list: \['a'\]"),
        (["a", None], "item 1 is NoneType"),
        (["a", float("nan")], "item 1 is float: nan"),
        ([1, 2], "item 0 is int"),
        ([b"a"], "item 0 is bytes"),
        (None, "found NoneType"),
    ],
)
def test_what_is_no_sequence_of_texts_is_refused(fitted: TextClassifier, texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fitted.predict(texts)
    with pytest.raises(ValueError, match=message):
        clone(fitted).fit(texts, [0, 1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["only"] * 36, "only one class: .*'only'"),
        (None, "requires y to be passed, but the target y is None"),
        (LABELS[:-1], "inconsistent numbers of samples"),
        (np.arange(36) / 7, "Unknown label type: continuous"),
        (np.zeros((36, 2), dtype=int), "y should be a 1d array"),
        ([float("nan"), *IDS.tolist()[1:]], "Input y contains NaN"),
        (np.array([None, *LABELS[1:]], dtype=object), "y must hold labels of one type"),
        (np.array([1, *LABELS[1:]], dtype=object), "y must hold labels of one type"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tiny: TextClassifier, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.fit(TEXTS, labels)


def test_fitting_needs_a_text(tiny: TextClassifier) -> None:
    with pytest.raises(DataError, match=r"Found array with 0 sample\(s\)"):
        tiny.fit([], [])


def test_an_empty_text_is_learned_from_and_predicted(tiny: TextClassifier) -> None:
    tiny.fit(["", *TEXTS], ["sea", *LABELS])
    assert tiny.predict(["", " "]).shape == (2,)


def test_no_text_gives_no_prediction(fitted: TextClassifier) -> None:
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize("call", ["predict", "predict_proba", "save"])
def test_before_fit_nothing_is_answered(call: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(TextClassifier(), call)([])


def test_a_class_of_one_text_is_learned_from(tiny: TextClassifier) -> None:
    tiny.fit([*TEXTS, "a worm near the boat"], [*LABELS, "rare"])
    assert "rare" in tiny.classes_


def test_two_texts_are_enough(tiny: TextClassifier, caplog: pytest.LogCaptureFixture) -> None:
    assert tiny.fit(["salt", "bird"], [0, 1]).predict(["salt", "bird"]).tolist() == [0, 1]
    assert "the training rows steer" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "lorra"}, "method must be one of lora, .*Did you mean 'lora'"),
        ({"rank": 0}, "method.rank"),
        ({"epochs": 0}, "training.epochs"),
        ({"learning_rate": -1.0}, "training.learning_rate"),
        ({"batch_size": 0}, "training.batch_size"),
        ({"validation_size": 0.5}, "data.validation_size"),
        ({"head_start": "warm"}, "training.head_start"),
        ({"max_length": 1}, "model.max_length"),
        ({"device": "abacus"}, "runtime.device"),
        ({"method_options": {"width": 3}}, "method.width is not known"),
        ({"method": "full", "rank": 4}, "rank must stay at its default 8 with method 'full'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_parameter_out_of_range_is_refused_by_fit(tiny: TextClassifier, values: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny.set_params(**values).fit(TEXTS, LABELS)


def test_a_missing_base_model_is_told() -> None:
    with pytest.raises(InputNotFoundError, match="there is no such folder"):
        TextClassifier("./no/such/folder").fit(TEXTS, LABELS)


def test_options_of_the_method_reach_it(tiny: TextClassifier) -> None:
    tiny.set_params(rank=2, alpha=4, method_options={"target_modules": ["query"]}).fit(TEXTS, LABELS)
    config = tiny.predictor_.classifier.model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (2, 4.0)
    assert all(name.endswith("query") for name in config.target_modules)


def test_the_full_method_trains_the_base_model(tiny: TextClassifier) -> None:
    tiny.set_params(method="full", learning_rate=1e-3).fit(TEXTS, LABELS)
    assert tiny.trained_parameters_ > tiny.total_parameters_ / 2


def test_an_integer_seed_gives_the_same_classifier_twice(tiny: TextClassifier) -> None:
    first = clone(tiny).fit(TEXTS, LABELS).predict_proba(TEXTS)
    np.testing.assert_array_equal(clone(tiny).fit(TEXTS, LABELS).predict_proba(TEXTS), first)
    other = clone(tiny).set_params(random_state=1).fit(TEXTS, LABELS).predict_proba(TEXTS)
    assert np.abs(other - first).max() > 0


def test_a_random_state_draws_another_seed_each_time(tiny: TextClassifier) -> None:
    def seeds(state: Any) -> list[int]:
        tiny.set_params(random_state=state)
        return [tiny._settle()[0].seed for _ in range(2)]

    drawn = seeds(np.random.RandomState(5))
    assert drawn[0] != drawn[1]
    assert seeds(np.random.RandomState(5)) == drawn
    assert len(set(seeds(None))) == 2


def test_fit_leaves_the_random_state_and_threads_of_torch_alone(tiny: TextClassifier) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    tiny.fit(TEXTS, LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_it_is_silent_unless_asked_to_speak(tiny: TextClassifier, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.fit(TEXTS, LABELS)
    assert capsys.readouterr() == ("", "")
    tiny.set_params(verbose=True).fit(TEXTS, LABELS)
    told = capsys.readouterr()
    assert told.out == ""
    assert "validation accuracy" in told.err


def test_cross_validation_works(tiny: TextClassifier) -> None:
    scores = cross_val_score(tiny, TEXTS, LABELS, cv=2, scoring="neg_log_loss", error_score="raise")
    assert np.isfinite(scores).all()


def test_a_grid_search_finds_rank_and_learning_rate(tiny: TextClassifier) -> None:
    grid = {"rank": np.array([2, 4]), "learning_rate": [np.float64(1e-3), 1e-2]}
    search = GridSearchCV(tiny, grid, cv=2, error_score="raise").fit(TEXTS, LABELS)
    assert set(search.best_params_) == {"rank", "learning_rate"}
    assert search.predict(TEXTS[:2]).shape == (2,)


def test_it_is_the_last_step_of_a_pipeline(tiny: TextClassifier) -> None:
    pipeline = make_pipeline(FunctionTransformer(_lowered), tiny).fit(TEXTS, LABELS)
    shouted = [text.upper() for text in TEXTS]
    np.testing.assert_array_equal(pipeline.predict_proba(shouted), pipeline.predict_proba(TEXTS))
    assert pipeline.classes_.tolist() == sorted(set(LABELS))


def _lowered(texts: list[str]) -> list[str]:
    return [text.lower() for text in texts]


def test_a_clone_has_the_parameters_and_nothing_learned(fitted: TextClassifier) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "predictor_")


@pytest.mark.parametrize(
    ("base", "method"), [("embedder", "lora"), ("bert", "lora"), ("gpt2", "lora"), ("bert", "full")]
)
def test_a_pickled_copy_predicts_the_same(base_folder: Any, base: str, method: str) -> None:
    estimator = TextClassifier(str(base_folder(base)), method=method, epochs=1).fit(TEXTS, LABELS)
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.predict_proba(TEXTS), estimator.predict_proba(TEXTS))
    assert copy.predict(TEXTS).tolist() == estimator.predict(TEXTS).tolist()


SAVED = [
    *pairs(METHODS, ["embedder"]),
    *pairs(["qlora"], ["bert"], precision="4-bit"),
    ("bert", "lora"),
    ("gpt2", "lora"),
]


@pytest.mark.parametrize(("base", "method"), SAVED)
def test_a_saved_one_is_loaded_by_textlift(base_folder: Any, tmp_path: Path, base: str, method: str) -> None:
    folder = base_folder(base)
    options = {"adapters": [lora_adapter(folder, seed=seed, rank=2) for seed in (1, 2)]} if method == "fusion" else None
    estimator = TextClassifier(str(folder), method=method, method_options=options, epochs=1).fit(TEXTS, IDS)
    loaded = textlift.load(estimator.save(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), estimator.predict_proba(TEXTS), atol=1e-5)
    assert [one.label for one in loaded.predict(TEXTS)] == [str(label) for label in estimator.predict(TEXTS)]


def test_a_pickled_copy_is_saved_with_what_it_was_fitted_with(fitted: TextClassifier, tmp_path: Path) -> None:
    copy = pickle.loads(pickle.dumps(fitted)).set_params(method="full")
    assert (copy.save(tmp_path / "saved") / "adapter_config.json").is_file()


def test_saving_replaces_nothing(fitted: TextClassifier, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CannotCreateError, match="must be empty"):
        fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_answers_otherwise_is_not_left(
    fitted: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clone(fitted).set_params(random_state=1, learning_rate=0.01).fit(TEXTS, LABELS).predictor_
    monkeypatch.setattr("textlift.export.loading.load_variant", lambda *_, **__: other)
    with pytest.raises(ModelError, match="must give the logits of the fitted estimator"):
        fitted.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, textlift; textlift.TextClassifier(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "False"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(textlift.__file__).parents[1])}
