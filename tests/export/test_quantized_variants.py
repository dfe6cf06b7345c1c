"""Variants of a quantized base: saved, loaded, resumed, folded into full precision, and refused where that costs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_models
from conftest import BaseFolder
from quantized_models import BITS, FAMILIES, tuned
from textlift.errors import MissingExtraError, ModelError
from textlift.export import proof
from textlift.export.card import model_card
from textlift.export.loading import load_variant, merge
from textlift.export.proof import prove_saved
from textlift.export.saving import SavedSettings, read_settings, save_adapter, settings_of
from textlift.inference import Predictor
from textlift.models.loading import BaseModel
from textlift.models.quantized import quantization_of
from textlift.recipe import Quantization
from textlift.training.checkpoint import Restored, restore_latest, save_checkpoint
from textlift.training.session import Measurement, TrainingSession
from textlift.workflow.merging import MergeCost, cost_warning, merge_cost, require_usable
from tiny_models import CPU, LABEL_NAMES, TEXTS, disturb, logits_of, session, write_base

pytest.importorskip("bitsandbytes")

both = pytest.mark.parametrize("bits", BITS)
WIDE = {  # in multiples of 64: what bitsandbytes unpacks rightly on every processor
    "gpt2": tiny_models._decoder("GPT2Config GPT2LMHeadModel", tiny_models.byte_pairs, hidden_size=64),
    "bert": tiny_models._encoder("BertConfig BertForMaskedLM", hidden_size=64, intermediate_size=128),
    "embedder": tiny_models._encoder("BertConfig BertModel", hidden_size=64, intermediate_size=128),
}


@pytest.fixture
def wide_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseFolder:
    def folder(name: str) -> Path:
        monkeypatch.setitem(tiny_models.BUILDERS, name, WIDE[name])
        return write_base(name, tmp_path / f"wide-{name}")

    return folder


def saved(base: Path, folder: Path, bits: Quantization) -> tuple[Predictor, BaseModel, SavedSettings]:
    """A qlora adapter with moved weights, written."""
    predictor, opened = tuned(base, bits)
    disturb(predictor)
    settings = settings_of(opened, predictor, kind="adapter", method="qlora", label_values=LABEL_NAMES)
    save_adapter(predictor, folder, settings=settings, card="")
    return predictor, opened, settings


# ---- saved and loaded


@both
@pytest.mark.parametrize("name", FAMILIES)
def test_loading_gives_the_logits_that_were_saved_on_a_base_that_is_packed_again(
    base_folder: BaseFolder, tmp_path: Path, name: str, bits: Quantization
) -> None:
    predictor, base, _ = saved(base_folder(name), tmp_path, bits)
    loaded = load_variant(tmp_path, CPU)
    assert np.array_equal(logits_of(loaded), logits_of(predictor))
    assert quantization_of(loaded.classifier) == bits
    settings = read_settings(tmp_path)
    assert (settings.quantization, settings.base_sha256) == (bits, base.folder.sha256)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base_folder(name))


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("gpt2", "4bit"),
        ("embedder", "8bit"),
        *(
            pytest.param(name, bits, marks=pytest.mark.slow)
            for name, bits in (("gpt2", "8bit"), ("embedder", "4bit"), ("bert", "4bit"), ("bert", "8bit"))
        ),
    ],
)
def test_plain_peft_and_bitsandbytes_give_the_same_logits_in_a_fresh_process(
    wide_folder: BaseFolder, tmp_path: Path, name: str, bits: Quantization
) -> None:
    predictor, base, settings = saved(wide_folder(name), tmp_path / "adapter", bits)
    assert settings.quantization_settings is not None
    (record,) = prove_saved(predictor, base, TEXTS, adapter=tmp_path / "adapter", model=None)
    assert record["loader"] == ("encoder_adapter" if name == "embedder" else "adapter")
    assert record["largest_logit_difference"] < 1e-4


def test_a_base_that_bitsandbytes_unpacks_wrongly_is_proved_by_textlift(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    for bits, program in (("4bit", "textlift"), ("8bit", "plain")):
        predictor, base, settings = saved(base_folder("bert"), tmp_path / bits, bits)  # layers of 32 and 48 columns
        jobs = proof._jobs(predictor, base, TEXTS, adapter=tmp_path / bits, model=None, place=tmp_path)
        assert list(jobs) == [program]
        assert settings.loads_without_textlift is (program == "plain")


def test_the_card_tells_how_the_base_was_packed(
    wide_folder: BaseFolder, base_folder: BaseFolder, tmp_path: Path
) -> None:
    record = {"method": "qlora", "trained_parameters": 10, "total_parameters": 1000}
    for name in ("gpt2", "embedder"):
        _, _, settings = saved(wide_folder(name), tmp_path / name, "4bit")
        card = model_card(record, settings, name="job", dataset="rows.csv")
        assert "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4'" in card
        assert f"llm_int8_skip_modules=['{'score' if name == 'gpt2' else 'pooler'}']" in card
        assert card.count("quantization_config=quantization") == 1
    _, _, settings = saved(base_folder("bert"), tmp_path / "narrow", "4bit")
    card = model_card(record, settings, name="job", dataset="rows.csv")
    assert "it does not load: bitsandbytes unpacks this base wrongly." in card
    assert "```" not in card


def test_settings_of_an_earlier_version_mean_full_precision(base_folder: BaseFolder, tmp_path: Path) -> None:
    _, _, settings = saved(base_folder("gpt2"), tmp_path, "8bit")
    values = dataclasses.asdict(settings)
    del values["quantization"], values["quantization_settings"]
    assert SavedSettings(**values).quantization == "none"


def test_loading_without_bitsandbytes_says_what_to_install(
    base_folder: BaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import import_utils

    saved(base_folder("gpt2"), tmp_path, "4bit")
    monkeypatch.setattr(import_utils, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'textlift\[quantized\]'"):
        load_variant(tmp_path, CPU)


@pytest.mark.parametrize("name", ["gpt2", "embedder"])
def test_a_continued_training_equals_an_unbroken_one(base_folder: BaseFolder, tmp_path: Path, name: str) -> None:
    def fresh_session() -> TrainingSession:
        predictor, _ = tuned(base_folder(name), "4bit", dropout=0.3)
        torch.manual_seed(11)
        return session(predictor, epochs=2, batch_size=4, evaluations_per_epoch=3, patience=None)

    unbroken = fresh_session()
    list(unbroken.run())
    for event in (stopped := fresh_session()).run():
        if isinstance(event, Measurement):
            save_checkpoint(stopped, tmp_path, job={"recipe": "of this job"}, environment={})
            if event.step >= 4:
                break
    continued = fresh_session()
    torch.manual_seed(12345)  # the state of the generator comes from the checkpoint
    assert restore_latest(continued, tmp_path, job={"recipe": "of this job"}, environment={}) == Restored(4)
    list(continued.run())
    weights = continued.trained_weights()
    assert all(torch.equal(weight, weights[key]) for key, weight in unbroken.trained_weights().items())


# ---- folded into full precision


@both
@pytest.mark.parametrize("name", FAMILIES)
def test_merging_folds_the_adapter_into_the_base_in_full_precision(
    base_folder: BaseFolder, tmp_path: Path, name: str, bits: Quantization
) -> None:
    predictor, _, _ = saved(base_folder(name), tmp_path, bits)
    beside = load_variant(tmp_path, CPU, full_precision=True)
    expected, packed = logits_of(beside), logits_of(predictor)
    merged = merge(beside)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(logits_of(merged), expected, atol=1e-4 * scale)
    assert np.abs(logits_of(merged) - packed).max() < (0.05 if bits == "8bit" else 1.0) * scale
    assert {p.dtype for p in merged.classifier.parameters()} == {torch.float32}


def test_folding_into_a_packed_base_is_refused(base_folder: BaseFolder) -> None:
    predictor, _ = tuned(base_folder("bert"), "4bit")
    with pytest.raises(ModelError, match=r"base must be in full precision to fold an adapter into it; it is in 4bit"):
        merge(predictor)


LABELS = np.array([0, 0, 1, 1])
BEFORE = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])


def test_the_cost_of_merging_counts_answers_and_logits() -> None:
    after = BEFORE.copy()
    after[3] = [4.0, 2.0]
    cost = merge_cost(LABELS, BEFORE, after)
    assert cost == MergeCost(1.0, 0.75, 1, 4, 3.0)
    assert cost.is_too_high
    assert str(cost) == "100.00% of validation became 75.00%, 1 of 4 answers differ, logits by at most 3"


def test_a_point_of_accuracy_may_be_lost_and_any_number_gained() -> None:
    assert not MergeCost(0.91, 0.90, 9, 100, 1.0).is_too_high
    assert MergeCost(0.92, 0.90, 9, 100, 1.0).is_too_high
    assert not MergeCost(0.5, 0.9, 9, 100, 1.0).is_too_high


def test_what_costs_too_much_is_warned_of() -> None:
    high = MergeCost(0.92, 0.9, 9, 100, 1.0)
    told = (
        "merged is worse than qlora (92.00% of validation became 90.00%, 9 of 100 answers differ, logits by at most 1)"
    )
    assert cost_warning("merged", "qlora", high, force=False) == f"{told} and is not handed out."
    assert cost_warning("merged", "qlora", high, force=True) == f"{told} and is kept for use because force says so."
    assert cost_warning("merged", "qlora", MergeCost(0.9, 0.9, 0, 100, 0.0), force=False) is None


def test_what_costs_too_much_is_refused_unless_the_recipe_forced_it() -> None:
    record = {"merged_from": "qlora", "merge_cost": MergeCost(0.92, 0.9, 9, 100, 1.0).to_dict(), "forced": False}
    with pytest.raises(ModelError, match=r"at most 1 point of accuracy; 92.00% .* 90.00%.*\nUse qlora itself, or"):
        require_usable("merged", record, advice="pass --force")
    require_usable("merged", {**record, "forced": True}, advice="pass --force")
    require_usable("merged", {"merged_from": "lora"}, advice="pass --force")
