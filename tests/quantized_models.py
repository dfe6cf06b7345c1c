"""Tiny base models in 8 or 4 bits, wrapped or not."""

from pathlib import Path
from typing import Any

import torch

from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel, build_classifier, open_base
from textlift.recipe import Quantization
from textlift.runtime import Runtime
from textlift.training.tuning import apply_method
from tiny_models import CPU, EMBEDDERS, LABEL_NAMES, MAX_LENGTH, TABLE

FAMILIES = [*TABLE, *EMBEDDERS]
BITS: tuple[Quantization, ...] = ("8bit", "4bit")


def packed(
    folder: Path, quantization: Quantization, *, seed: int = 0, runtime: Runtime = CPU
) -> tuple[Predictor, BaseModel]:
    """A predictor with a fresh head over the quantized base model of a folder, nothing set to train."""
    base = open_base(str(folder))
    classifier = build_classifier(
        base, LABEL_NAMES, seed=seed, quantization=quantization, linear_kernel=runtime.linear_kernel
    ).requires_grad_(False)
    return Predictor(classifier, base.tokenizer, LABEL_NAMES, MAX_LENGTH, runtime, "tiny"), base


def tuned(
    folder: Path, quantization: Quantization, *, method: str = "qlora", runtime: Runtime = CPU, **options: Any
) -> tuple[Predictor, BaseModel]:
    """The same, wrapped by a method of the table."""
    predictor, base = packed(folder, quantization, runtime=runtime)
    torch.manual_seed(0)
    entry = METHODS[method]
    apply_method(predictor.classifier, entry, entry.options(**options))
    return predictor, base
