"""The two sides of the training benchmarks on one setting: textlift, and Hugging Face Trainer + PEFT."""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from textlift.data import prepare_splits, read_dataset
from textlift.data.batching import TokenizedTexts, tokenize
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel, build_classifier, open_base
from textlift.recipe import DataSection, TrainingSection
from textlift.runtime import choose_runtime, quiet_libraries, set_seed
from textlift.training.session import Examples, TrainingSession
from textlift.training.tuning import apply_method

BATCH = 32
TARGETS = {  # PEFT's defaults; it has none for DistilBERT
    "bert": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "gpt2": ("c_attn",),
}


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    base: BaseModel
    tokens: TokenizedTexts
    labels: Any
    label_names: tuple[str, ...]
    steps: int
    max_length: int

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The options that `read` reads."""
        parser.add_argument("--data", default=str(Path(__file__).parents[1] / "examples" / "community_centre.csv"))
        parser.add_argument("--text", default=None)
        parser.add_argument("--label", default=None)
        parser.add_argument("--model", default="embedded")
        parser.add_argument("--max-length", type=int, default=128)
        parser.add_argument("--limit", type=int, default=8000)
        parser.add_argument("--steps", type=int, default=60)

    @classmethod
    def read(cls, options: argparse.Namespace) -> "Setting":
        """Rows and base model, with the native pooling that Trainer has."""
        section = DataSection(
            source=options.data, text=options.text, label=options.label, limit=options.limit, allow_leak=True
        )
        dataset = prepare_splits(read_dataset(section), section, seed=0)
        base = open_base(options.model, pooling="native")
        tokens = tokenize(base.tokenizer, dataset.splits["train"].texts, max_length=options.max_length)
        labels = dataset.label_ids("train")
        return cls(base, tokens, labels, dataset.label_names, options.steps, options.max_length)

    @property
    def targets(self) -> tuple[str, ...]:
        """The linear layers that LoRA adapts."""
        return TARGETS[self.base.model_type]

    def linear_weights(self) -> int:
        """Weights of the linear layers inside the repeated layers."""
        classifier = build_classifier(self.base, self.label_names, seed=0)
        modules = dict(classifier.model.named_modules())
        weights: list[nn.Parameter] = [modules[name].weight for name in classifier.linear_layers()]
        return sum(weight.numel() for weight in weights)


def textlift_session(
    setting: Setting, seed: int, *, targets: Sequence[str] | str | None = None, **settings: Any
) -> TrainingSession:
    """Ours, ready to run; validation is a single batch. LoRA adapts the setting's layers unless told."""
    classifier = build_classifier(setting.base, setting.label_names, seed=seed)
    set_seed(seed)
    method = METHODS["lora"]
    apply_method(classifier, method, method.options.model_validate({"target_modules": targets or setting.targets}))
    runtime = choose_runtime(device="cpu")
    predictor = Predictor(classifier, setting.base.tokenizer, setting.label_names, setting.max_length, runtime)
    few = Examples(first_rows(setting.tokens, BATCH), setting.labels[:BATCH])
    values = {"batch_size": BATCH, "epochs": 10, "max_steps": setting.steps, "evaluations_per_epoch": 1, **settings}
    return TrainingSession(
        predictor,
        Examples(setting.tokens, setting.labels),
        few,
        settings=TrainingSection.model_validate(values),
        learning_rate=1e-3,
        seed=seed,
        base_dropout=False,
    )


def train_peer(
    setting: Setting,
    seed: int,
    *,
    tuned: bool,
    batch: int = BATCH,
    callbacks: Sequence[Any] = (),
    seen: Callable[[int], None] = lambda _: None,
    before: Callable[[], None] = lambda: None,
    evaluated: tuple[TokenizedTexts, np.ndarray] | None = None,
    targets: Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """Train with Trainer + PEFT at their defaults, or tuned: buckets of length, no dropout in the base.

    Args:
        setting: Model, rows, steps.
        seed: Of order, head and dropout.
        tuned: Whether with buckets of length and without dropout.
        batch: Examples of a step.
        callbacks: For Trainer.
        seen: Told the useful tokens of every batch.
        before: Called when all is loaded.
        evaluated: Tokens and label ids that Trainer evaluates on.
        targets: Layers that LoRA adapts; the setting's unless told.
        arguments: More for TrainingArguments.

    Returns:
        The Trainer.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

    pad = DataCollatorWithPadding(setting.base.tokenizer)

    def collate(rows: list[dict[str, Any]]) -> Any:
        seen(sum(len(row["input_ids"]) for row in rows))
        return pad(rows)

    drops = [name for name in setting.base.config.to_dict() if name.endswith(("dropout", "dropout_prob", "_pdrop"))]
    set_seed(seed)
    with quiet_libraries(), tempfile.TemporaryDirectory() as folder:
        model = AutoModelForSequenceClassification.from_pretrained(
            setting.base.folder.path,
            num_labels=len(setting.label_names),
            pad_token_id=setting.base.tokenizer.pad_token_id,
            dtype=torch.float32,
            **(dict.fromkeys(drops, 0.0) if tuned else {}),
        )
        layers = list(targets or setting.targets)
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=8, target_modules=layers))
        wanted = {
            "per_device_train_batch_size": batch,
            "max_steps": setting.steps,
            "seed": seed,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            **({"train_sampling_strategy": "group_by_length"} if tuned else {}),
            **(arguments or {}),
        }
        trainer = Trainer(
            model=model,
            args=TrainingArguments(folder, **wanted),
            train_dataset=rows_of(setting.tokens, setting.labels),
            eval_dataset=None if evaluated is None else rows_of(*evaluated),
            data_collator=collate,
            callbacks=list(callbacks),
            compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        )
        before()
        trainer.train()
    return trainer


def rows_of(tokens: TokenizedTexts, labels: np.ndarray) -> list[dict[str, Any]]:
    """As Trainer reads them."""
    return [{"input_ids": tokens[index].tolist(), "labels": int(label)} for index, label in enumerate(labels)]


def first_rows(tokens: TokenizedTexts, count: int) -> TokenizedTexts:
    """The first texts alone."""
    ends = tokens.offsets[: count + 1]
    return TokenizedTexts(tokens.input_ids[: ends[-1]], ends, tokens.uncut_lengths[:count])
