"""The only forward path outside training: evaluate, predict, export and report all go through it.

Knows a classifier, its tokenizer and its label names. Does not know runs or recipes.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from textlift.data.batching import TokenizedTexts, budget_batches, collate, cut_where_padded, price_of_pass, tokenize
from textlift.errors import DataError
from textlift.evaluation.decisions import Decision
from textlift.memory import is_out_of_memory
from textlift.models.classifier import Classifier
from textlift.models.encoder_layer import use_whole_layers
from textlift.models.kernels import use_linear_kernel
from textlift.models.last_layer import pooled_rows
from textlift.models.packing import use_packing
from textlift.runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

INFERENCE_TOKENS = 4096


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one text: its label, or None where its decision is to give no answer.

    probability is that of the label, or of what it would have been.
    """

    text: str
    label: str | None
    probability: float
    probabilities: dict[str, float]

    @property
    def abstained(self) -> bool:
        """Whether there is no answer."""
        return self.label is None

    def to_dict(self) -> dict[str, Any]:
        """The JSON line of `textlift predict`."""
        told = {"abstained": True} if self.abstained else {}
        return {"text": self.text, "label": self.label, **told, "probabilities": self.probabilities}


@dataclass(frozen=True)
class ForwardResult:
    """Logits (N, C) and, where asked for, pooled features (N, D), both fp32; and what the pass took."""

    logits: np.ndarray
    features: np.ndarray | None
    seconds: float

    @property
    def samples_per_second(self) -> float:
        """Texts per second of the whole pass."""
        return len(self.logits) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Predictor:
    """A classifier with its tokenizer, label names and limits: texts in, label names and probabilities out.

    The decision says how logits become probabilities and answers; `raw` goes without it.
    """

    classifier: Classifier
    tokenizer: "PreTrainedTokenizerBase"
    label_names: tuple[str, ...]
    max_length: int
    runtime: Runtime
    name: str = "classifier"
    decision: Decision = field(default_factory=Decision)

    def __post_init__(self) -> None:
        use_linear_kernel(self.classifier, self.runtime)
        self.classifier.whole_layers = use_whole_layers(self.classifier, self.runtime)
        use_packing(self.classifier, self.runtime)

    def predict(self, texts: Sequence[str], *, raw: bool = False) -> list[Prediction]:
        """Label and probabilities of each text, in the order given.

        Args:
            texts: Any number.
            raw: Without the decision: the softmax of the logits and its most probable class.

        Raises:
            DataError: An item is not a string.
        """
        texts = _strings(texts)
        if not texts:
            return []
        decided = self._decision(raw).apply(self.forward(self.tokenize(texts)).logits)
        return [
            Prediction(
                text,
                self.label_names[decided.chosen[at]] if decided.answered[at] else None,
                float(decided.confidence[at]),
                {name: float(value) for name, value in zip(self.label_names, decided.probabilities[at], strict=True)},
            )
            for at, text in enumerate(texts)
        ]

    def predict_proba(self, texts: Sequence[str], *, raw: bool = False) -> np.ndarray:
        """Probability of each class, (N, C), in the order of label_names.

        Args:
            texts: Any number.
            raw: Without the decision: the softmax of the logits.

        Raises:
            DataError: An item is not a string.
        """
        return self._decision(raw).probabilities(self.forward(self.tokenize(_strings(texts))).logits)

    def _decision(self, raw: bool) -> Decision:
        return Decision() if raw else self.decision

    def exact_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits (N, C) in fp32, whatever arithmetic the runtime has for speed."""
        exact = replace(self, runtime=replace(self.runtime, precision="fp32"))
        try:
            return exact.forward(exact.tokenize(texts)).logits
        finally:
            use_packing(self.classifier, self.runtime)  # which the exact one, of the same classifier, could not

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Token ids, cut at max_length."""
        return tokenize(self.tokenizer, texts, max_length=self.max_length)

    def forward(self, tokens: TokenizedTexts, *, features: bool = False) -> ForwardResult:
        """One pass over all texts in batches of like length."""
        result: ForwardResult | None = None
        for step in self.forward_steps(tokens, features=features):
            result = step if isinstance(step, ForwardResult) else None
        assert result is not None
        return result

    def forward_steps(self, tokens: TokenizedTexts, *, features: bool = False) -> Iterator[int | ForwardResult]:
        """The same, telling the number of texts done after each batch; the result comes last."""
        size = self.classifier.n_classes
        logits = np.empty((len(tokens), size), dtype=np.float32)
        pooled: np.ndarray | None = None
        self.classifier.eval()
        began, done = time.perf_counter(), 0
        for batch in self._batches(tokens):
            logits[batch], kept = self._batch(tokens, batch, features=features)
            if kept is not None:
                pooled = np.empty((len(tokens), kept.shape[1]), dtype=np.float32) if pooled is None else pooled
                pooled[batch] = kept
            done += len(batch)
            yield done
        yield ForwardResult(logits, pooled, time.perf_counter() - began)

    def _batches(self, tokens: TokenizedTexts) -> Iterator[np.ndarray]:
        """The rows of each pass: of like length, and on a CPU none padded for more than a pass costs."""
        pads_less = len(tokens) > 1 and self.classifier.pads_less()
        price = price_of_pass(self.classifier.final_linear().in_features, forward_alone=True)
        for batch in budget_batches(tokens.lengths, tokens_per_batch=INFERENCE_TOKENS, pads=not pads_less):
            if self.runtime.device == "cpu" and not pads_less:
                yield from cut_where_padded(batch, tokens.lengths, price=price)
            else:
                yield batch

    @property
    def _pad_token_id(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def _inputs(self, tokens: TokenizedTexts, batch: np.ndarray) -> dict[str, torch.Tensor]:
        return collate(tokens, batch, pad_token_id=self._pad_token_id)

    def _batch(
        self, tokens: TokenizedTexts, batch: np.ndarray, *, features: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits and, where asked for, features of a batch; where memory does not suffice, of its halves."""
        try:
            if features:
                return self._batch_with_features(tokens, batch)
            return self._batch_logits(self._inputs(tokens, batch)), None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
        logger.warning("Out of memory with %d texts in one pass; trying half of them.", len(batch))
        halves = [self._batch(tokens, half, features=features) for half in np.array_split(batch, 2)]
        logits = np.concatenate([half for half, _ in halves])
        kept = [half for _, half in halves if half is not None]
        return logits, np.concatenate(kept) if kept else None

    def _batch_logits(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        with torch.inference_mode(), self.runtime.autocast():
            values: np.ndarray = self.classifier(**inputs).float().cpu().numpy()
        return values

    def _batch_with_features(self, tokens: TokenizedTexts, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = self._inputs(tokens, batch)
        with self.classifier.captured_features() as captured:
            logits = self._batch_logits(inputs)
        kept = pooled_rows(captured[-1], inputs["input_ids"], pad_token_id=self._pad_token_id)
        features: np.ndarray = kept.float().cpu().numpy()
        return logits, features


def _strings(texts: Sequence[str]) -> list[str]:
    """The texts as a list; a single string is one text."""
    if isinstance(texts, str):
        return [texts]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"texts must be strings; item {index} is {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"texts must be Unicode; item {index} holds half of a surrogate pair.") from error
    return list(texts)
