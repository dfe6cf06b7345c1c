"""Tiny base models made from configurations, saved as people publish them: without a classification head."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from textlift.data.batching import collate
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel, build_classifier, open_base
from textlift.recipe import TrainingSection
from textlift.runtime import Runtime, quiet_libraries
from textlift.training.loop import gradients_of
from textlift.training.session import Examples, TrainingSession
from textlift.training.tuning import apply_method

SUBJECTS = {"sea": ("wave", "boat", "salt"), "sky": ("cloud", "bird", "star"), "soil": ("root", "worm", "clay")}
LABEL_NAMES = tuple(SUBJECTS)
FILLERS = ("the", "a", "old", "near", "under", "we", "saw", "and", "then", "again")
WORDS = (*FILLERS, *(word for words in SUBJECTS.values() for word in words))
MAX_LENGTH = 24
POSITIONS = 48
SPARE = 8  # vocabulary rows without a token, as published checkpoints have them
CPU = Runtime("cpu", "fp32", 1, ())


def texts_and_labels(n: int = 24, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Short texts of 3 to 15 words, each with the words of its class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % len(LABEL_NAMES)
    texts = []
    for label in labels:
        words = list(generator.choice(FILLERS, size=int(generator.integers(1, 13))))
        words += list(generator.choice(SUBJECTS[LABEL_NAMES[label]], size=2))
        texts.append(" ".join(generator.permutation(words)))
    return texts, labels.astype(np.int64)


TEXTS, LABELS = texts_and_labels()


BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def word_piece(special: Sequence[str] = BERT_TOKENS) -> Any:
    """A WordPiece tokenizer with the special tokens of BERT or those of RoBERTa, in the order of their ids."""
    from transformers import PreTrainedTokenizerFast

    first, pad, last, unknown, mask = special if special == ROBERTA_TOKENS else (special[i] for i in (2, 0, 3, 1, 4))
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS, *letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        model_max_length=POSITIONS,
    )


def byte_pairs(*, first: str | None = None, end: str | None = "<end>", pad: str | None = None) -> Any:
    """A byte-level tokenizer of whole words and bytes, with the special tokens asked for and no others."""
    from transformers import PreTrainedTokenizerFast

    special = [token for token in (end, first, pad) if token]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = list(dict.fromkeys([*special, *letters]))
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for text in (word, f"Ġ{word}"):
            for end_of_part in range(2, len(text) + 1):
                pair = (text[: end_of_part - 1], text[end_of_part - 1])
                if pair not in merges:
                    merges.append(pair)
                    tokens.append("".join(pair))
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if first:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, vocabulary[first])]
        )
    named = {"bos_token": first, "eos_token": end, "pad_token": pad}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{key: name for key, name in named.items() if name})


def _encoder(names: str, special: Sequence[str] = BERT_TOKENS, **extra: Any) -> Callable[[], tuple[Any, Any]]:
    config_name, model_name = names.split()

    def build() -> tuple[Any, Any]:
        import transformers

        tokenizer = word_piece(special)
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        options = {**shape, "max_position_embeddings": POSITIONS, "pad_token_id": tokenizer.pad_token_id, **extra}
        config = getattr(transformers, config_name)(vocab_size=len(tokenizer) + SPARE, initializer_range=0.1, **options)
        return getattr(transformers, model_name)(config), tokenizer

    return build


def _decoder(names: str, tokens: Callable[[], Any], **extra: Any) -> Callable[[], tuple[Any, Any]]:
    config_name, model_name = names.split()

    def build() -> tuple[Any, Any]:
        import transformers

        tokenizer = tokens()
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        if config_name not in {"GPT2Config", "OPTConfig"}:
            shape["intermediate_size"] = 48
        if config_name in {"LlamaConfig", "Qwen2Config", "Qwen3Config"}:
            shape["num_key_value_heads"] = 2
        config = getattr(transformers, config_name)(
            vocab_size=len(tokenizer) + SPARE,
            max_position_embeddings=POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **{**shape, **extra},
        )
        return getattr(transformers, model_name)(config), tokenizer

    return build


TABLE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "bert": _encoder("BertConfig BertForMaskedLM"),
    "distilbert": _encoder("DistilBertConfig DistilBertForMaskedLM", hidden_dim=48),
    "roberta": _encoder("RobertaConfig RobertaForMaskedLM", ROBERTA_TOKENS),
    "deberta-v2": _encoder(
        "DebertaV2Config DebertaV2Model",
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        position_biased_input=False,
    ),
    "modernbert": _encoder(
        "ModernBertConfig ModernBertForMaskedLM",
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        local_attention=8,
    ),
    "gpt2": _decoder("GPT2Config GPT2LMHeadModel", byte_pairs),
    "llama": _decoder("LlamaConfig LlamaForCausalLM", lambda: byte_pairs(first="<begin>")),
    "qwen2": _decoder("Qwen2Config Qwen2ForCausalLM", lambda: byte_pairs(pad="<pad>")),
    "qwen3": _decoder("Qwen3Config Qwen3ForCausalLM", lambda: byte_pairs(pad="<pad>"), head_dim=8),
}
EMBEDDERS = {"embedder": _encoder("BertConfig BertModel")}
OTHERS = {
    "electra": _encoder("ElectraConfig ElectraForPreTraining", embedding_size=16),
    "albert": _encoder("AlbertConfig AlbertForMaskedLM", embedding_size=16),
    "mpnet": _encoder("MPNetConfig MPNetForMaskedLM", ROBERTA_TOKENS),
    "opt": _decoder("OPTConfig OPTForCausalLM", byte_pairs, ffn_dim=48, word_embed_proj_dim=32),
    "gpt_neox": _decoder("GPTNeoXConfig GPTNeoXForCausalLM", byte_pairs),
}
BUILDERS = {**TABLE, **EMBEDDERS, **OTHERS}
# For contract tests: outside the table, one encoder and one decoder are enough for the default tier.
EVERY_BASE: list[Any] = [
    *TABLE,
    *EMBEDDERS,
    *(name if name in {"albert", "opt"} else pytest.param(name, marks=pytest.mark.slow) for name in OTHERS),
]


def write_base(name: str, folder: Path) -> Path:
    """The tiny base model of a family as a folder, its weights drawn from a fixed seed."""
    torch.manual_seed(7)
    with quiet_libraries():
        model, tokenizer = BUILDERS[name]()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if name in EMBEDDERS:
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def wide_base(folder: Path) -> Path:
    """A BERT of four layers of 384, whose activations fill more than the blocks in which a GPU's memory is given."""
    from transformers import BertConfig, BertModel

    tokenizer = word_piece()
    shape = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1536}
    torch.manual_seed(7)
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fresh(folder: Path, *, seed: int = 0, pooling: str = "auto") -> tuple[Predictor, BaseModel]:
    """A predictor with a fresh head over the base model of a folder, nothing set to train."""
    base = open_base(str(folder), pooling=pooling)
    classifier = build_classifier(base, LABEL_NAMES, seed=seed).requires_grad_(False)
    return Predictor(classifier, base.tokenizer, LABEL_NAMES, MAX_LENGTH, CPU, "tiny"), base


