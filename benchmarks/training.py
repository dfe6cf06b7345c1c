"""Training throughput: textlift against Hugging Face Trainer + PEFT at their defaults, side by side in one process.

    python benchmarks/training.py --data FILE.csv --text sentence --label label [--model NAME] [--rounds 5]
        [--steps 60] [--max-length 128] [--json OUT]

Same model (embedded all-MiniLM-L6-v2 unless told, with native pooling), same rows, same LoRA (PEFT's default targets,
rank 8), batch 32, fp32, same threads. The peer pads dynamically (DataCollatorWithPadding), draws random batches
and keeps the dropout of the frozen base: all of that is its default. Tuned, it has buckets of length
(train_sampling_strategy="group_by_length"), no dropout in the base, and batches of 32 or 64.
Rounds are interleaved: peer, textlift, peer, ...
Counted are useful tokens (padding left out) per second between the first and the last step of a round, and the share
of the matrix-product peak measured between the rounds: useful tokens x 4 x linear weights / peak.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from textlift.data import prepare_splits, read_dataset
from textlift.data.batching import TokenizedTexts, tokenize
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel, build_classifier, open_base
from textlift.recipe import DataSection, TrainingSection
from textlift.runtime import choose_runtime, environment, onednn_product, quiet_libraries, set_seed
from textlift.training.loop import TrainStep
from textlift.training.session import Examples, TrainingSession
from textlift.training.tuning import apply_method

BATCH = 32
WARM_UP_STEPS = 3
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


def textlift_round(setting: Setting, seed: int) -> float:
    """Useful tokens per second of textlift."""
    classifier = build_classifier(setting.base, setting.label_names, seed=seed)
    set_seed(seed)
    method = METHODS["lora"]
    apply_method(
        classifier, method, method.options.model_validate({"target_modules": TARGETS[setting.base.model_type]})
    )
    predictor = Predictor(
        classifier, setting.base.tokenizer, setting.label_names, setting.max_length, choose_runtime(device="cpu")
    )
    rows = Examples(setting.tokens, setting.labels)
    few = Examples(first_rows(setting.tokens, BATCH), setting.labels[:BATCH])
    session = TrainingSession(
        predictor,
        rows,
        few,
        settings=TrainingSection(batch_size=BATCH, epochs=10, max_steps=setting.steps, evaluations_per_epoch=1),
        learning_rate=1e-3,
        seed=seed,
        base_dropout=False,
    )
    useful, began = 0, 0.0
    for event in session.run():
        if not isinstance(event, TrainStep):
            continue
        if event.number > WARM_UP_STEPS:
            useful += event.useful_tokens
        if event.number == WARM_UP_STEPS:
            began = time.perf_counter()
        if event.number == setting.steps:
            return useful / (time.perf_counter() - began)
    raise RuntimeError("the session ended before its last step")


def trainer_round(setting: Setting, seed: int, *, tuned: bool = False, batch: int = BATCH) -> float:
    """Useful tokens per second of Trainer + PEFT at their defaults, or with buckets of length and no frozen dropout."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Useful tokens and times; the collator tells it what each step sees."""

        began = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - their form
            if state.global_step == WARM_UP_STEPS:
                self.began = time.perf_counter()
            self.ended = time.perf_counter()

    pad = DataCollatorWithPadding(setting.base.tokenizer)
    seen: list[int] = []

    def collate(rows: list[dict[str, Any]]) -> Any:
        seen.append(sum(len(row["input_ids"]) for row in rows))
        return pad(rows)

    rows = [{"input_ids": setting.tokens[i].tolist(), "labels": int(label)} for i, label in enumerate(setting.labels)]
    clock = Clock()
    with quiet_libraries(), tempfile.TemporaryDirectory() as folder:
        drops = [name for name in setting.base.config.to_dict() if name.endswith(("dropout", "dropout_prob", "_pdrop"))]
        dropout = dict.fromkeys(drops, 0.0) if tuned else {}
        model = AutoModelForSequenceClassification.from_pretrained(
            setting.base.folder.path,
            num_labels=len(setting.label_names),
            pad_token_id=setting.base.tokenizer.pad_token_id,
            dtype=torch.float32,
            **dropout,
        )
        targets = list(TARGETS[setting.base.model_type])
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=8, target_modules=targets))
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=batch,
            max_steps=setting.steps,
            seed=seed,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **({"train_sampling_strategy": "group_by_length"} if tuned else {}),
        )
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[clock]).train()
    return sum(seen[WARM_UP_STEPS : setting.steps]) / (clock.ended - clock.began)


