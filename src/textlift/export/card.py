"""The model card of a saved variant: what it is, how it scored, how it is loaded with plain libraries."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from textlift.escaping import escape_markdown
from textlift.export.saving import SavedSettings
from textlift.methods.registry import METHODS

_ADAPTER = """from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

label_names = {names}
tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoPeftModelForSequenceClassification.from_pretrained(
    "{folder}", num_labels=len(label_names), id2label=dict(enumerate(label_names)),
    pad_token_id=tokenizer.pad_token_id{precision})
"""
_ENCODER_ADAPTER = """from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel

model = PeftModel.from_pretrained(AutoModel.from_pretrained({base}{precision}), "{folder}")
head = load_file("{folder}/head.safetensors")  # logits = mean of the hidden states @ weight.T + bias
"""
# Where a method puts virtual tokens before the text in the model's output, by pooling.
_VIRTUAL_TOKENS = {
    "native": """# On a decoder (GPT-2, Llama), one text at a time: peft takes the last position, padding or not.
""",
    "mean": """# The mean is over last_hidden_state[:, -L:] of a text of L tokens: virtual tokens stand before them.
""",
}
_PIPELINE = """from transformers import pipeline

classify = pipeline("text-classification", model="{folder}")
"""
_SENTENCE = """from sentence_transformers import SentenceTransformer

logits = SentenceTransformer("{folder}").encode(["a text"])  # in the order of label_names in textlift.json
"""


_NAME_LENGTH = 200


def model_card(record: Mapping[str, Any], settings: SavedSettings, *, name: str, dataset: str) -> str:
    """README.md of an adapter or model folder.

    Args:
        record: Of results.json, with scores on validation and test where they were measured.
        settings: As saved beside the weights.
        name: Of the run.
        dataset: As told to people.
    """
    adapter = settings.kind == "adapter"
    mean = settings.pooling == "mean"
    own = not settings.loads_without_textlift
    packed = settings.quantization != "none"
    reason = "bitsandbytes unpacks this base wrongly" if packed else "peft has no adapter of this kind"
    library = "textlift" if own else "peft" if adapter else "sentence-transformers" if mean else "transformers"
    front = [
        "---",
        f"base_model: {_yaml_string(settings.base_public_name)}",
        f"library_name: {library}",
        "pipeline_tag: text-classification",
        "tags: [textlift]",
        "---",
        "",
    ]
    scores = [
        f"| {split} | {part['n']:,} | {part['accuracy']:.4f} ({part['accuracy_low']:.4f} to "
        f"{part['accuracy_high']:.4f}) | {part['f1_macro']:.4f} |"
        for split, part in ((split, record[split]) for split in ("validation", "test") if split in record)
    ]
    header = ["| split | rows | accuracy (95 % interval) | F1 macro |", "|---|---:|---|---:|"]
    body = [
        f"# {_shown(name)}: {_shown(record['method'])}",
        "",
        f"A text classifier of {len(settings.label_names)} classes, tuned by textlift on {_shown(dataset)}.",
        f"{record['trained_parameters']:,} of {record['total_parameters']:,} parameters were trained.",
        "",
        *([*header, *scores, ""] if scores else []),
        'With textlift: `textlift.load("FOLDER").predict(["a text"])`. Without'
        + (f" it, it does not load: {reason}." if own else ":"),
        "",
        *([] if own else ["```python", _code_without_textlift(settings), "```", ""]),
        f"Texts are cut at {settings.max_length} tokens. Labels, in the order of the logits, stand in `textlift.json`.",
        "",
    ]
    return "\n".join([*front, *body])


def _code_without_textlift(settings: SavedSettings) -> str:
    code = {
        ("adapter", "native"): _ADAPTER,
        ("adapter", "mean"): _ENCODER_ADAPTER,
        ("model", "native"): _PIPELINE,
        ("model", "mean"): _SENTENCE,
    }[settings.kind, settings.pooling]
    method = METHODS.get(settings.method)  # none for a merged model
    if method is not None and method.virtual_tokens is not None and settings.kind == "adapter":
        code += _VIRTUAL_TOKENS[settings.pooling]
    names = f"[{', '.join(map(_literal, settings.label_names))}]"
    base, precision = _literal(settings.base_public_name), ""
    if settings.quantization_settings:
        values = ", ".join(f"{key}={value!r}" for key, value in settings.quantization_settings.items())
        code = f"from transformers import BitsAndBytesConfig\n\nquantization = BitsAndBytesConfig({values})\n{code}"
        precision = ", quantization_config=quantization"
    return code.format(names=names, folder="FOLDER", base=base, precision=precision).rstrip()


def _yaml_string(text: str) -> str:
    """A string in ASCII on one line, from which any reader of YAML gets the same text."""
    written: str = yaml.safe_dump(text, default_style='"', width=float("inf"))
    return written.strip()


def _literal(text: str) -> str:
    """Text as Python writes it, in ASCII on one line, so that nothing in it ends the block of code."""
    return json.dumps(text) if text.isascii() and text.isprintable() else ascii(text)


def _shown(text: str) -> str:
    """A name as Markdown shows it, as written but for what is too long."""
    return escape_markdown(text if len(text) <= _NAME_LENGTH else f"{text[:_NAME_LENGTH]}…")
