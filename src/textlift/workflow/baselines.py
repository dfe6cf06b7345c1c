"""The baselines of a run: majority, TF-IDF, the untrained model and the probe on its frozen features."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from textlift.evaluation.baselines import LinearHead, fit_probe, majority, tfidf
from textlift.inference import INFERENCE_TOKENS, ForwardResult, Predictor
from textlift.memory import PeakMemory
from textlift.models.encoder_layer import settled
from textlift.models.kernels import frozen_rounded, has_bf16_products
from textlift.progress import Progress
from textlift.training.tuning import count_parameters
from textlift.workflow.measuring import MEASURED, Measured, forward_split, measure
from textlift.workflow.preparation import Job

_HEAD_ROWS, _OF_EACH_CLASS = 1_024, 16


@dataclass(frozen=True)
class FrozenResult:
    """What one pass of the untrained model gives: logits and pooled features of every split, and facts of the head."""

    splits: dict[str, ForwardResult]
    parameters: int
    head_has_bias: bool


@dataclass
class FrozenPass:
    """One pass of the untrained model, made when first asked for; untrained, probe and the start of heads share it.

    Args:
        job: Its rows and base model.
        progress: Told of the pass.
        is_whole: Whether it goes over all rows, as the baselines and checks want it. Where only heads are started,
            a sample of train and the validation rows are enough.
        is_fast: Whether its products are rounded, where the processor has such: for heads of variants that train so.
    """

    job: Job
    progress: Progress
    is_whole: bool = True
    is_fast: bool = False

    @cached_property
    def train_rows(self) -> np.ndarray:
        """The rows of train that it goes over, (M,)."""
        labels = self.job.labels["train"]
        return np.arange(len(labels)) if self.is_whole else head_sample(labels, seed=self.job.recipe.seed)

    @property
    def is_made(self) -> bool:
        """Whether the pass was made in this process."""
        return "result" in self.__dict__

    @property
    def rounds(self) -> bool:
        """Whether its products are rounded."""
        return self.is_fast and self.job.runtime.precision == "fp32" and has_bf16_products(self.job.runtime)

    @contextmanager
    def products(self, predictor: Predictor) -> Iterator[None]:
        """While open, a predictor computes as this pass does."""
        classifier = predictor.classifier
        ways = frozen_rounded(classifier, rows=INFERENCE_TOKENS) if self.rounds else nullcontext()
        with ways, settled(classifier.whole_layers):
            yield

    @cached_property
    def result(self) -> FrozenResult:
        """The pass itself."""
        predictor = self.job.fresh_predictor()
        with self.products(predictor):
            splits = {
                split: forward_split(
                    predictor,
                    self.job,
                    split,
                    progress=self.progress,
                    title="base model",
                    features=True,
                    rows=self.train_rows if split == "train" and not self.is_whole else None,
                )
                for split in self.job.tokens
                if self.is_whole or split != "test"
            }
        total = count_parameters(predictor.classifier).total
        return FrozenResult(splits, total, predictor.classifier.final_linear().bias is not None)

    @cached_property
    def probe(self) -> tuple[LinearHead, float]:
        """The head that logistic regression finds on the frozen features, with the inverse of its penalty."""
        job = self.job
        return fit_probe(
            self.features("train"),
            job.labels["train"][self.train_rows],
            job.n_classes,
            bias=self.result.head_has_bias,
            validation_features=self.features("validation"),
            validation_labels=job.labels["validation"],
            seed=job.recipe.seed,
        )

    def probe_logits(self, split: str) -> np.ndarray:
        """Logits of the probe, (N, C)."""
        head, _ = self.probe
        logits: np.ndarray = self.features(split) @ head.weight.T + (0.0 if head.bias is None else head.bias)
        return logits.astype(np.float32)

    def features(self, split: str) -> np.ndarray:
        """Pooled features of the rows of a split, (N, D); of train those of `train_rows`."""
        features = self.result.splits[split].features
        assert features is not None
        return features


def head_sample(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Rows that are enough to start a head from: at most 1,024, and of each class at least 16 where there are as many.

    Args:
        labels: Label ids, (N,).
        seed: Of the draw.

    Returns:
        Row indices in order, (M,).
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    counts = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    first: list[int] = []
    rest: list[int] = []
    for row in order:
        label = labels[row]
        (first if counts[label] < _OF_EACH_CLASS else rest).append(int(row))
        counts[label] += 1
    return np.sort(np.asarray(first + rest[: max(0, _HEAD_ROWS - len(first))], dtype=np.int64))


def measure_baselines(job: Job, frozen: FrozenPass, progress: Progress, *, names: Sequence[str]) -> Iterator[Measured]:
    """Each of the named baselines in turn."""
    for name in names:
        progress.say(f"baseline {name}")
        yield BASELINES[name](job, frozen)


def _majority(job: Job, _: FrozenPass) -> Measured:
    logits = {split: majority(job.labels["train"], job.n_classes, len(job.labels[split])) for split in MEASURED}
    return measure(
        job,
        "majority",
        logits,
        kind="baseline",
        method="majority",
        description="Always the most common class of train.",
    )


def _tfidf(job: Job, _: FrozenPass) -> Measured:
    texts = {split: job.dataset.splits[split].texts for split in MEASURED}
    memory, began = PeakMemory("cpu"), time.perf_counter()
    logits = tfidf(
        job.dataset.splits["train"].texts, job.labels["train"], texts, n_classes=job.n_classes, seed=job.recipe.seed
    )
    seconds = time.perf_counter() - began
    return measure(
        job,
        "tfidf",
        logits,
        kind="baseline",
        method="tfidf",
        description="TF-IDF of words and word pairs with logistic regression (scikit-learn).",
        train_seconds=seconds,
        peak_memory_bytes=memory.bytes(),
    )


def _untrained(job: Job, frozen: FrozenPass) -> Measured:
    logits = {split: frozen.result.splits[split].logits for split in MEASURED}
    return measure(
        job,
        "untrained",
        logits,
        kind="baseline",
        method="untrained",
        description="The base model with a fresh head.",
        total_parameters=frozen.result.parameters,
        samples_per_second=frozen.result.splits["test"].samples_per_second,
    )


def _probe(job: Job, frozen: FrozenPass) -> Measured:
    began = time.perf_counter()
    (head, penalty), passed = frozen.probe, frozen.result.splits["train"].seconds
    seconds = time.perf_counter() - began + passed
    return measure(
        job,
        "probe",
        {split: frozen.probe_logits(split) for split in MEASURED},
        kind="baseline",
        method="probe",
        description="Logistic regression on the pooled features of the frozen base model.",
        trained_parameters=head.weight.size + (0 if head.bias is None else head.bias.size),
        total_parameters=frozen.result.parameters,
        train_seconds=seconds,
        samples_per_second=frozen.result.splits["test"].samples_per_second,
        settings={"penalty": 1 / penalty},
    )


BASELINES: dict[str, Callable[[Job, FrozenPass], Measured]] = {
    "majority": _majority,
    "tfidf": _tfidf,
    "untrained": _untrained,
    "probe": _probe,
}
