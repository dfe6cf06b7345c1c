"""Kernels that oneDNN compiles for the products of a step: once, not at every step."""

import os
import subprocess
import sys

import pytest

from conftest import BaseFolder
from textlift.models.kernels import has_bf16_products
from textlift.runtime import Runtime, onednn_product

STEPS = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from textlift.runtime import choose_runtime

runtime = choose_runtime(device="cpu", threads=1, linear_kernel="onednn", fast=sys.argv[2] == "fast")

from textlift.training.loop import Group, train_steps
from tiny_models import session, wrapped

predictor, _ = wrapped(Path(sys.argv[1]), "lora")
training = session(replace(predictor, runtime=runtime))
training.is_fast = sys.argv[2] == "fast"
batch = training.micro_batches(np.arange(24))[0]
groups = (Group(lambda: [batch]) for _ in range(3))
model, optimizer, schedule = training.classifier, training.optimizer, training.schedule
with training.products():
    for _ in train_steps(model, optimizer, schedule, groups=groups, runtime=runtime, dropout=False):
        print("step done", flush=True)
"""


@pytest.mark.skipif(
    onednn_product() is None or not has_bf16_products(Runtime("cpu", "fp32", 1, (), "onednn")),
    reason="this processor has no bf16 products",
)
@pytest.mark.parametrize(
    ("name", "way"), [("bert", "exact"), ("bert", "fast"), ("distilbert", "fast"), ("gpt2", "fast")]
)
def test_a_second_step_with_lora_on_all_layers_compiles_nothing_anew(
    base_folder: BaseFolder, name: str, way: str
) -> None:
    caches = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    outer = {key: value for key, value in os.environ.items() if key not in caches}
    told = subprocess.run(
        [sys.executable, "-c", STEPS, str(base_folder(name)), way],
        env={**outer, "PYTHONPATH": os.pathsep.join(sys.path), "ONEDNN_VERBOSE": "profile_create"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, *later = told.split("step done\n")
    assert "create:cache_miss" in first
    assert sum(step.count("create:cache_miss") for step in later) == 0
