"""Batches without padding: the same logits and gradients as padded ones, and padded again where they are not."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from packed_attention import stand_in
from textlift.inference import Predictor
from textlift.models import packing
from textlift.models.families import FAMILIES
from textlift.models.packing import packing_of, use_packing
from textlift.runtime import Runtime
from textlift.training.loop import TrainStep, gradients_of
from tiny_models import CPU, TEXTS, disturb, fresh, gradients_on, logits_of, session, wrapped

PACKED = [*(name for name, family in FAMILIES.items() if family.packs), "embedder"]
METHODS = ["lora", "full", "ia3", "adapter", "dora"]


def padded_and_packed(predictor: Predictor) -> list[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Logits and gradients both ways; the classifier must be able to pack."""
    found = []
    for packs in (False, True):
        predictor.classifier.packs = packs
        gradients = gradients_on(predictor, np.arange(9))
        found.append((logits_of(predictor), gradients))
    return found


@pytest.mark.parametrize("name", PACKED)
def test_packed_logits_are_those_of_padded_batches(
    base_folder: BaseFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = logits_of(fresh(base_folder(name))[0])
    seen = stand_in(monkeypatch)
    predictor, _ = fresh(base_folder(name))
    assert predictor.classifier.packs, predictor.classifier.not_packed
    seen.clear()
    packed = logits_of(predictor)
    np.testing.assert_allclose(packed, padded, atol=2e-6)
    assert seen
    assert all(count % 64 == 0 for count in seen)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "embedder"])
