"""Load what textlift wrote with plain peft, transformers and sentence-transformers, and print how far logits differ.

Run as a program in a fresh process, with the path of a job in JSON; imports nothing of textlift, so that it sees what
any user of the ecosystem sees.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def check_adapter(job: dict[str, Any], torch: Any) -> Any:
    """Logits of an adapter through AutoPeftModelForSequenceClassification."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    names = job["label_names"]
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        job["folder"],
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        pad_token_id=tokenizer.pad_token_id,
        ignore_mismatched_sizes=True,
        **_precision(job),
    ).eval()
    _unpack_exactly(model)
    groups = [[text] for text in job["texts"]] if job.get("one_by_one") else [job["texts"]]
    with torch.inference_mode():
        return torch.cat([model(**_inputs(tokenizer, {**job, "texts": group})).logits for group in groups]).numpy()


def check_encoder_adapter(job: dict[str, Any], torch: Any) -> Any:
    """Logits of an adapter through PeftModel over AutoModel, mean pooling and the head beside it."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(job["base"], **_precision(job)), job["folder"]).eval()
    _unpack_exactly(model)
    head = load_file(Path(job["folder"]) / "head.safetensors")
    inputs = _inputs(tokenizer, job)
    with torch.inference_mode():
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        hidden = model(**inputs).last_hidden_state[:, -mask.shape[1] :]  # (B, L, D), without virtual tokens
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return (pooled @ head["weight"].T + head["bias"]).numpy()


def check_pipeline(job: dict[str, Any], torch: Any) -> Any:
    """Logits of a model folder through pipeline("text-classification"), put in order by label name."""
    from transformers import pipeline

    classify: Any = pipeline("text-classification", model=job["folder"], device="cpu")
    told = classify(job["texts"], top_k=None, function_to_apply="none", truncation=True, batch_size=4)
    rows = [{item["label"]: item["score"] for item in row} for row in told]
    return torch.tensor([[row[name] for name in job["label_names"]] for row in rows]).numpy()


def check_sentence_transformer(job: dict[str, Any], torch: Any) -> Any:  # noqa: ARG001 - one form for all
    """Logits of a sentence-transformers folder through encode."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(job["folder"], device="cpu").encode(job["texts"])


CHECKS: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "adapter": check_adapter,
    "encoder_adapter": check_encoder_adapter,
    "pipeline": check_pipeline,
    "sentence_transformer": check_sentence_transformer,
}


def _precision(job: dict[str, Any]) -> dict[str, Any]:
    """What from_pretrained is told where the base was quantized."""
    if not job.get("quantization"):
        return {}
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return {"quantization_config": config(**job["quantization"]), "device_map": {"": "cpu"}}


def _unpack_exactly(model: Any) -> None:
    """Let the layers of bitsandbytes multiply fp32 inputs with what their weights unpack to.

    Unasked, the 4-bit layer multiplies in bf16 where the processor has it, and the 8-bit layer rounds its inputs unless
    it is in training mode, which changes nothing else of it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        elif type(module).__name__ == "Linear8bitLt" and not hasattr(module, "base_layer"):
            module.training = True


def _inputs(tokenizer: Any, job: dict[str, Any]) -> Any:
    inputs = tokenizer(job["texts"], padding=True, truncation=True, max_length=job["max_length"], return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def main(path: str) -> None:
    """Run every check of the job file and print one JSON object: kind of check to logits."""
    import torch

    jobs = json.loads(Path(path).read_text(encoding="utf-8"))
    logits = {job["kind"]: CHECKS[job["kind"]](job, torch).tolist() for job in jobs}
    sys.stdout.write("\n" + json.dumps(logits) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
