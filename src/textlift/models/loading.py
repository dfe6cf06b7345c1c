"""A base model, its tokenizer and its family, ready to be classified with.

Knows transformers. Does not know recipes, methods or training.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textlift.errors import ModelError, RecipeError
from textlift.models.classifier import Classifier
from textlift.models.families import Family, family_of, located
from textlift.models.kernels import fuse_activations
from textlift.models.quantized import loading_options, settle_quantized
from textlift.models.sources import ModelFolder, find_model
from textlift.recipe import Quantization
from textlift.runtime import quiet_libraries, set_seed

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

AUTO_MAX_LENGTH = 512
_ALIGNMENT = 64  # bytes; torch's allocator begins every tensor at a multiple of it
# These count positions from the padding index on: two of RoBERTa's 514 are never used.
_POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


@dataclass(frozen=True)
class BaseModel:
    """A base model that is known but not loaded: files, configuration, tokenizer, pooling, limits."""

    folder: ModelFolder
    config: "PretrainedConfig"
    tokenizer: "PreTrainedTokenizerBase"
    pooling: str
    context: int
    reasons: tuple[str, ...]

    @property
    def model_type(self) -> str:
        """The architecture, as the configuration names it."""
        return str(self.config.model_type)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, D."""
        config: Any = self.config
        return int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 768))

    @property
    def positions(self) -> int:
        """Positions that the model has, for text and for what a method puts before it; 0 where it does not say."""
        return _positions(self.config)


def open_base(name: str, *, revision: str | None = None, pooling: str = "auto") -> BaseModel:
    """Find a base model and read everything about it but its weights.

    Raises:
        InputNotFoundError, UnavailableError, MissingExtraError: It cannot be had.
        ModelError: It cannot be used.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = find_model(name, revision)
    with quiet_libraries():
        try:
            config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # tokenizers raises plain Exception
            raise ModelError(
                f"model {name}: configuration and tokenizer must be readable by transformers; {_first_line(error)}."
            ) from error
    _require_full_precision(config, name)
    pad_reason = _settle_padding(tokenizer, config, name)
    chosen, pooling_reason = _choose_pooling(folder.path, pooling)
    reasons = tuple(reason for reason in (pad_reason, pooling_reason) if reason)
    return BaseModel(folder, config, tokenizer, chosen, _context(config, tokenizer, name), reasons)


def build_classifier(
    base: BaseModel,
    label_names: Sequence[str],
    *,
    seed: int,
    fresh_head: bool = True,
    quantization: Quantization = "none",
    linear_kernel: str = "torch",
) -> Classifier:
    """The base model with a fresh head, drawn from the seed, in evaluation mode on the CPU.

    All of it is fp32, but for the linear layers below the head where they are to be quantized.

    Args:
        base: The base model.
        label_names: In the order of the label ids; C of them.
        seed: The head, and modules that the checkpoint lacks, are drawn from it.
        fresh_head: False keeps the head that the folder holds.
        quantization: "8bit" or "4bit" keeps the weights of the linear layers so; see `require_quantizable`.
        linear_kernel: Whose product quantized layers use.

    Raises:
        ModelError: The weights do not fit the configuration or are damaged, or cannot be quantized.
    """
    with quiet_libraries():
        how = {} if quantization == "none" else loading_options(quantization, spared=_head_names(base))
        set_seed(seed)  # modules that the checkpoint lacks are drawn while loading
        model = _load_native(base, label_names, how) if base.pooling == "native" else _load_encoder(base, how)
        family = family_of(model, base.model_type, getattr(model, "base_model_prefix", ""))
        if quantization != "none":
            settle_quantized(model, family, linear_kernel=linear_kernel)
            family = replace(family, fan_in_fan_out=False)  # transformers turns a weight round before it is packed
        classifier = Classifier(model, family, n_classes=len(label_names), mean_pooled=base.pooling == "mean")
        if fresh_head:
            classifier.draw_head(seed)
    return classifier.eval()


def choose_max_length(base: BaseModel, token_counts: "Sequence[int]", asked: int | str) -> tuple[int, str]:
    """The tokens that the model sees of a text, with the reason.

    Args:
        base: Its context is the upper limit.
        token_counts: Tokens of each training text, uncut, special tokens included, (N,).
        asked: A number, or "auto": the 99th percentile, rounded up to a multiple of 8, at most 512.

    Raises:
        RecipeError: The number asked for is beyond the context of the model.
    """
    if isinstance(asked, int):
        if asked > base.context:
            raise RecipeError(
                f"model.max_length must be at most {base.context}, the context of {base.folder.name}; found {asked}."
            )
        return asked, f"max_length {asked}: as asked"
    import numpy as np

    limit = min(base.context, AUTO_MAX_LENGTH)
    wanted = int(np.quantile(np.asarray(token_counts), 0.99)) if len(token_counts) else limit
    length = min(limit, max(16, math.ceil(wanted / 8) * 8))
    if wanted > limit:
        why = "the context of the model" if limit == base.context else "the most that is taken unasked"
        return length, f"max_length {length}: {why}; 99 % of the training texts would need {wanted}"
    return length, f"max_length {length}: holds 99 % of the training texts"


def _require_full_precision(config: "PretrainedConfig", name: str) -> None:
    packed: Any = getattr(config, "quantization_config", None)
    if packed:
        values = packed if isinstance(packed, dict) else packed.to_dict()
        raise ModelError(
            f"model {name}: weights must be in full precision; config.json says {values.get('quant_method', 'packed')}."
            "\nName the model that it was made from, and pass --set model.quantization=4bit or 8bit."
        )


def _head_names(base: BaseModel) -> list[str]:
    """Full names of the modules of the head, found on a model without weights."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    auto_class: Any = AutoModelForSequenceClassification if base.pooling == "native" else AutoModel
    with torch.device("meta"):
        outline = auto_class.from_config(copy.deepcopy(base.config))
    family: Family = family_of(outline, base.model_type, getattr(outline, "base_model_prefix", ""))
    return located(outline, family.head_modules)