def test_packed_gradients_are_those_of_padded_batches(
    base_folder: BaseFolder, name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    predictor, _ = wrapped(base_folder(name), method)
    disturb(predictor)
    use_packing(predictor.classifier, CPU)
    assert predictor.classifier.packs, predictor.classifier.not_packed
    (padded, gradients), (packed, others) = padded_and_packed(predictor)
    np.testing.assert_allclose(packed, padded, atol=5e-6)
    assert gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_layers_that_are_computed_again_stay_packed(
    base_folder: BaseFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    predictor, _ = wrapped(base_folder(name), "lora")
    disturb(predictor)
    use_packing(predictor.classifier, CPU)
    _, (_, kept) = padded_and_packed(predictor)
    assert predictor.classifier.recompute_layers() > 0
    _, (_, again) = padded_and_packed(predictor)
    assert all(torch.allclose(again[key], gradient, atol=1e-6) for key, gradient in kept.items())


@pytest.mark.parametrize("name", ["bert", "roberta", "llama"])
def test_a_packed_training_is_that_of_padded_batches(
    base_folder: BaseFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for packs in (False, True):
        if packs:
            stand_in(monkeypatch)
        training = session(wrapped(base_folder(name), "lora")[0], tokens_per_batch=96, patience=None)
        assert training.classifier.packs == packs
        losses.append([event.loss for event in training.run() if isinstance(event, TrainStep)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_texts_that_hold_the_padding_token_are_the_same_packed(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"roberta": ["the <pad> boat", "we saw", "<pad>"], "gpt2": ["the boat<end>", "we saw the boat", "<end>"]}
    for name, some in texts.items():
        padded = logits_of(fresh(base_folder(name))[0], some)
        with monkeypatch.context() as patched:
            stand_in(patched)
            predictor, _ = fresh(base_folder(name))
            assert predictor.classifier.packs
            np.testing.assert_allclose(logits_of(predictor, some), padded, atol=2e-6)


def test_features_are_the_same_packed(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bert", "gpt2", "embedder"):
        predictor, _ = fresh(base_folder(name))
        padded = predictor.forward(predictor.tokenize(TEXTS), features=True).features
        with monkeypatch.context() as patched:
            stand_in(patched)
            predictor, _ = fresh(base_folder(name))
            assert predictor.classifier.packs
            packed = predictor.forward(predictor.tokenize(TEXTS), features=True).features
        assert padded is not None
        assert packed is not None
        np.testing.assert_allclose(packed, padded, atol=5e-6)


def test_the_dropout_of_the_base_pads_batches(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = stand_in(monkeypatch)
    training = session(wrapped(base_folder("bert"), "lora")[0], base_dropout=True)
    assert training.classifier.packs
    seen.clear()
    training.classifier.set_training(base_dropout=True)
    gradients_of(training.classifier, training.micro_batches(np.arange(4)), runtime=CPU, penalty=None)
    assert not seen


@pytest.mark.parametrize(
    ("name", "method", "reason"),
    [
        ("deberta-v2", "lora", "not known to be right for deberta-v2"),
        ("modernbert", "lora", "not known to be right for modernbert"),
        ("bert", "prompt-tuning", "feeds virtual tokens"),
        ("bert", "prefix-tuning", "feeds virtual tokens"),
    ],
)
def test_what_cannot_be_packed_stays_padded_and_says_why(
    base_folder: BaseFolder, name: str, method: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    training = session(wrapped(base_folder(name), method)[0])
    assert not training.classifier.packs
    assert reason in training.classifier.not_packed
    assert any(isinstance(event, TrainStep) for event in training.run())


def test_layers_with_a_window_stay_padded(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, _ = fresh(base_folder("qwen2"))
    predictor.classifier.model.config.layer_types = ["full_attention", "sliding_attention"]
    stand_in(monkeypatch)
    use_packing(predictor.classifier, CPU)
    assert "window" in predictor.classifier.not_packed


def test_a_kernel_that_mixes_texts_is_found_out(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    padded = logits_of(fresh(base_folder("bert"))[0])
    stand_in(monkeypatch)
    right = packing.attend_each
    monkeypatch.setattr(packing, "attend_each", lambda *states: right(*states).roll(1, 0))
    with caplog.at_level(logging.WARNING):
        predictor, _ = fresh(base_folder("bert"))
    assert not predictor.classifier.packs
    assert "its logits would be" in predictor.classifier.not_packed
    assert "Batches stay padded" in caplog.text
    assert np.array_equal(logits_of(predictor), padded)


def test_a_kernel_with_wrong_gradients_is_found_out(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    right = packing.attend_each
    monkeypatch.setattr(packing, "attend_each", lambda states, how: right([states[0].detach(), *states[1:]], how))
    predictor, _ = wrapped(base_folder("bert"), "full")
    use_packing(predictor.classifier, CPU)
    assert "its gradients would be" in predictor.classifier.not_packed


def test_a_kernel_that_fails_leaves_batches_padded(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)

    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(packing, "attend_each", fail)
    predictor, _ = fresh(base_folder("bert"))
    assert predictor.classifier.not_packed == "the trial failed: no kernel image is available"
    assert np.isfinite(logits_of(predictor)).all()


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [(CPU, "only a GPU"), (Runtime("cuda", "fp32", 1, ()), "computes in bf16"), (Runtime("mps", "bf16", 1, ()), "GPU")],
)
def test_packing_needs_a_gpu_and_bf16(base_folder: BaseFolder, runtime: Runtime, reason: str) -> None:
    predictor, _ = fresh(base_folder("bert"))
    use_packing(predictor.classifier, runtime)
    assert reason in predictor.classifier.not_packed


def test_what_no_longer_packs_has_its_own_attention_back(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, _ = fresh(base_folder("bert"))
    config = predictor.classifier.model.config
    usual, padded = config._attn_implementation, logits_of(predictor)
    with monkeypatch.context() as patched:
        stand_in(patched)
        use_packing(predictor.classifier, CPU)
        assert config._attn_implementation == packing.ATTENTION
    use_packing(predictor.classifier, CPU)
    assert not predictor.classifier.packs
    assert config._attn_implementation == usual
    assert np.array_equal(logits_of(predictor), padded)


def test_the_trial_draws_no_random_number(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    predictor, _ = wrapped(base_folder("bert"), "lora", dropout=0.5)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    use_packing(predictor.classifier, CPU)
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in predictor.classifier.parameters())


def test_a_saved_model_says_nothing_of_packing(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch)
    predictor, _ = fresh(base_folder("bert"))
    assert predictor.classifier.packs
    predictor.classifier.model.save_pretrained(tmp_path)
    assert "packed" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_a_row_holds_the_tokens_and_a_filling_that_nobody_reads() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    how = packing_of(mask, device="cpu", is_causal=False)
    hidden = torch.arange(6.0).view(2, 3, 1) + 1
    row = how.pack(hidden)
    assert row.shape == (1, 64, 1)
    assert row[0, :4, 0].tolist() == [1, 2, 3, 4]
    assert how.offsets.tolist() == [0, 3, 4, 64]
    assert how.longest == 64
    assert how.unpack(row)[..., 0].tolist() == [[1, 2, 3], [4, 0, 0]]
