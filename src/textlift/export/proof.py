"""The proof that what was saved is what was trained: a fresh process loads it and compares.

It knows plain libraries alone; an adapter that plain peft does not load is loaded by textlift itself.
"""

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
from textlift.export import own_check, plain_check
from textlift.export.deciding import require_same_decision
from textlift.export.saving import SETTINGS, read_settings
from textlift.inference import Predictor
from textlift.models.classifier import Classifier
from textlift.models.loading import BaseModel
from textlift.models.quantized import settings_of_quantized
from textlift.models.sources import EMBEDDED

PLAIN, OWN = "plain", "textlift"
TOLERANCE = 1e-3
SAMPLE = 8


def prove_saved(
    predictor: Predictor, base: BaseModel, texts: Sequence[str], *, adapter: Path | None, model: Path | None
) -> list[dict[str, Any]]:
    """Load adapter and model folder in a fresh process and compare logits and label names.

    Plain libraries load them; an adapter that plain peft does not know, textlift itself (loader "textlift").

    Args:
        predictor: What the folders must answer like.
        base: The base model of the adapter.
        texts: Any texts; a sample of 8, from short to long, is compared.
        adapter: A folder that `save_adapter` wrote, or None.
        model: A folder that `save_model` wrote, or None.

    Returns:
        One record for each way of loading: {"loader", "texts", "one_by_one", "largest_logit_difference", "tolerance"};
        one_by_one says whether the texts went through the loaded model each alone, without padding.

    Raises:
        ModelError: A folder does not load, its logits differ by more than the tolerance (a share of the largest), or
            its decision is another one.
    """
    for folder in (adapter, model):
        if folder is not None:
            require_same_decision(folder, predictor.decision, predictor.label_names)
    sample = _sample(texts)
    expected = predictor.exact_logits(sample)
    with tempfile.TemporaryDirectory(prefix="textlift-proof-") as place:
        answers: dict[str, Any] = {}
        for name, jobs in _jobs(predictor, base, sample, adapter=adapter, model=model, place=Path(place)).items():
            path = Path(place) / f"{name}.json"
            path.write_text(json.dumps(jobs), encoding="utf-8")
            answers |= _run(path) if name == PLAIN else _run_own(path)
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
                "one_by_one": kind == "adapter" and _is_right_alone(predictor.classifier),
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
) -> dict[str, list[dict[str, Any]]]:
    """The jobs of each program that has some: of plain libraries, of textlift."""
    shared = {
        "texts": sample,
        "label_names": list(predictor.label_names),
        "max_length": predictor.max_length,
        "quantization": settings_of_quantized(predictor.classifier.model),
    }
    mean = base.pooling == "mean"
    jobs: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    if adapter is not None and not _loads_with_peft(adapter):
        own.append({"kind": OWN, "folder": str(adapter), "base": str(base.folder.path), **shared})
    elif adapter is not None and mean:
        jobs.append({"kind": "encoder_adapter", "folder": str(adapter), "base": str(base.folder.path), **shared})
    elif adapter is not None:
        alone = _is_right_alone(predictor.classifier)
        jobs.append({"kind": "adapter", "folder": str(_loadable(adapter, base, place)), "one_by_one": alone, **shared})
    if model is not None and not mean:
        jobs.append({"kind": "pipeline", "folder": str(model), **shared})
    elif model is not None and find_spec("sentence_transformers") is not None:
        jobs.append({"kind": "sentence_transformer", "folder": str(model), **shared})
    return {name: some for name, some in ((PLAIN, jobs), (OWN, own)) if some}


def _is_right_alone(classifier: Classifier) -> bool:
    """Whether plain peft is right only for texts without padding: it takes the last position of a decoder."""
    return classifier.virtual_tokens > 0 and classifier.family.is_decoder and not classifier.mean_pooled


def _loads_with_peft(adapter: Path) -> bool:
    return not (adapter / SETTINGS).is_file() or read_settings(adapter).loads_without_textlift


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
    return _answers([str(plain_check.__file__), str(job)], {}, with_what="plain peft and transformers")


def _run_own(job: Path) -> dict[str, Any]:
    source = str(Path(__file__).parents[2])  # where textlift lies
    known = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    return _answers(["-m", own_check.__name__, str(job)], {"PYTHONPATH": known}, with_what="textlift")


def _answers(program: list[str], variables: dict[str, str], *, with_what: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, *program],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise ModelError(f"what was saved must load with {with_what} in a fresh process; it does not: {reason}")
    answers: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answers


def _sample(texts: Sequence[str]) -> list[str]:
    ordered = sorted((text for text in texts if text.strip()), key=len) or ["a text"]
    places = np.linspace(0, len(ordered) - 1, num=min(SAMPLE, len(ordered)))
    return [ordered[round(float(place))] for place in places]