def _load_native(base: BaseModel, label_names: Sequence[str], how: dict[str, Any]) -> "PreTrainedModel":
    from transformers import AutoModelForSequenceClassification

    options = {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
        "pad_token_id": base.config.pad_token_id,
        **how,
    }
    return _from_pretrained(AutoModelForSequenceClassification, base, options)


def _load_encoder(base: BaseModel, how: dict[str, Any]) -> "PreTrainedModel":
    from transformers import AutoModel

    return _from_pretrained(AutoModel, base, how)


def _from_pretrained(auto_class: Any, base: BaseModel, options: dict[str, Any]) -> "PreTrainedModel":
    import torch

    name = base.folder.name
    try:
        model, told = auto_class.from_pretrained(
            base.folder.path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a head for another number of labels is drawn afresh; more is refused below
            **options,
        )
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        raise ModelError(f"model {name}: must load into {base.model_type}; {_first_line(error)}.") from error
    problems = [str(problem) for problem in told.get("error_msgs", [])]
    if problems:
        raise ModelError(f"model {name}: weights must fit {base.model_type}; {problems[0][:200]}.")
    absent = {*told["missing_keys"], *(key[0] for key in told.get("mismatched_keys", []))}
    _check_missing(model, sorted(absent), base)
    _check_finite(model, name)
    _settle_memory(model)
    fuse_activations(model)
    loaded: PreTrainedModel = model
    return loaded


def _check_finite(model: "PreTrainedModel", name: str) -> None:
    """A single NaN makes every score one."""
    import torch

    for key, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"model {name}: weights must be finite numbers; {key} holds NaN or infinity.\nFetch the model again."
            )


def _settle_memory(model: "PreTrainedModel") -> None:
    """Move weights that lie where the file put them to where torch puts its own.

    Matrix products round differently by where a matrix begins, so that equal weights would give unequal logits; and
    what is mapped from a file changes with it.
    """
    for weight in model.parameters():
        if weight.is_floating_point() and weight.data_ptr() % _ALIGNMENT:
            weight.data = weight.data.clone()


def _check_missing(model: "PreTrainedModel", missing: list[str], base: BaseModel) -> None:
    """Only head modules may be absent from a checkpoint; another weight drawn at random would be a silent fault."""
    family = family_of(model, base.model_type, getattr(model, "base_model_prefix", ""))
    heads = tuple(f"{name}." for name in located(model, family.head_modules))
    lost = [key for key in missing if not key.startswith(heads)]
    if lost:
        raise ModelError(
            f"model {base.folder.name}: every weight of the base must be in the checkpoint, in the shape that "
            f"config.json says; {len(lost)} are not, such as {lost[0]}."
        )


def _settle_padding(tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", name: str) -> str:
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    if tokenizer.pad_token is not None:
        reason = ""
    else:
        token = tokenizer.eos_token or tokenizer.unk_token
        if token is None:
            raise ModelError(
                f"model {name}: the tokenizer must have a padding token, or an end-of-text or unknown token to pad "
                "with; it has none."
            )
        tokenizer.pad_token = token
        reason = f"pad token {token!r}: the tokenizer has none of its own; set in tokenizer and model"
    config.pad_token_id = tokenizer.pad_token_id
    vocabulary = int(getattr(config.get_text_config(), "vocab_size", 0) or 0)
    n_tokens = max((len(tokenizer), *(number + 1 for number in tokenizer.get_vocab().values())))
    if vocabulary and n_tokens > vocabulary:
        what = f"{n_tokens} tokens" if n_tokens == len(tokenizer) else f"token ids up to {n_tokens - 1}"
        raise ModelError(
            f"model {name}: tokenizer and model must share a vocabulary; the tokenizer has {what}, "
            f"the model {vocabulary}."
        )
    return reason


def _choose_pooling(path: Path, asked: str) -> tuple[str, str]:
    if asked != "auto":
        return asked, f"pooling {asked}: as asked"
    modules, settings = path / "modules.json", path / "1_Pooling" / "config.json"
    if modules.is_file() and settings.is_file():
        try:
            values = dict(json.loads(settings.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError) as error:
            raise ModelError(f"{settings}: must be a JSON object; it cannot be read ({error}).") from error
        others = [key for key, on in values.items() if key.startswith("pooling_mode_") and on is True]
        if others == ["pooling_mode_mean_tokens"] or values.get("pooling_mode") == "mean":
            return "mean", "pooling mean: the base model is a sentence embedder with mean pooling (modules.json)"
    return "native", "pooling native: the family's own, so that plain transformers loads the result"


def _context(config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase", name: str) -> int:
    stated: Any = tokenizer.model_max_length
    try:
        limits = (_positions(config), int(stated or 0))
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"model {name}: model_max_length in tokenizer_config.json must be a whole number; "
            f"found {str(stated)[:40]!r}."
        ) from error
    return min((limit for limit in limits if 0 < limit < 10**6), default=AUTO_MAX_LENGTH)


def _positions(config: "PretrainedConfig") -> int:
    positions = int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 0)
    if positions and config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= int(config.pad_token_id or 0) + 1
    return max(0, positions)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")
