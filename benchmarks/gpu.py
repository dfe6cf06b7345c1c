"""Training throughput on a GPU: textlift against a tuned Hugging Face Trainer + PEFT, side by side in one process.

    python benchmarks/gpu.py [--shapes bert-base,minilm] [--lengths short,long] [--rounds 5] [--steps 30] [--json OUT]
    python benchmarks/gpu.py --smoke                 # the same on a CPU with tiny models: only that it runs

Models have random weights and the shape of BERT-base (12 layers of 768) or MiniLM (6 layers of 384); texts are random
tokens, of 8 to 60 each (as sentences of the news are) or of 256. LoRA of rank 8 on query and value, bf16, AdamW.

The Trainer is tuned: bf16, batches of like length, no dropout in the base, each batch size, with and without
torch_compile. textlift runs padded and packed, with and without compiled layers, at the same batch sizes. First each
way is tried once; then the fastest of each side, and both sides at 32 examples a step, take turns for all rounds.
Counted are useful tokens (padding left out) per second, and their share of the peak: useful tokens x 4 x linear weights
over the rate of a bf16 matrix product of 8192 x 8192 x 8192, measured anew in each round.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import numpy as np
import torch

from textlift.data.batching import TokenizedTexts
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import build_classifier, open_base
from textlift.recipe import TrainingSection
from textlift.runtime import Runtime, environment, quiet_libraries, set_seed
from textlift.training.loop import TrainStep
from textlift.training.session import Examples, TrainingSession
from textlift.training.tuning import apply_method

TARGETS = ("query", "value")
LABEL_NAMES = ("one", "two", "three")
WARM_UP_STEPS = 12
BATCHES = (32, 128, 512)
ROWS = 16_384
WORDS = 30_000
SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "smoke": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
}


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    folder: Path
    tokens: TokenizedTexts
    labels: np.ndarray
    runtime: Runtime
    weights: int


class Side(Protocol):
    """One way to train, ready to take more steps."""

    def tokens_per_second(self, steps: int) -> float:
        """Useful tokens per second of so many more steps."""

    def close(self) -> None:
        """Give its memory back."""


class Ours:
    """A session of textlift that is continued from round to round."""

    def __init__(self, setting: Setting, *, batch: int, packs: bool, compiles: bool) -> None:
        base = open_base(str(setting.folder), pooling="native")
        classifier = build_classifier(base, LABEL_NAMES, seed=0).requires_grad_(False).to(setting.runtime.device)
        set_seed(0)
        method = METHODS["lora"]
        apply_method(classifier, method, method.options.model_validate({"target_modules": TARGETS}))
        classifier.to(setting.runtime.device)
        predictor = Predictor(classifier, base.tokenizer, LABEL_NAMES, 512, setting.runtime)
        few = Examples(first_rows(setting.tokens, 32), setting.labels[:32])
        settings = TrainingSection(
            batch_size=batch,
            tokens_per_batch=10**8,
            epochs=1000,
            evaluations_per_epoch=1,
            patience=None,
            compile=compiles,
        )
        rows = Examples(setting.tokens, setting.labels)
        session = TrainingSession(
            predictor, rows, few, settings=settings, learning_rate=1e-3, seed=0, base_dropout=False
        )
        if packs and not classifier.packs:
            raise RuntimeError(f"cannot be packed: {classifier.not_packed}")
        classifier.packs = packs
        self.classifier = classifier
        self.steps: Iterator[TrainStep] = (event for event in session.run() if isinstance(event, TrainStep))
        self.runtime = setting.runtime
        self.tokens_per_second(WARM_UP_STEPS)

    def tokens_per_second(self, steps: int) -> float:
        """As any side."""
        wait(self.runtime)
        began = time.perf_counter()
        useful = sum(next(self.steps).useful_tokens for _ in range(steps))
        wait(self.runtime)
        return useful / (time.perf_counter() - began)

    def close(self) -> None:
        """As any side."""
        self.steps.close()  # type: ignore[attr-defined]
        del self.classifier, self.steps
        empty(self.runtime)


class Theirs:
    """A Trainer in a thread of its own that waits after each round."""

    def __init__(self, setting: Setting, *, batch: int, compiles: bool) -> None:
        self.asked: Queue[int] = Queue()
        self.told: Queue[float | BaseException] = Queue()
        self.runtime = setting.runtime
        self.thread = threading.Thread(target=self._train, args=(setting, batch, compiles), daemon=True)
        self.thread.start()
        self.tokens_per_second(WARM_UP_STEPS)

    def tokens_per_second(self, steps: int) -> float:
        """As any side."""
        self.asked.put(steps)
        told = self.told.get()
        if isinstance(told, BaseException):
            raise RuntimeError(f"the Trainer failed: {told}") from told
        return told

    def close(self) -> None:
        """As any side."""
        self.asked.put(0)
        self.thread.join(timeout=60)
        empty(self.runtime)

    def _train(self, setting: Setting, batch: int, compiles: bool) -> None:
        try:
            trainer_for(setting, batch, compiles, side=self).train()
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            traceback.print_exc()
            self.told.put(error)


def pauses(setting: Setting, seen: list[int], side: Theirs) -> Any:
    """A callback of Trainer that waits to be asked, takes the steps and tells their useful tokens per second."""
    from transformers import TrainerCallback

    class Pauses(TrainerCallback):  # type: ignore[misc]
        """Waits to be asked, takes the steps, tells their speed."""

        left, first, began = 0, 0, 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - their form
            if self.left == 0:
                self.left = side.asked.get()
                self.first = state.global_step
                wait(setting.runtime)
                self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - their form
            self.left -= 1
            control.should_training_stop = self.left < 0
            if self.left == 0:
                wait(setting.runtime)
                seconds = time.perf_counter() - self.began
                side.told.put(sum(seen[self.first : state.global_step]) / seconds)

    return Pauses()


def trainer_for(setting: Setting, batch: int, compiles: bool, *, side: Theirs) -> Any:
    """A Trainer that takes as many steps as it is asked for, tells its speed and waits."""
    from inspect import signature

    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(setting.folder))
    seen: list[int] = []

    def collate(rows: list[dict[str, Any]]) -> Any:
        seen.append(sum(len(row["input_ids"]) for row in rows))
        return pad(rows)

    rows = [{"input_ids": setting.tokens[i].tolist(), "labels": int(label)} for i, label in enumerate(setting.labels)]
    set_seed(0)
    with quiet_libraries():
        model = AutoModelForSequenceClassification.from_pretrained(
            setting.folder,
            num_labels=len(LABEL_NAMES),
            dtype=torch.float32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=8, target_modules=list(TARGETS)))
    known = signature(TrainingArguments).parameters
    buckets = {"train_sampling_strategy": "group_by_length"}
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=10**6,
        bf16=True,
        torch_compile=compiles,
        use_cpu=setting.runtime.device == "cpu",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **(buckets if "train_sampling_strategy" in known else {"group_by_length": True}),
    )
    return Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[pauses(setting, seen, side)]
    )


def wait(runtime: Runtime) -> None:
    if runtime.device.startswith("cuda"):
        torch.cuda.synchronize()


def empty(runtime: Runtime) -> None:
    if runtime.device.startswith("cuda"):
        torch.cuda.empty_cache()


def matrix_peak(runtime: Runtime, size: int) -> float:
    """Floating-point operations per second of a bf16 matrix product, over half a second."""
    left, right = (torch.randn(size, size, device=runtime.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    wait(runtime)
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        for _ in range(10):
            left @ right
        wait(runtime)
        runs += 10
    return runs * 2 * size**3 / (time.perf_counter() - began)


def first_rows(tokens: TokenizedTexts, count: int) -> TokenizedTexts:
    ends = tokens.offsets[: count + 1]
    return TokenizedTexts(tokens.input_ids[: ends[-1]], ends, tokens.uncut_lengths[:count])


def setting_of(shape: str, lengths: str, runtime: Runtime, *, rows: int) -> Setting:
    """A random model of a shape in a folder, and random texts."""
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = Path(tempfile.mkdtemp())
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *(f"w{k}" for k in range(WORDS))])}
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=512, **names).save_pretrained(folder)
    set_seed(1)
    config = BertConfig(vocab_size=len(vocabulary), num_labels=len(LABEL_NAMES), **SHAPES[shape])
    BertForSequenceClassification(config).save_pretrained(folder)
    generator = np.random.default_rng(0)
    sizes = {
        "short": np.clip(generator.lognormal(3.2, 0.45, rows), 8, 60).astype(np.int64),
        "long": np.full(rows, 256),
    }[lengths]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ids = generator.integers(len(special), len(vocabulary), offsets[-1]).astype(np.int32)
    labels = generator.integers(0, len(LABEL_NAMES), rows)
    layers = SHAPES[shape]["num_hidden_layers"]
    width, inner = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    weights = layers * (4 * width * width + 2 * width * inner)
    return Setting(folder, TokenizedTexts(ids, offsets, sizes), labels, runtime, weights)


def ways_of(setting: Setting, batches: tuple[int, ...], *, with_compile: bool) -> dict[str, dict[str, Any]]:
    """Every way to train, by its name: whose it is and its options."""
    compiles = (False, True) if with_compile else (False,)
    packs = (False, True) if setting.runtime.device.startswith("cuda") else (False,)
    ways: dict[str, dict[str, Any]] = {}
    for batch in batches:
        for one in compiles:
            told = f"batch {batch}{', compiled' if one else ''}"
            ways[f"Trainer, {told}"] = {"kind": Theirs, "batch": batch, "compiles": one}
            for packed in packs:
                kind = "packed" if packed else "padded"
                ways[f"textlift, {kind}, {told}"] = {"kind": Ours, "batch": batch, "compiles": one, "packs": packed}
    return ways


def open_side(setting: Setting, options: dict[str, Any]) -> Side:
    side: Side = options["kind"](setting, **{name: value for name, value in options.items() if name != "kind"})
    return side


def tried(setting: Setting, ways: dict[str, dict[str, Any]], *, steps: int, until: float) -> dict[str, float]:
    """Useful tokens per second of each way, taken once; a way that fails is told and left out."""
    speeds: dict[str, float] = {}
    for name, options in ways.items():
        if time.monotonic() > until:
            print(f"  {name}: no time left")
            continue
        began = time.perf_counter()
        try:
            side = open_side(setting, options)
            ready = time.perf_counter() - began
            speeds[name] = side.tokens_per_second(steps)
            side.close()
        except Exception as error:  # noqa: BLE001 - one way must not end the others
            print(f"  {name}: FAILED, {type(error).__name__}: {str(error).splitlines()[0][:300]}", flush=True)
            continue
        print(f"  {name}: {speeds[name]:,.0f} useful tokens/s (ready after {ready:.0f} s)", flush=True)
    return speeds


def finalists(speeds: dict[str, float], ways: dict[str, dict[str, Any]]) -> list[str]:
    """The fastest way of each side, and of each side at the smallest batch."""
    smallest = min(options["batch"] for options in ways.values())
    found = []
    for kind in (Theirs, Ours):
        for batch in (None, smallest):
            some = [n for n in speeds if ways[n]["kind"] is kind and batch in (None, ways[n]["batch"])]
            found += [max(some, key=lambda name: speeds[name])] if some else []
    return list(dict.fromkeys(found))


def compare(setting: Setting, options: argparse.Namespace, batches: tuple[int, ...]) -> dict[str, Any]:
    """Try every way, then let the best take turns; what was found, and its table printed."""
    ways = ways_of(setting, batches, with_compile=not options.no_compile)
    once = tried(setting, ways, steps=options.steps, until=options.began + options.seconds * 0.6)
    chosen = {name: open_side(setting, ways[name]) for name in finalists(once, ways)}
    speeds: dict[str, list[float]] = {name: [] for name in chosen}
    peaks = []
    for _ in range(options.rounds):
        peaks.append(matrix_peak(setting.runtime, options.size))
        for name, side in chosen.items():
            speeds[name].append(side.tokens_per_second(options.steps))
    for side in chosen.values():
        side.close()
    peak = statistics.median(peaks)
    print(f"\nbf16 peak, median of {len(peaks)}: {peak / 1e12:,.1f} TFLOP/s ({min(peaks):.3g} to {max(peaks):.3g})")
    print("\n| way | useful tokens/s, median (min to max) | share of peak |\n|---|---:|---:|")
    for name, values in speeds.items():
        middle = statistics.median(values)
        share = middle * 4 * setting.weights / peak
        print(f"| {name} | {middle:,.0f} ({min(values):,.0f} to {max(values):,.0f}) | {share:.1%} |")
    for mine in (name for name in speeds if ways[name]["kind"] is Ours):
        for other in (name for name in speeds if ways[name]["kind"] is Theirs):
            ratios = [ours / theirs for ours, theirs in zip(speeds[mine], speeds[other], strict=True)]
            middle = statistics.median(ratios)
            print(f"{mine} / {other}: median {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    return {"tried": once, "speeds": speeds, "peaks": peaks, "linear_weights": setting.weights}


def profile(setting: Setting, batch: int) -> None:
    """The kernels that take the time of a packed step."""
    side = Ours(setting, batch=batch, packs=True, compiles=False)
    with torch.profiler.profile() as told:
        side.tokens_per_second(3)
    print(told.key_averages().table(sort_by="self_cuda_time_total", row_limit=18, max_name_column_width=70))
    side.close()


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="bert-base,minilm")
    parser.add_argument("--lengths", default="short,long")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=8192, help="of the matrices whose product is the peak")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no new way is tried after 60 %% of them")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="tiny models on a CPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.began = time.monotonic()
    if options.smoke:
        options.shapes, options.lengths, options.batches, options.size = "smoke", "short", "4,8", 256
    runtime = Runtime("cpu" if options.smoke else "cuda", "bf16", torch.get_num_threads(), ())
    facts = environment(runtime)
    print(json.dumps(facts), flush=True)
    batches = tuple(int(batch) for batch in options.batches.split(","))
    found: dict[str, Any] = {}
    for shape in options.shapes.split(","):
        for lengths in options.lengths.split(","):
            print(f"\n## {shape}, {lengths} texts\n", flush=True)
            setting = setting_of(shape, lengths, runtime, rows=512 if options.smoke else ROWS)
            found[f"{shape}, {lengths}"] = compare(setting, options, batches)
            if options.profile:
                profile(setting, max(batches))
    if options.json:
        options.json.write_text(json.dumps({"found": found, "environment": facts}, indent=2))


if __name__ == "__main__":
    main()
