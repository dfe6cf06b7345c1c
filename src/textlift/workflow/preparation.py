"""Rows and base model made ready: read, checked, split, tokenized; stops before weights are loaded if checks fail."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textlift.data import (
    Dataset,
    Evidence,
    Finding,
    find_problems,
    found_at,
    prepare_splits,
    raise_errors,
    read_dataset,
)
from textlift.data.batching import TokenizedTexts, token_counts, tokenize
from textlift.data.checks import Lengths
from textlift.digests import file_sha256
from textlift.errors import ModelError, RecipeError, safe_for_terminal
from textlift.inference import Predictor
from textlift.methods.prompt import positions_taken
from textlift.methods.registry import METHODS, method_of, quantization_of
from textlift.models.classifier import Classifier, padding_shift
from textlift.models.loading import BaseModel, build_classifier, choose_max_length, open_base
from textlift.models.quantized import require_quantizable
from textlift.models.sources import read_model_type
from textlift.progress import Progress, Task
from textlift.recipe import DataSection, Quantization, Recipe
from textlift.runtime import Runtime, choose_runtime
from textlift.training.capability import capability, precision_of, require_capability
from textlift.training.session import Examples
from textlift.workflow.deciding import require_labels

_PADDING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Job:
    """Everything that baselines and variants of one run share."""

    recipe: Recipe
    dataset: Dataset
    findings: tuple[Finding, ...]
    base: BaseModel
    runtime: Runtime
    max_length: int
    max_length_reason: str
    tokens: dict[str, TokenizedTexts]
    labels: dict[str, np.ndarray]

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.dataset.label_names)

    @property
    def fingerprint(self) -> dict[str, str]:
        """sha256 of each thing that must be equal for a run to be continued, by its name in messages."""
        adapters = [
            file_sha256(file) for place in sources_of(self.recipe) for file in sorted(place.glob("*.safetensors"))
        ]
        parts = {
            "recipe": self.recipe.model_dump(mode="json"),
            "base model": self.base.folder.sha256,
            "adapters to start from": adapters,
            "data": data_digests(self.dataset),
        }
        return {
            name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()
        }

    def examples(self, split: str) -> Examples:
        """Tokens and label ids of a split."""
        rows = self.dataset.splits[split]
        return Examples(
            self.tokens[split], self.labels[split], lambda index: f"{rows.sources[index]}:{rows.row_numbers[index]}"
        )

    def fresh_predictor(self, quantization: Quantization | None = None) -> Predictor:
        """The base model with the head that the seed draws, on the device, proved indifferent to padding.

        Args:
            quantization: In place of the recipe's.
        """
        classifier = build_classifier(
            self.base,
            self.dataset.label_names,
            seed=self.recipe.seed,
            quantization=quantization or self.recipe.model.quantization,
            linear_kernel=self.runtime.linear_kernel,
        )
        classifier.requires_grad_(False)
        require_padding_indifference(classifier, self.base, self.tokens["train"])
        classifier.to(self.runtime.device)
        return Predictor(
            classifier, self.base.tokenizer, self.dataset.label_names, self.max_length, self.runtime, self.recipe.name
        )


def prepare(recipe: Recipe, progress: Progress, *, linear_kernel: str | None = None) -> Job:
    """Read, check, split and tokenize the rows of a recipe, and read all of the base model but its weights.

    Args:
        recipe: Resolved.
        progress: Told of every choice.
        linear_kernel: In place of the recipe's: the one with which the run began that is to be continued.

    Raises:
        DataError: A check found an error; all of them are told.
        TextliftError: Data or base model cannot be had or used (see `textlift.errors`).
    """
    runtime = choose_runtime(
        device=recipe.runtime.device,
        precision=recipe.runtime.precision,
        threads=recipe.runtime.threads,
        linear_kernel=linear_kernel or recipe.runtime.linear_kernel,
        fast=recipe.trains_fast,
    )
    require_possible(recipe, runtime)
    dataset, findings = read_and_check(recipe, progress)
    require_labels(recipe.decision, dataset)
    job = build_job(recipe, dataset, findings, runtime=runtime, progress=progress)
    raise_errors(job.findings)
    return job


def build_job(
    recipe: Recipe, dataset: Dataset, findings: Sequence[Finding], *, runtime: Runtime, progress: Progress
) -> Job:
    """Read all of the base model but its weights and tokenize every split; what the length limit cuts is told.

    Raises:
        TextliftError: The base model cannot be had or used (see `textlift.errors`).
    """
    require_possible(recipe, runtime)
    base = open_base(recipe.model.name, revision=recipe.model.revision, pooling=recipe.model.pooling)
    _require_base(recipe, base)
    untested = {
        capability(METHODS[one.method], base.model_type, precision_of(quantization_of(one))).reason
        for one in recipe.settled_variants()
    } - {""}
    for reason in (*untested, *base.reasons, *runtime.reasons):
        progress.say(f"  {reason}")
    counts = {split: token_counts(base.tokenizer, rows.texts) for split, rows in dataset.splits.items()}
    max_length, why_length = choose_max_length(base, counts["train"].tolist(), recipe.model.max_length)
    progress.say(f"  {why_length}")
    require_room(recipe, base, max_length)
    lengths = Lengths(counts, max_length, recipe.model.max_length != "auto")
    cut = found_at("tokens", Evidence(dataset, recipe.data, lengths))
    for finding in cut:
        if finding.severity != "error":  # errors are told by whoever stops for them
            progress.say(f"  {finding.severity}: {finding.message}")
    tokens = {
        split: tokenize(base.tokenizer, rows.texts, max_length=max_length) for split, rows in dataset.splits.items()
    }
    labels = {split: dataset.label_ids(split) for split in dataset.splits}
    return Job(recipe, dataset, (*findings, *cut), base, runtime, max_length, why_length, tokens, labels)


def require_possible(recipe: Recipe, runtime: Runtime) -> None:
    """Refuse a method that cannot work on the base model or in its precision, before any weight is fetched.

    The configuration of the base model is read only where a method could be refused by it.

    Raises:
        RecipeError: One cannot; the reason and the nearest that works are told.
        MissingExtraError: A package for a quantized base is not installed.
        TextliftError: The configuration cannot be had (see `textlift.errors`).
    """
    variants = recipe.settled_variants()
    family = ""
    if any(METHODS[variant.method].needs for variant in variants):
        family = read_model_type(recipe.model.name, recipe.model.revision)
    require_quantizable(recipe.model.quantization, device=runtime.device)
    for variant in variants:
        quantization = quantization_of(variant)
        require_capability(METHODS[variant.method], family, precision_of(quantization))
        require_quantizable(quantization, device=runtime.device)


def sources_of(recipe: Recipe) -> list[Path]:
    """Folders of saved adapters that the variants of a recipe start from."""
    settled = [method_of(variant) for variant in recipe.settled_variants()]
    return [place for method, options in settled for place in method.sources(options)]


def _require_base(recipe: Recipe, base: BaseModel) -> None:
    for variant in recipe.settled_variants():
        method, options = method_of(variant)
        if method.require_base is not None:
            method.require_base(options, base.folder.sha256, base.pooling)


def require_room(recipe: Recipe, base: BaseModel, max_length: int) -> None:
    """Refuse a method whose virtual tokens do not fit before the longest text.

    Raises:
        RecipeError: They do not, for the positions of the model.
    """
    for variant in recipe.settled_variants():
        taken = positions_taken(method_of(variant)[1])
        if base.positions and taken and taken + max_length > base.positions:
            room = base.positions - taken
            advice = f"--set model.max_length={room}" if room >= 16 else "fewer virtual tokens"
            raise RecipeError(
                f"variant {variant.name}: virtual tokens and text must fit into the {base.positions} positions of "
                f"{base.folder.name}; found {taken} and {max_length} tokens.\nPass {advice}."
            )


def read_with_progress(section: DataSection, progress: Progress) -> Dataset:
    """The splits that are there; how many bytes are read is told."""
    with ExitStack() as open_tasks:
        tasks: list[Task] = []

        def told(done: int, total: int) -> None:
            if not tasks:
                tasks.append(open_tasks.enter_context(progress.task("reading (bytes)", total)))
            tasks[0].reach(done)

        return read_dataset(section, progress=told)


def read_and_check(recipe: Recipe, progress: Progress) -> tuple[Dataset, list[Finding]]:
    """The final splits of a recipe and what the checks found; errors stop here.

    Raises:
        DataError: A check found an error; all of them are told.
    """
    raw = read_with_progress(recipe.data, progress)
    findings = find_problems(raw, recipe.data)
    raise_errors(findings)
    dataset = prepare_splits(raw, recipe.data, seed=recipe.seed)
    findings += find_problems(dataset, recipe.data)
    raise_errors(findings)
    rows = ", ".join(f"{split} {len(part):,}" for split, part in dataset.splits.items())
    progress.say(f"{dataset.name}: {rows} rows, {len(dataset.label_names)} classes")
    for reason in dataset.reasons:
        progress.say(f"  {reason}")
    for finding in findings:
        progress.say(f"  {finding.severity}: {shortened(finding.message)}")
    return dataset, findings


def require_padding_indifference(classifier: Classifier, base: BaseModel, tokens: TokenizedTexts) -> None:
    """Refuse a model whose logits change when a text is padded: its scores would depend on its neighbours.

    Raises:
        ModelError: They change by more than a thousandth of the largest logit.
    """
    import torch

    shortest = int(np.argmin(tokens.lengths))
    ids = torch.from_numpy(tokens[shortest].astype(np.int64))[None]
    room = base.context - ids.shape[1]
    if room < 1:
        return
    pad = int(base.tokenizer.pad_token_id or 0)
    shift = padding_shift(classifier, ids, pad_token_id=pad, padding=min(3, room))
    if not shift <= _PADDING_TOLERANCE:
        raise ModelError(
            f"model {base.folder.name}: padding must not change a logit; it changes them by {shift:.1%} of the largest."
            "\nThe architecture does not mask padding as textlift needs; use another base model."
        )


def data_digests(dataset: Dataset) -> Mapping[str, Any]:
    """sha256 of each file of the data, and the rows that were used of each split."""
    files = {name: record["sha256"] for name, record in dataset.fingerprints.items()}
    return {"files": files, "splits": {split: split_digest(dataset, split) for split in dataset.splits}}


def split_digest(dataset: Dataset, split: str) -> str:
    """sha256 over texts and labels of a split in order."""
    rows = dataset.splits[split]
    digest = hashlib.sha256()
    for text, label in zip(rows.texts, rows.labels, strict=True):
        digest.update(json.dumps([text, label]).encode())
    return digest.hexdigest()


def shortened(message: str, limit: int = 240) -> str:
    """A message on one line, safe for a terminal."""
    line = safe_for_terminal(" ".join(message.split()))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
