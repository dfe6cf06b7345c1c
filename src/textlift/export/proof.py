"""The proof that what was saved is what was trained: a fresh process loads it with plain libraries and compares."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from textlift.errors import ModelError
from textlift.export import plain_check
from textlift.inference import Predictor
from textlift.models.loading import BaseModel
from textlift.models.sources import EMBEDDED

TOLERANCE = 1e-3
SAMPLE = 8


def prove_saved(
    predictor: Predictor, base: BaseModel, texts: Sequence[str], *, adapter: Path | None, model: Path | None
) -> list[dict[str, Any]]:
    """Load adapter and model folder in a fresh process with plain libraries and compare logits and label names.

    Args:
        predictor: What the folders must answer like.
        base: The base model of the adapter.
        texts: Any texts; a sample of 8, from short to long, is compared.
        adapter: A folder that `save_adapter` wrote, or None.
        model: A folder that `save_model` wrote, or None.

    Returns:
        One record for each way of loading: {"loader", "texts", "largest_logit_difference", "tolerance"}.

    Raises:
        ModelError: A folder does not load, or its logits differ by more than the tolerance (a share of the largest).
    """
    sample = _sample(texts)
    expected = predictor.forward(predictor.tokenize(sample)).logits
    with tempfile.TemporaryDirectory(prefix="textlift-proof-") as place:
        jobs = _jobs(predictor, base, sample, adapter=adapter, model=model, place=Path(place))
        if not jobs:
            return []
        path = Path(place) / "job.json"
        path.write_text(json.dumps(jobs), encoding="utf-8")
        answers = _run(path)
    scale = max(1.0, float(np.abs(expected).max()))
    records = []
    for kind, logits in answers.items():
        difference = float(np.abs(np.asarray(logits) - expected).max())
        if not difference <= TOLERANCE * scale:
            raise ModelError(
                f"what was saved must give the logits of the trained model; loaded as {kind} they differ by "
                f"{difference:.2g} (tolerance {TOLERANCE * scale:.2g}). The run is kept, but do not use it."
            )
        records.append(
            {
                "loader": kind,
                "texts": len(sample),
                "largest_logit_difference": difference,
                "tolerance": TOLERANCE * scale,
            }
        )
    return records


def _jobs(
    predictor: Predictor,
    base: BaseModel,
    sample: list[str],
    *,
    adapter: Path | None,
    model: Path | None,
    place: Path,
) -> list[dict[str, Any]]:
    shared = {"texts": sample, "label_names": list(predictor.label_names), "max_length": predictor.max_length}
    mean = base.pooling == "mean"
    jobs: list[dict[str, Any]] = []
    if adapter is not None and mean:
        jobs.append({"kind": "encoder_adapter", "folder": str(adapter), "base": str(base.folder.path), **shared})
    elif adapter is not None:
        jobs.append({"kind": "adapter", "folder": str(_loadable(adapter, base, place)), **shared})
    if model is not None and not mean:
        jobs.append({"kind": "pipeline", "folder": str(model), **shared})
    elif model is not None and find_spec("sentence_transformers") is not None:
        jobs.append({"kind": "sentence_transformer", "folder": str(model), **shared})
    return jobs


def _loadable(adapter: Path, base: BaseModel, place: Path) -> Path:
    """The adapter as plain peft can load it here: the embedded base has no public name on a machine without network."""
    if base.folder.name != EMBEDDED:
        return adapter
    copy = place / "adapter"
    shutil.copytree(adapter, copy)
    path = copy / "adapter_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "base_model_name_or_path": str(base.folder.path)}), encoding="utf-8")
    return copy


def _run(job: Path) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, str(plain_check.__file__), str(job)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise ModelError(
            f"what was saved must load with plain peft and transformers in a fresh process; it does not: {reason}"
        )
    answers: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answers


def _sample(texts: Sequence[str]) -> list[str]:
    ordered = sorted((text for text in texts if text.strip()), key=len) or ["a text"]
    places = np.linspace(0, len(ordered) - 1, num=min(SAMPLE, len(ordered)))
    return [ordered[round(float(place))] for place in places]
