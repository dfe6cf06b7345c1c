"""Inference on the CPU: textlift against the pipeline of transformers, sorted batches of it, and ONNX Runtime.

    python benchmarks/inference.py --data FILE.csv --text sentence [--limit 2000] [--rounds 5] [--threads 2]

One merged classifier, the embedded all-MiniLM-L6-v2 with a head of random weights, saved as a plain transformers folder
and read by every side. Each side gets the same texts and gives label and probabilities, tokenization included. Sides
are interleaved, round by round; the stream comes as it lies in the file and sorted by length. Latency is of one text at
a time. Labels are compared on every row. ONNX Runtime takes part where onnx, onnxscript and onnxruntime are installed
(pip install onnx onnxscript onnxruntime): fp32 with sorted batches, and dynamically quantized to int8.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textlift.data import prepare_splits, read_dataset
from textlift.data.batching import budget_batches
from textlift.export.loading import load_variant
from textlift.export.saving import save_model, settings_of
from textlift.inference import INFERENCE_TOKENS, Predictor
from textlift.models.loading import build_classifier, open_base
from textlift.recipe import DataSection
from textlift.runtime import choose_runtime, environment, quiet_libraries

LABELS = ("negative", "positive")
MAX_LENGTH = 128
PIPELINE_BATCH = 32
LATENCY_TEXTS = 40

Side = Callable[[Sequence[str]], list[str]]


def write_model(folder: Path) -> None:
    """The classifier of every side, in transformers' own format."""
    base = open_base("embedded", pooling="native")
    classifier = build_classifier(base, LABELS, seed=0).requires_grad_(False)
    predictor = Predictor(classifier, base.tokenizer, LABELS, MAX_LENGTH, choose_runtime(device="cpu"))
    settings = settings_of(base, predictor, kind="model", method="merged", label_values=LABELS)
    save_model(predictor, folder, settings=settings, card="")


def ours(folder: Path) -> Side:
    """`textlift.load(...).predict`."""
    predictor = load_variant(folder, choose_runtime(device="cpu"))
    return lambda texts: [one.label for one in predictor.predict(texts)]


def transformers_pipeline(folder: Path) -> Side:
    """The pipeline, batches of 32 in the order of the texts."""
    from transformers import pipeline

    made: Any = pipeline("text-classification", model=str(folder), batch_size=PIPELINE_BATCH, device="cpu")
    return lambda texts: [one["label"] for one in made(list(texts), truncation=True, max_length=MAX_LENGTH)]


def sorted_batches(folder: Path) -> Side:
    """Transformers with texts sorted by length, batches of 32: what sentence-transformers does."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def predict(texts: Sequence[str]) -> list[str]:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        found = np.empty(len(texts), dtype=np.int64)
        with torch.inference_mode():
            for start in range(0, len(order), PIPELINE_BATCH):
                rows = order[start : start + PIPELINE_BATCH]
                inputs = tokenizer(
                    [texts[i] for i in rows], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
                )
                found[rows] = model(**inputs).logits.argmax(1).numpy()
        return [LABELS[i] for i in found]

    return predict


def onnx_runtime(folder: Path, threads: int, *, int8: bool) -> Side:
    """ONNX Runtime on the same batches as ours: longest first, within the same budget of tokens."""
    import onnxruntime
    from transformers import AutoTokenizer

    path = folder / ("model-int8.onnx" if int8 else "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    pad = int(tokenizer.pad_token_id)

    def predict(texts: Sequence[str]) -> list[str]:
        ids = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)["input_ids"]
        lengths = np.asarray([len(one) for one in ids])
        found = np.empty(len(texts), dtype=np.int64)
        for rows in budget_batches(lengths, tokens_per_batch=INFERENCE_TOKENS):
            width = int(lengths[rows].max())
            inputs = np.full((len(rows), width), pad, dtype=np.int64)
            for place, row in enumerate(rows):
                inputs[place, : lengths[row]] = ids[row]
            mask = (np.arange(width) < lengths[rows][:, None]).astype(np.int64)
            (logits,) = session.run(None, {"input_ids": inputs, "attention_mask": mask})
            found[rows] = logits.argmax(1)
        return [LABELS[i] for i in found]

    return predict


def write_onnx(folder: Path) -> None:
    """model.onnx and model-int8.onnx beside the folder's weights."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.ones((2, 16), dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        model,
        (),
        str(folder / "model.onnx"),
        kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        dynamo=True,
        external_data=False,
    )
    plain = onnx.load(folder / "model.onnx")
    del plain.graph.value_info[:]  # shapes that the exporter noted and the quantizer contradicts
    onnx.save(plain, folder / "plain.onnx")
    quantize_dynamic(folder / "plain.onnx", folder / "model-int8.onnx", weight_type=QuantType.QInt8)