def matrix_peak(seconds: float = 1.0) -> float:
    """Floating-point operations per second of the best matrix product here, now: torch's (MKL) or oneDNN's."""
    best = 0.0
    products: list[Callable[[Any, Any], Any]] = [torch.mm]
    onednn = onednn_product()
    if onednn is not None:
        products.append(lambda left, right: onednn(left, right, None, "none", [], ""))
    for size in (512, 1024, 2048):
        left, right = torch.randn(size, size), torch.randn(size, size)
        for product in products:
            product(left, right)
            began, runs = time.perf_counter(), 0
            while time.perf_counter() - began < seconds / 6:
                product(left, right)
                runs += 1
            best = max(best, runs * 2 * size**3 / (time.perf_counter() - began))
    return best


def first_rows(tokens: TokenizedTexts, count: int) -> TokenizedTexts:
    """The first texts alone."""
    ends = tokens.offsets[: count + 1]
    return TokenizedTexts(tokens.input_ids[: ends[-1]], ends, tokens.uncut_lengths[:count])


def linear_weights(setting: Setting) -> int:
    """Weights of the linear layers inside the repeated layers."""
    classifier = build_classifier(setting.base, setting.label_names, seed=0)
    modules = dict(classifier.model.named_modules())
    weights: list[nn.Parameter] = [modules[name].weight for name in classifier.linear_layers()]
    return sum(weight.numel() for weight in weights)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(Path(__file__).parents[1] / "examples" / "community_centre.csv"))
    parser.add_argument("--text", default=None)
    parser.add_argument("--label", default=None)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--limit", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    section = DataSection(
        source=options.data, text=options.text, label=options.label, limit=options.limit, allow_leak=True
    )
    dataset = prepare_splits(read_dataset(section), section, seed=0)
    base = open_base(options.model, pooling="native")
    texts = dataset.splits["train"].texts
    setting = Setting(
        base,
        tokenize(base.tokenizer, texts, max_length=options.max_length),
        dataset.label_ids("train"),
        dataset.label_names,
        options.steps,
        options.max_length,
    )
    sides: dict[str, Callable[[Setting, int], float]] = {
        "Trainer + PEFT": trainer_round,
        "Trainer + PEFT, tuned": partial(trainer_round, tuned=True),
        "Trainer + PEFT, tuned, batch 64": partial(trainer_round, tuned=True, batch=2 * BATCH),
        "textlift": textlift_round,
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    runtime = choose_runtime(device="cpu")
    for number in range(options.rounds):
        peaks.append(matrix_peak())
        for name, side in sides.items():
            speeds[name].append(side(setting, number))
        told = ", ".join(f"{name} {speeds[name][-1]:,.0f}" for name in sides)
        print(f"round {number + 1}: {told} useful tokens/s; peak {peaks[-1] / 1e9:.0f} GFLOP/s", flush=True)
    weights, peak = linear_weights(setting), statistics.median(peaks)
    ratios = {
        name: [ours / theirs for ours, theirs in zip(speeds["textlift"], values, strict=True)]
        for name, values in speeds.items()
        if name != "textlift"
    }
    print("\n| side | useful tokens/s, median (min to max) | share of peak |\n|---|---:|---:|")
    for name, values in speeds.items():
        middle = statistics.median(values)
        print(
            f"| {name} | {middle:,.0f} ({min(values):,.0f} to {max(values):,.0f}) | {middle * 4 * weights / peak:.0%} |"
        )
    for name, some in ratios.items():
        middle = statistics.median(some)
        print(f"\ntextlift / {name}, pair by pair: median {middle:.2f} ({min(some):.2f} to {max(some):.2f})")
    if options.json:
        record = {"speeds": speeds, "ratios": ratios, "peaks": peaks, "linear_weights": weights}
        options.json.write_text(json.dumps({**record, "environment": environment(runtime)}, indent=2))


if __name__ == "__main__":
    main()
