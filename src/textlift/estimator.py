"""TextClassifier: the tuning of the main job by scikit-learn's rules.

Knows texts and labels in memory. Does not know files of rows or run directories.
"""

import inspect
import logging
import numbers
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from textlift.errors import CannotCreateError, DataError, ModelError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textlift.data import Dataset
    from textlift.inference import Predictor
    from textlift.progress import Progress
    from textlift.recipe import Recipe, Variant
    from textlift.workflow.preparation import Job
    from textlift.workflow.variants import Tuning

logger = logging.getLogger(__name__)

Texts: TypeAlias = Any  # whatever iterates over str: list, array, Series, pyarrow column

_PROOF_TEXTS = 16


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A pretrained language model tuned on labelled texts.

    The defaults are those of `textlift run`. Texts need no preparation; a stratified part of them steers training and
    ends it early.

    Args:
        model: Base model: a Hub name, a folder, or "embedded".
        method: Way to tune, one of those that `textlift methods` lists.
        rank: Width of the thin matrices, for methods that have them.
        alpha: Their scale: in LoRA the product counts alpha / rank.
        method_options: More options of the method, such as {"dropout": 0.1}.
        epochs: Passes over the training rows.
        learning_rate: Peak learning rate; where None the method's own, at most twice that if steps are few or full.
        batch_size: Examples of one optimizer step; where None 32, with LoRA more if texts are short and many.
        max_length: Tokens of a text that the model sees; "auto" cuts at most 1 % of the rows, up to 512 tokens.
        validation_size: Share of the rows that steers training, from 0 to 0.5. Where it is 0, or no class can spare
            a row, the training rows steer.
        contrastive_weight: Of a loss over all pairs of texts of a step, for few texts: try 4, with batch_size=64,
            epochs=20 and validation_size=0.
        head_start: "probe" starts the head from logistic regression on the frozen model, "fresh" from random values.
        calibrate: Fit the temperature of the probabilities on the rows that steer; it changes no label. Without such
            rows, probabilities are the plain softmax.
        random_state: An int gives the same classifier each time; a RandomState or None draws a seed.
        device: auto, cpu, cuda, cuda:N or mps.
        verbose: Tell on stderr what is going on.

    Attributes:
        classes_: Sorted labels, (C,), of the type of y.
        predictor_: The tuned `Predictor`.
        history_: Records of every step and every measurement on the validation rows.
        n_iter_: Optimizer steps taken.
        learning_rate_: Peak learning rate.
        trained_parameters_: Number of weights that were trained.
        total_parameters_: Number of all weights.
    """

    def __init__(
        self,
        model: str | Path = "embedded",
        *,
        method: str = "lora",
        rank: int = 8,
        alpha: float = 16.0,
        method_options: dict[str, Any] | None = None,
        epochs: int = 2,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        max_length: int | str = "auto",
        validation_size: float = 0.1,
        contrastive_weight: float = 0.0,
        head_start: str = "probe",
        calibrate: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.method = method
        self.rank = rank
        self.alpha = alpha
        self.method_options = method_options
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.validation_size = validation_size
        self.contrastive_weight = contrastive_weight
        self.head_start = head_start
        self.calibrate = calibrate
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Texts, y: Any) -> "TextClassifier":  # noqa: N803 - scikit-learn's name
        """Tune the base model.

        Args:
            X: Texts, (N,).
            y: Their labels, (N,), of any type that sorts.

        Raises:
            DataError: Texts or labels cannot be used (also a ValueError).
            RecipeError: A parameter cannot be used (also a ValueError).
            TextliftError: The base model cannot be had or used (see `textlift.errors`).
        """
        from textlift.progress import Progress
        from textlift.workflow.baselines import FrozenPass
        from textlift.workflow.variants import follow, start_tuning

        recipe, variant = self._settle()
        texts = _as_texts(X)
        classes, labels = self._classes_and_ids(texts, y)
        progress = Progress(silent=not self.verbose)
        with _own_random_numbers():
            dataset = _dataset(texts, labels, classes)
            job = _prepare(recipe, dataset, progress, has_validation=self.validation_size != 0)
            tuning = start_tuning(job, variant, FrozenPass(job, progress, is_whole=False), progress=progress)
            for _ in follow(tuning, variant.name, progress):
                pass
        self.classes_ = classes
        self._keep(job, tuning)
        return self

    def predict(self, X: Texts) -> np.ndarray:  # noqa: N803
        """The most probable label of each text, (N,)."""
        best = self._logits(X).argmax(axis=1)
        predicted: np.ndarray = self.classes_[best]
        return predicted

    def predict_proba(self, X: Texts, *, raw: bool = False) -> np.ndarray:  # noqa: N803
        """Probability of each class, (N, C), in the order of classes_; float32, as precise as the model computes.

        Args:
            X: Texts, (N,).
            raw: The plain softmax, not calibrated.
        """
        check_is_fitted(self)
        predictor: Predictor = self.predictor_
        return predictor.predict_proba(_as_texts(X), raw=raw).astype(np.float32)

    def save(self, path: str | Path) -> Path:
        """Write the tuned adapter, or the model with a method that trains the base itself, for `textlift.load`.

        The folder is loaded back and its logits are compared before this returns. Labels are read back as strings.

        Raises:
            CannotCreateError: The folder holds something already.
            ModelError: Loaded back, it does not give the same logits; nothing is left of it.
            StorageError: The folder cannot be written.
        """
        check_is_fitted(self)
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CannotCreateError(f"{folder} must be empty; it holds something already. Name another folder.")
        try:
            self._write(folder)
            self._require_same_logits(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn must know: X is one sequence of strings."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def _settle(self) -> "tuple[Recipe, Variant]":
        """The parameters as a recipe with one variant, all checked."""
        import torch

        from textlift.methods.registry import method_of
        from textlift.recipe import parse_recipe

        names = ("epochs", "learning_rate", "batch_size", "contrastive_weight", "head_start")
        recipe = parse_recipe(
            {
                "name": "TextClassifier",
                "data": {} if self.validation_size == 0 else {"validation_size": _plain(self.validation_size)},
                "model": {"name": str(self.model), "max_length": _plain(self.max_length)},
                "method": {"name": self.method, **self._method_options()},
                "training": {name: _plain(getattr(self, name)) for name in names},
                "baselines": (),
                "variants": {"tuned": {}},
                # An estimator leaves the number of threads to its caller, such as a joblib worker.
                "runtime": {"device": self.device, "threads": torch.get_num_threads()},
                "seed": self._seed(),
            },
            source="TextClassifier",
        )
        (variant,) = recipe.settled_variants()
        method_of(variant)
        return recipe, variant

    def _method_options(self) -> dict[str, Any]:
        from textlift.methods.registry import METHODS

        options: dict[str, Any] = {}
        known = METHODS[self.method].options.model_fields if self.method in METHODS else ()
        for name in ("rank", "alpha"):
            value = _plain(getattr(self, name))
            default = inspect.signature(TextClassifier).parameters[name].default
            if name in known:
                options[name] = value
            elif value != default and self.method in METHODS:
                raise RecipeError(
                    f"{name} must stay at its default {default} with method {self.method!r}, which has no {name}; "
                    f"found {value!r}."
                )
        given = {name: _plain(value) for name, value in (self.method_options or {}).items()}
        return {**options, **given}

    def _seed(self) -> int:
        state: Any = self.random_state
        return int(state if isinstance(state, numbers.Integral) else check_random_state(state).randint(2**31 - 1))

    def _classes_and_ids(self, texts: Sequence[str], y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Sorted labels (C,), and the place of each example's label among them, (N,)."""
        name = type(self).__name__
        if y is None:
            raise DataError(f"This {name} estimator requires y to be passed, but the target y is None.")
        if not texts:
            raise DataError(f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by {name}.")
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, estimator_name=name, input_name="y")
        check_consistent_length(texts, y)
        try:
            classes, labels = np.unique(y, return_inverse=True)
        except TypeError as error:
            raise DataError(f"y must hold labels of one type that sorts; {error}.") from error
        check_classification_targets(y)
        if len(classes) < 2:
            raise DataError(
                f"{name} needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{classes[0]!r}"
            )
        return classes, labels

    def _keep(self, job: "Job", tuning: "Tuning") -> None:
        session = tuning.session
        session.classifier.requires_grad_(False)
        self.predictor_ = self._calibrated(job, session.predictor)
        self.history_ = session.progress.history
        self.n_iter_ = session.progress.step
        self.learning_rate_ = tuning.learning_rate
        self.trained_parameters_ = tuning.counts.trained
        self.total_parameters_ = tuning.counts.total
        self._base = job.base
        self._method = tuning.method
        self._proof_texts = job.dataset.splits["validation"].texts[:_PROOF_TEXTS]

    def _calibrated(self, job: "Job", predictor: "Predictor") -> "Predictor":
        """The predictor with a temperature, where there are rows to fit it on that did not train."""
        from textlift.evaluation.calibration import fit_temperature
        from textlift.evaluation.decisions import Decision

        splits = job.dataset.splits
        if not self.calibrate or splits["validation"] is splits["train"]:
            return predictor
        logits = predictor.forward(job.tokens["validation"]).logits
        return replace(predictor, decision=Decision(fit_temperature(job.labels["validation"], logits)))

    def _logits(self, X: Texts) -> np.ndarray:  # noqa: N803
        check_is_fitted(self)
        predictor: Predictor = self.predictor_
        return predictor.forward(predictor.tokenize(_as_texts(X))).logits

    def _write(self, folder: Path) -> None:
        from textlift.export.card import model_card
        from textlift.export.saving import save_adapter, save_model, settings_of

        method, predictor = self._method, self.predictor_
        kind = "adapter" if method.saves_adapter else "model"
        names = predictor.label_names
        settings = settings_of(self._base, predictor, kind=kind, method=method.name, label_values=names)
        record = {
            "method": method.name,
            "trained_parameters": self.trained_parameters_,
            "total_parameters": self.total_parameters_,
        }
        card = model_card(record, settings, name=type(self).__name__, dataset="texts in memory")
        (save_adapter if method.saves_adapter else save_model)(predictor, folder, settings=settings, card=card)

    def _require_same_logits(self, folder: Path) -> None:
        from textlift.export.deciding import require_same_decision
        from textlift.export.loading import load_variant
        from textlift.export.proof import TOLERANCE

        expected = self._logits(self._proof_texts)
        require_same_decision(folder, self.predictor_.decision, self.predictor_.label_names)
        loaded = load_variant(folder, self.predictor_.runtime, base_name=str(self._base.folder.path))
        found = loaded.forward(loaded.tokenize(self._proof_texts)).logits
        difference = float(np.abs(found - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ModelError(
                f"{folder}: what was saved must give the logits of the fitted estimator; loaded back they differ by "
                f"{difference:.2g}."
            )


def _as_texts(X: Texts) -> list[str]:  # noqa: N803
    """The texts as a list.

    Raises:
        DataError: X is one string, has two dimensions, or holds something that is no string.
    """
    if isinstance(X, str | bytes):
        raise DataError("Iterable over raw text documents expected, string object received.")
    shape = getattr(X, "shape", (0,))
    if len(shape) != 1:
        raise DataError(
            f"X must be one sequence of texts (str); found {type(X).__name__} of shape {tuple(shape)}."
            "\nPass one column of it, such as frame['text']."
        )
    if not hasattr(X, "__iter__"):
        raise DataError(f"X must be one sequence of texts (str); found {type(X).__name__}.")
    items = X.to_pylist() if hasattr(X, "to_pylist") else list(X)  # pyarrow yields its own scalars
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise DataError(f"X must hold texts (str); item {index} is {type(item).__name__}: {item!r:.40}.")
    return [str(item) for item in items]


def _dataset(texts: list[str], labels: np.ndarray, classes: np.ndarray) -> "Dataset":
    """The examples as one split, train; a class is named by its label as text."""
    from textlift.data import Dataset, Rows

    names = tuple(str(label) for label in classes.tolist())
    if len(set(names)) < len(names):
        raise DataError(f"y must hold labels that differ as text, too; found {', '.join(names[:8])}.")
    written = [names[label] for label in labels.tolist()]
    rows = Rows(texts, written, list(range(1, len(texts) + 1)), ["X"] * len(texts))
    return Dataset("X", {"train": rows}, names, names, "X", "y", (), {})


def _prepare(recipe: "Recipe", dataset: "Dataset", progress: "Progress", *, has_validation: bool) -> "Job":
    """The examples split and tokenized, with the base model found."""
    from textlift.data import cut_validation
    from textlift.runtime import choose_runtime
    from textlift.workflow.preparation import build_job

    settings = recipe.runtime
    runtime = choose_runtime(
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        linear_kernel=settings.linear_kernel,
        fast=recipe.trains_fast,
    )
    if has_validation:
        dataset = cut_validation(dataset, recipe.data, seed=recipe.seed)
        if not len(dataset.splits["validation"]):
            logger.warning("No class can spare a row for validation; the training rows steer training.")
    if not dataset.splits.get("validation"):
        dataset.splits["validation"] = dataset.splits["train"]
    job = build_job(recipe, dataset, (), runtime=runtime, progress=progress)
    for finding in job.findings:
        if finding.severity == "error":  # the one kind: most of the rows are cut by a limit that nobody chose
            logger.warning("%s", finding.message.replace("--set model.max_length=N", "max_length=N"))
    return job


def _plain(value: Any) -> Any:
    """A NumPy scalar, such as a search over parameters draws, as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _own_random_numbers() -> "Iterator[None]":
    """Leave torch's random state as the caller had it."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