def wrapped(folder: Path, method: str, *, seed: int = 0, **options: Any) -> tuple[Predictor, BaseModel]:
    """The same, wrapped by a method of the table."""
    predictor, base = fresh(folder, seed=seed)
    torch.manual_seed(seed)
    entry = METHODS[method]
    apply_method(predictor.classifier, entry, options_of(folder, method, **options))
    return predictor, base


def options_of(folder: Path, method: str, **options: Any) -> Any:
    """Checked options of a method; what has no default is made: two small LoRA adapters on the base, to fuse."""
    if method == "fusion" and "adapters" not in options:
        options["adapters"] = tuple(lora_adapter(folder, seed=seed, rank=seed + 1) for seed in (1, 2))
    return METHODS[method].options(**options)


def lora_adapter(folder: Path, *, seed: int, **options: Any) -> str:
    """The folder of a saved LoRA adapter on a base, its weights moved by the seed; written once, beside the base."""
    from textlift.export.saving import save_adapter, settings_of

    place = folder.parent / f"{folder.name}-lora-{seed}-{'-'.join(map(str, options.values()))}"
    if not place.is_dir():
        predictor, base = wrapped(folder, "lora", seed=seed, **options)
        settings = settings_of(base, predictor, kind="adapter", method="lora", label_values=LABEL_NAMES)
        save_adapter(disturb(predictor, seed), place, settings=settings, card="")
    return str(place)


def session(
    predictor: Predictor,
    *,
    n: int = 24,
    learning_rate: float = 5e-3,
    seed: int = 0,
    base_dropout: bool = False,
    **settings: Any,
) -> TrainingSession:
    """A training of the predictor on n of the tiny texts; the same texts are its validation."""
    texts, labels = texts_and_labels(n)
    rows = Examples(predictor.tokenize(texts), labels)
    return TrainingSession(
        predictor,
        rows,
        rows,
        settings=TrainingSection(**{"batch_size": 8, "epochs": 1, **settings}),
        learning_rate=learning_rate,
        seed=seed,
        base_dropout=base_dropout,
    )


def disturb(predictor: Predictor, seed: int = 3) -> Predictor:
    """Every trained weight moved at random, as training would: an adapter that starts at zero then does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in predictor.classifier.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return predictor


def gradients_on(predictor: Predictor, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """The gradients of one step over some of the tiny texts, by name."""
    tokens, classifier = predictor.tokenize(TEXTS), predictor.classifier
    inputs = collate(tokens, rows, pad_token_id=int(predictor.tokenizer.pad_token_id or 0))
    classifier.zero_grad()
    classifier.set_training(base_dropout=False)
    batch = {**inputs, "labels": torch.from_numpy(LABELS[rows])}
    gradients_of(classifier, [batch], runtime=predictor.runtime, penalty=None)
    return {name: p.grad.clone() for name, p in classifier.named_parameters() if p.grad is not None}


def logits_of(predictor: Predictor, texts: Sequence[str] = TEXTS) -> np.ndarray:
    """Logits (N, C) through the one forward path."""
    return predictor.forward(predictor.tokenize(texts)).logits
