"""Prompt, p- and prefix tuning: their shapes and start values, the pooling past virtual tokens, room, save and load."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

import tiny_models
from cli_calls import Command
from conftest import BaseFolder
from textlift.data.batching import collate
from textlift.errors import RecipeError
from textlift.export.loading import load_variant
from textlift.export.proof import prove_saved
from textlift.export.saving import save_adapter, settings_of
from textlift.inference import Predictor
from textlift.methods.prompt import PrefixTuningOptions, PromptTuningOptions, PTuningOptions, virtual_tokens_of
from textlift.models.classifier import mean_pool, padding_shift
from textlift.models.families import FAMILIES
from textlift.models.loading import BaseModel, open_base
from textlift.recipe import Recipe
from textlift.workflow.preparation import require_room
from tiny_models import CPU, LABEL_NAMES, TEXTS, disturb, logits_of, session, wrapped

BEFORE = ("prompt-tuning", "p-tuning")
ENCODERS = ("bert", "distilbert", "roberta", "deberta-v2", "modernbert", "electra", "albert", "mpnet")
DECODERS = ("gpt2", "llama", "qwen2", "qwen3", "opt", "gpt_neox")
TAKE_PAST = ("bert", "roberta", "electra", *DECODERS, "embedder")
PAIRS = [
    *((name, method) for name in (*ENCODERS, *DECODERS, "embedder") for method in BEFORE),
    *((name, "prefix-tuning") for name in TAKE_PAST),
]


def moved(folder: Path, method: str, **options: object) -> tuple[Predictor, BaseModel]:
    """Wrapped, with prompt and head moved as training would."""
    predictor, base = wrapped(folder, method, **options)
    return disturb(predictor), base


def inputs_of(predictor: Predictor, texts: list[str]) -> dict[str, torch.Tensor]:
    tokens = predictor.tokenize(texts)
    return collate(tokens, np.arange(len(texts)), pad_token_id=predictor.tokenizer.pad_token_id)


def save(predictor: Predictor, base: BaseModel, method: str, folder: Path) -> Path:
    settings = settings_of(base, predictor, kind="adapter", method=method, label_values=LABEL_NAMES)
    save_adapter(predictor, folder, settings=settings, card="")
    return folder


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_padding_changes_no_logit(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, base = moved(base_folder(name), method)
    tokens = predictor.tokenize(TEXTS)
    for index in (int(np.argmin(tokens.lengths)), int(np.argmax(tokens.lengths))):
        ids = torch.from_numpy(tokens[index].astype(np.int64))[None]
        assert padding_shift(predictor.classifier, ids, pad_token_id=base.tokenizer.pad_token_id) < 1e-5


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_features_are_what_the_final_layer_sees_of_each_text(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = moved(base_folder(name), method)
    result = predictor.forward(predictor.tokenize(TEXTS), features=True)
    final = predictor.classifier.final_linear()
    bias = 0.0 if final.bias is None else final.bias.detach().numpy()
    assert result.features is not None
    np.testing.assert_allclose(result.features @ final.weight.detach().numpy().T + bias, result.logits, atol=1e-5)


@pytest.mark.parametrize("method", BEFORE)
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_gives_what_plain_peft_gives_of_each_text_alone(
    base_folder: BaseFolder, name: str, method: str
) -> None:
    predictor, _ = moved(base_folder(name), method)
    with torch.inference_mode():
        plain = [predictor.classifier.model(**inputs_of(predictor, [text])).logits for text in TEXTS]
    np.testing.assert_allclose(logits_of(predictor), torch.cat(plain).numpy(), atol=1e-5)


def test_plain_peft_takes_a_padding_position_of_a_decoder(base_folder: BaseFolder) -> None:
    predictor, _ = moved(base_folder("llama"), "prompt-tuning")
    with torch.inference_mode():
        plain = predictor.classifier.model(**inputs_of(predictor, TEXTS)).logits.numpy()
    assert abs(plain - logits_of(predictor)).max() > 0.1  # the reason for pooling ourselves; peft issue 764


@pytest.mark.parametrize("method", BEFORE)
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_what_plain_peft_gives_of_a_batch(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = moved(base_folder(name), method)
    with torch.inference_mode():
        plain = predictor.classifier.model(**inputs_of(predictor, TEXTS)).logits.numpy()
    np.testing.assert_allclose(logits_of(predictor), plain, atol=1e-5)


@pytest.mark.parametrize(("method", "positions"), [("prompt-tuning", 20), ("p-tuning", 20), ("prefix-tuning", 0)])
def test_mean_pooling_leaves_the_virtual_tokens_out(base_folder: BaseFolder, method: str, positions: int) -> None:
    predictor, _ = moved(base_folder("embedder"), method)
    classifier, inputs = predictor.classifier, inputs_of(predictor, TEXTS)
    assert classifier.head is not None
    with torch.inference_mode():
        hidden = classifier.model(**inputs).last_hidden_state
        assert hidden.shape[1] == positions + inputs["input_ids"].shape[1]
        expected = classifier.head(mean_pool(hidden[:, positions:], inputs["attention_mask"]))
    np.testing.assert_allclose(logits_of(predictor), expected.numpy(), atol=1e-5)


def test_the_notice_of_transformers_about_padding_is_not_shown(base_folder: BaseFolder) -> None:
    from transformers.utils.logging import warning_once

    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    try:
        for name in ("gpt2", "llama"):
            warning_once.cache_clear()
            logits_of(wrapped(base_folder(name), "prompt-tuning")[0], TEXTS[:2])
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert told == []


@pytest.mark.parametrize(
    ("name", "width", "keys"), [("bert", 32, 32), ("llama", 32, 16), ("electra", 16, 32), ("gpt2", 32, 32)]
)
def test_widths_are_those_of_embeddings_and_of_keys(base_folder: BaseFolder, name: str, width: int, keys: int) -> None:
    prompt = wrapped(base_folder(name), "prompt-tuning", virtual_tokens=3)[0].classifier.model
    prefix = wrapped(base_folder(name), "prefix-tuning", virtual_tokens=3)[0].classifier.model
    assert prompt.prompt_encoder["default"].embedding.weight.shape == (3, width)
    assert prefix.prompt_encoder["default"].embedding.weight.shape == (3, 2 * 2 * keys)  # keys and values of 2 layers


def test_heads_wider_than_the_hidden_states_have_a_prefix_of_their_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny_models._decoder(
        "Qwen3Config Qwen3ForCausalLM", lambda: tiny_models.byte_pairs(pad="<pad>"), head_dim=16
    )
    monkeypatch.setitem(tiny_models.BUILDERS, "wide", build)
    predictor, base = moved(tiny_models.write_base("wide", tmp_path / "base"), "prefix-tuning")
    weight = predictor.classifier.model.prompt_encoder["default"].embedding.weight
    assert weight.shape == (20, 2 * 2 * 2 * 16)  # keys and values, layers, key heads, width of one
    loaded = load_variant(save(predictor, base, "prefix-tuning", tmp_path / "saved"), CPU)
    np.testing.assert_allclose(logits_of(loaded), logits_of(predictor), atol=1e-6)


def test_a_prompt_starts_from_words_that_the_seed_draws(base_folder: BaseFolder) -> None:
    def start(**options: object) -> tuple[torch.Tensor, torch.Tensor]:
        model = wrapped(base_folder("bert"), "prompt-tuning", **options)[0].classifier.model
        return model.prompt_encoder["default"].embedding.weight, model.get_base_model().get_input_embeddings().weight

    prompt, words = start(seed=1)
    assert all((words == row).all(dim=1).any() for row in prompt)
    assert torch.equal(start(seed=1)[0], prompt)
    assert not torch.equal(start(seed=2)[0], prompt)
    assert not (words == start(init="random")[0][0]).all(dim=1).any()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("p-tuning", {}),
        ("p-tuning", {"encoder": "lstm", "encoder_hidden_size": 6}),
        ("prefix-tuning", {"projection_hidden_size": 6}),
    ],
)
@pytest.mark.parametrize("name", ["llama", "embedder"])
def test_what_makes_the_prompt_trains_and_only_the_prompt_is_saved(
    base_folder: BaseFolder, tmp_path: Path, name: str, method: str, options: dict[str, object]
) -> None:
    predictor, base = wrapped(base_folder(name), method, virtual_tokens=4, **options)
    before = {key: p.detach().clone() for key, p in predictor.classifier.named_parameters() if p.requires_grad}
    for _ in session(predictor, n=8, max_steps=1).run():
        pass
    trained = dict(predictor.classifier.named_parameters())
    assert [key for key, weight in before.items() if torch.equal(trained[key], weight)] == []
    assert len([key for key in before if "prompt_encoder." in key]) > 1

    logits = logits_of(predictor)
    folder = save(predictor, base, method, tmp_path)
    keys = {key for key in load_file(folder / "adapter_model.safetensors") if "score" not in key}
    assert keys == {"prompt_embeddings"}
    np.testing.assert_array_equal(logits_of(predictor), logits)  # saving changes nothing in memory
    np.testing.assert_allclose(logits_of(load_variant(folder, CPU)), logits, atol=1e-5)


@pytest.mark.parametrize(("method", "positions"), [("prompt-tuning", 5), ("p-tuning", 5), ("prefix-tuning", 0)])
def test_positions_before_the_text_are_known_again_after_loading(
    base_folder: BaseFolder, tmp_path: Path, method: str, positions: int
) -> None:
    predictor, base = moved(base_folder("gpt2"), method, virtual_tokens=5)
    loaded = load_variant(save(predictor, base, method, tmp_path), CPU)
    assert (predictor.classifier.virtual_tokens, loaded.classifier.virtual_tokens) == (positions, positions)


def test_an_adapter_of_another_kind_has_no_virtual_tokens(base_folder: BaseFolder) -> None:
    assert virtual_tokens_of(wrapped(base_folder("bert"), "lora")[0].classifier.model) == 0
    assert virtual_tokens_of(torch.nn.Linear(1, 1)) == 0


@pytest.mark.parametrize(
    ("name", "method", "one_by_one"),
    [
        ("gpt2", "p-tuning", True),
        ("embedder", "prompt-tuning", False),
        *(
            pytest.param(name, method, name in DECODERS and method in BEFORE, marks=pytest.mark.slow)
            for name, method in PAIRS
        ),
    ],
)
def test_plain_peft_gives_the_logits_in_a_fresh_process(
    base_folder: BaseFolder, tmp_path: Path, name: str, method: str, one_by_one: bool
) -> None:
    predictor, base = moved(base_folder(name), method)
    records = prove_saved(predictor, base, TEXTS, adapter=save(predictor, base, method, tmp_path), model=None)
    assert [record["loader"] for record in records] == ["encoder_adapter" if name == "embedder" else "adapter"]
    assert records[0]["one_by_one"] is one_by_one
    assert records[0]["largest_logit_difference"] < 1e-5


def recipe_of(max_length: int, **method: object) -> Recipe:
    values = {"name": "job", "data": {"source": "rows.csv"}, "model": {"max_length": max_length}}
    return Recipe.model_validate({**values, "variants": {"a": {"method": method}}})


@pytest.mark.parametrize(("name", "positions"), [("bert", 48), ("roberta", 46), ("llama", 48)])
@pytest.mark.parametrize("method", [*BEFORE, "prefix-tuning"])
def test_virtual_tokens_and_text_must_fit_into_the_positions(
    base_folder: BaseFolder, name: str, positions: int, method: str
) -> None:
    base = open_base(str(base_folder(name)))
    fits = recipe_of(positions - 6, name=method, virtual_tokens=6)
    require_room(fits, base, positions - 6)
    with pytest.raises(RecipeError) as caught:
        require_room(recipe_of(0 + positions - 6, name=method, virtual_tokens=7), base, positions - 6)
    assert f"must fit into the {positions} positions of" in str(caught.value)
    assert f"found 7 and {positions - 6} tokens.\nPass --set model.max_length={positions - 7}." in str(caught.value)


def test_a_prompt_as_long_as_the_model_is_told_to_be_shorter(base_folder: BaseFolder) -> None:
    base = open_base(str(base_folder("bert")))
    with pytest.raises(RecipeError, match=r"found 40 and 24 tokens.\nPass fewer"):
        require_room(recipe_of(24, name="prefix-tuning", virtual_tokens=40), base, 24)


def test_a_run_without_room_ends_before_anything_is_written(
    command: Command, base_folder: BaseFolder, data_file: Path, tmp_path: Path
) -> None:
    options = ("--method", "prompt-tuning", "--set", "model.max_length=40", "--output", tmp_path / "run")
    ended = command("run", data_file, "--model", base_folder("bert"), *options)
    assert ended.code == 78
    assert "virtual tokens and text must fit into the 48 positions" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (PromptTuningOptions, {"virtual_tokens": 0}),
        (PromptTuningOptions, {"virtual_tokens": 1025}),
        (PromptTuningOptions, {"init": "zero"}),
        (PTuningOptions, {"encoder": "cnn"}),
        (PTuningOptions, {"encoder_hidden_size": 0}),
        (PTuningOptions, {"encoder_hidden_size": "wide"}),
        (PrefixTuningOptions, {"projection_hidden_size": 0}),
        (PrefixTuningOptions, {"projection_hidden_size": "auto"}),
    ],
)
def test_options_out_of_range_are_refused(options: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        options(**values)


def test_the_families_that_take_a_prefix_are_those_of_the_table() -> None:
    assert {name for name, family in FAMILIES.items() if family.takes_past} == set(TAKE_PAST) & set(FAMILIES)