def texts_per_second(side: Side, texts: Sequence[str]) -> tuple[float, list[str]]:
    """Of one pass, with the labels."""
    began = time.perf_counter()
    labels = side(texts)
    return len(texts) / (time.perf_counter() - began), labels


def latency(side: Side, texts: Sequence[str]) -> float:
    """Median milliseconds of one text."""
    times = []
    for text in texts:
        began = time.perf_counter()
        side([text])
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def measure(sides: dict[str, Side], texts: list[str], rounds: int) -> dict[str, Any]:
    """Texts per second of each side and stream, latency, and the share of rows on which a side agrees with ours."""
    streams = {"as it lies": texts, "sorted": sorted(texts, key=len)}
    found: dict[str, Any] = {name: {"sorted": [], "as it lies": [], "latency": []} for name in sides}
    for side in sides.values():
        side(texts[:64])  # the first pass of each is not counted
    for number in range(rounds):
        for stream, some in streams.items():
            answers = {}
            for name, side in sides.items():
                speed, answers[name] = texts_per_second(side, some)
                found[name][stream].append(speed)
            for name, labels in answers.items():
                same = sum(a == b for a, b in zip(labels, answers["textlift"], strict=True))
                found[name]["agrees"] = min(found[name].get("agrees", 1.0), same / len(labels))
        for name, side in sides.items():
            found[name]["latency"].append(latency(side, texts[:LATENCY_TEXTS]))
        told = ", ".join(f"{name} {found[name]['as it lies'][-1]:,.0f}" for name in sides)
        print(f"round {number + 1}: {told} texts/s", flush=True)
    return found


def table(found: dict[str, Any]) -> str:
    """Medians, and ours over each side, pair by pair."""
    lines = ["| side | texts/s | texts/s, sorted | one text, ms | textlift over it (sorted) | same labels |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, one in found.items():
        ratios = [
            statistics.median(a / b for a, b in zip(found["textlift"][stream], one[stream], strict=True))
            for stream in ("as it lies", "sorted")
        ]
        middle = [statistics.median(one[key]) for key in ("as it lies", "sorted", "latency")]
        lines.append(
            f"| {name} | {middle[0]:,.0f} | {middle[1]:,.0f} | {middle[2]:.1f} | {ratios[0]:.2f} ({ratios[1]:.2f}) | "
            f"{one['agrees']:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(Path(__file__).parents[1] / "examples" / "community_centre.csv"))
    parser.add_argument("--text", default=None)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    choose_runtime(device="cpu", threads=options.threads)
    section = DataSection(source=options.data, text=options.text, allow_leak=True)
    texts = prepare_splits(read_dataset(section), section, seed=0).splits["train"].texts[: options.limit]
    with tempfile.TemporaryDirectory() as place, quiet_libraries():
        folder = Path(place) / "model"
        write_model(folder)
        sides = {
            "textlift": ours(folder),
            "transformers pipeline, batch 32": transformers_pipeline(folder),
            "transformers, sorted batches of 32": sorted_batches(folder),
        }
        if all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
            write_onnx(folder)
            sides["ONNX Runtime fp32"] = onnx_runtime(folder, options.threads, int8=False)
            sides["ONNX Runtime int8"] = onnx_runtime(folder, options.threads, int8=True)
        else:
            print("ONNX Runtime is left out: pip install onnx onnxscript onnxruntime", flush=True)
        found = measure(sides, texts, options.rounds)
    print(table(found))
    if options.json:
        record = {"sides": found, "texts": len(texts), "environment": environment(choose_runtime(device="cpu"))}
        options.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
