"""Base models in 8 and 4 bits: what is packed, what the products give, what trains, and what is refused."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import BaseFolder
from quantized_models import BITS, FAMILIES, packed, tuned
from textlift.errors import MissingExtraError, ModelError, RecipeError
from textlift.models import loading
from textlift.models.classifier import padding_shift
from textlift.models.families import linear_layer_names
from textlift.models.loading import build_classifier, open_base
from textlift.models.quantized import base_bytes, quantization_of, require_quantizable, weight_count
from textlift.recipe import Quantization
from textlift.runtime import ONEDNN, Runtime, onednn_product, quiet_libraries
from textlift.training.loop import TrainStep
from textlift.training.tuning import count_parameters
from tiny_models import CPU, LABEL_NAMES, TEXTS, disturb, fresh, logits_of, session, wrapped

pytest.importorskip("bitsandbytes")

GPT2 = Path(__file__).parents[3] / "shared" / "models" / "gpt2"
every_family = pytest.mark.parametrize("name", FAMILIES)
both = pytest.mark.parametrize("bits", BITS)
KERNELS = ["torch", pytest.param(ONEDNN, marks=pytest.mark.skipif(onednn_product() is None, reason="no oneDNN"))]


def packed_layers(module: nn.Module) -> dict[str, Any]:
    """Quantized layers by name."""
    return {name: layer for name, layer in module.named_modules() if hasattr(layer, "unpacked")}


def a_layer(base: Path, bits: Quantization, kernel: str = "torch") -> Any:
    """A quantized layer of 48 to 32, and its name."""
    runtime = Runtime("cpu", "fp32", 1, (), kernel)
    predictor, _ = packed(base, bits, runtime=runtime)
    return predictor.classifier.model.get_submodule("bert.encoder.layer.0.output.dense")


# ---- what is packed


@both
@every_family
def test_every_linear_layer_below_the_head_is_packed_and_nothing_else(
    base_folder: BaseFolder, name: str, bits: Quantization
) -> None:
    classifier = packed(base_folder(name), bits)[0].classifier
    layers = packed_layers(classifier.model)
    assert sorted(layers) == sorted(linear_layer_names(classifier.model, classifier.family))
    others = [
        p for key, p in classifier.named_parameters() if key.removeprefix("model.").rpartition(".")[0] not in layers
    ]
    assert {p.dtype for p in others} == {torch.float32}
    assert type(classifier.final_linear()) is nn.Linear
    assert quantization_of(classifier) == bits


@both
@every_family
def test_the_head_is_the_one_that_the_seed_draws_in_full_precision(
    base_folder: BaseFolder, name: str, bits: Quantization
) -> None:
    full, few = (one.classifier for one in (fresh(base_folder(name))[0], packed(base_folder(name), bits)[0]))
    heads = tuple(f"model.{head}." for head in full.head_modules()) or ("head.",)
    weights = dict(few.named_parameters())
    drawn = {key: weight for key, weight in full.named_parameters() if key.startswith(heads)}
    assert drawn
    assert all(torch.equal(weights[key], weight) for key, weight in drawn.items())


def test_a_weight_moves_by_at_most_half_the_widest_gap_of_its_code(base_folder: BaseFolder) -> None:
    plain = fresh(base_folder("bert"))[0].classifier.model
    for bits, share in (("4bit", 0.152 + 0.02), ("8bit", 0.5 / 127 + 0.001)):  # and the rounding of the block sizes
        for name, layer in packed_layers(packed(base_folder("bert"), bits)[0].classifier.model).items():
            weight = plain.get_submodule(name).weight
            assert (layer.unpacked(torch.float32) - weight).abs().max() <= share * weight.abs().max()


@both
def test_the_transposed_weights_of_gpt2_are_turned_round(base_folder: BaseFolder, bits: Quantization) -> None:
    plain = fresh(base_folder("gpt2"))[0].classifier.model
    classifier = packed(base_folder("gpt2"), bits)[0].classifier
    assert not classifier.family.fan_in_fan_out
    for name, layer in packed_layers(classifier.model).items():
        weight = plain.get_submodule(name).weight
        assert (layer.unpacked(torch.float32) - weight.t()).abs().max() <= 0.17 * weight.abs().max()


def test_peft_is_told_that_no_weight_of_a_packed_gpt2_lies_transposed(base_folder: BaseFolder) -> None:
    predictor, _ = tuned(base_folder("gpt2"), "4bit")
    assert predictor.classifier.model.peft_config["default"].fan_in_fan_out is False
    plain, _ = wrapped(base_folder("gpt2"), "lora")
    assert plain.classifier.model.peft_config["default"].fan_in_fan_out is True


def test_a_head_that_would_be_packed_is_refused(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_head_names", lambda base: ["no_such_module"])
    with pytest.raises(ModelError, match=r"none of the head; bert.pooler.dense is\.\nTune it in full precision"):
        packed(base_folder("bert"), "4bit")


def test_a_layer_that_would_be_spared_is_refused(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_head_names", lambda base: ["score", "transformer.h.1"])
    with pytest.raises(ModelError, match=r"below the head must be quantized .* transformer.h.1.attn.c_attn is not\."):
        packed(base_folder("gpt2"), "4bit")


def test_a_checkpoint_that_is_packed_already_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("bert"), tmp_path / "packed")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"must be in full precision; config.json says bitsandbytes\.\nName the model"):
        open_base(str(folder))


# ---- bytes and counts


@both
def test_bytes_are_counted_by_kind(base_folder: BaseFolder, bits: Quantization) -> None:
    plain = base_bytes(fresh(base_folder("bert"))[0].classifier.model)
    held = base_bytes(packed(base_folder("bert"), bits)[0].classifier.model)
    n_weights = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    sizes = 4 * 2 * (4 * 32 + 48 + 32)  # 8 bits: a number for each row
    if bits == "4bit":  # a byte for each block, a number for up to 256 of these, both codes and the offset
        sizes = n_weights // 64 + 12 * 4 * (1 + 256 + 16 + 1)
    assert held.quantized == n_weights * (2 if bits == "8bit" else 1) // 2 + sizes
    assert held.embeddings == plain.embeddings > 0
    assert held.in_fp32 == plain.in_fp32
    assert (plain.quantized, plain.share) == (0, 1.0)
    assert held.share == (held.quantized + held.embeddings + held.other) / plain.in_fp32


@both
@pytest.mark.parametrize("name", ["gpt2", "embedder"])
def test_weights_are_counted_as_in_full_precision(base_folder: BaseFolder, name: str, bits: Quantization) -> None:
    plain, few = (one.classifier for one in (fresh(base_folder(name))[0], packed(base_folder(name), bits)[0]))
    assert count_parameters(few) == count_parameters(plain)
    assert sum(map(weight_count, few.parameters())) == sum(p.numel() for p in plain.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not GPT2.is_dir(), reason="needs the configuration of GPT-2 in ../shared")
@pytest.mark.parametrize(("bits", "most"), [("4bit", 0.45), ("8bit", 0.5)])
def test_gpt2_in_its_real_shape_takes_less_than_half_of_its_memory(
    tmp_path: Path, bits: Quantization, most: float
) -> None:
    from transformers import GPT2Config, GPT2Model

    shutil.copytree(GPT2, tmp_path / "gpt2")
    with quiet_libraries():
        GPT2Model(GPT2Config.from_pretrained(GPT2)).save_pretrained(tmp_path / "gpt2")
    held = base_bytes(build_classifier(open_base(str(tmp_path / "gpt2")), LABEL_NAMES, seed=0, quantization=bits).model)
    assert held.in_fp32 == pytest.approx(4 * 124.4e6, rel=0.001)
    assert held.share <= most


# ---- products


@both
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 48), (1, 48), (0, 48)])
def test_a_product_and_its_gradients_are_those_of_the_unpacked_weight(
    base_folder: BaseFolder, bits: Quantization, kernel: str, shape: tuple[int, ...]
) -> None:
    layer = a_layer(base_folder("bert"), bits, kernel)
    plain = nn.Linear(48, 32)
    plain.weight.data.copy_(layer.unpacked(torch.float32))
    plain.bias.data.copy_(layer.bias)
    layer.bias.requires_grad_(True)
    x, other = torch.randn(shape).requires_grad_(), torch.empty(shape).requires_grad_()
    other.data.copy_(x.data)
    layer(x).square().sum().backward()
    plain(other).square().sum().backward()
    torch.testing.assert_close(layer(x), plain(other))
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


@both
def test_under_autocast_a_product_is_in_bf16_and_what_trains_stays_fp32(
    base_folder: BaseFolder, bits: Quantization
) -> None:
    layer = a_layer(base_folder("bert"), bits)
    layer.bias.requires_grad_(True)
    x = torch.randn(2, 3, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.bias.dtype == layer.bias.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


def test_a_method_may_add_in_place_to_what_a_layer_gives(base_folder: BaseFolder) -> None:
    layer = a_layer(base_folder("bert"), "4bit")
    x = torch.randn(2, 3, 48).requires_grad_()
    y = layer(x)
    y += 1
    y.sum().backward()
    assert bool(x.grad.any())


@both
@every_family
def test_padding_and_neighbours_change_no_logit(base_folder: BaseFolder, name: str, bits: Quantization) -> None:
    predictor, base = tuned(base_folder(name), bits)
    disturb(predictor)
    tokens = predictor.tokenize(TEXTS[:1])
    ids = torch.from_numpy(tokens[0].astype(np.int64))[None]
    assert padding_shift(predictor.classifier, ids, pad_token_id=int(base.tokenizer.pad_token_id)) < 1e-5
    alone = np.concatenate([logits_of(predictor, [text]) for text in TEXTS[:4]])
    np.testing.assert_allclose(alone, logits_of(predictor)[:4], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_measurement_changes_nothing_of_what_trains_afterwards(base_folder: BaseFolder, name: str) -> None:
    gradients = []
    for measures in (False, True):
        predictor, _ = tuned(base_folder(name), "4bit")
        disturb(predictor)
        if measures:
            logits_of(predictor)
        predictor.classifier.set_training(base_dropout=False)
        ids = torch.ones((2, 5), dtype=torch.long)
        predictor.classifier(ids, torch.ones_like(ids)).square().sum().backward()
        gradients.append({key: p.grad for key, p in predictor.classifier.named_parameters() if p.requires_grad})
    assert all(bool(gradient.any()) for gradient in gradients[0].values())
    assert all(torch.equal(gradient, gradients[1][key]) for key, gradient in gradients[0].items())


# ---- training


@both
@every_family
def test_exactly_head_and_adapter_train_in_fp32_and_all_of_it_moves(
    base_folder: BaseFolder, name: str, bits: Quantization
) -> None:
    predictor, _ = tuned(base_folder(name), bits)
    parameters = dict(predictor.classifier.named_parameters())
    trained = {key for key, p in parameters.items() if p.requires_grad}
    heads = {key for key in parameters if ".modules_to_save." in key or key.startswith("head.")}
    assert trained == heads | {key for key in parameters if ".lora_" in key}
    assert {parameters[key].dtype for key in trained} == {torch.float32}
    before = {key: p.detach().clone() for key, p in parameters.items()}
    seen: dict[str, list[bool]] = {key: [] for key in trained}
    for key, found in seen.items():
        parameters[key].register_hook(lambda grad, found=found: found.append(bool(grad.any())))
    for event in session(predictor, epochs=2, patience=None).run():
        if isinstance(event, TrainStep) and event.number == 3:
            break
    assert [key for key, found in seen.items() if not found[1 if ".lora_A." in key else 0]] == []
    assert {key for key, p in parameters.items() if not torch.equal(p, before[key])} == trained


@pytest.mark.parametrize(("name", "bits"), [*((name, "4bit") for name in FAMILIES), ("gpt2", "8bit"), ("bert", "8bit")])
def test_a_small_set_is_learned(base_folder: BaseFolder, name: str, bits: Quantization) -> None:
    predictor, _ = tuned(base_folder(name), bits)
    training = session(predictor, n=12, batch_size=12, epochs=100, learning_rate=1e-2, patience=None)
    losses = []
    for event in training.run():
        if isinstance(event, TrainStep):
            losses.append(event.loss)
            if event.loss < losses[0] / 2:
                return
    pytest.fail(f"the loss began at {losses[0]} and did not halve in 100 steps")


# ---- refusals


@pytest.mark.parametrize("absent", ["bitsandbytes", "accelerate"])
def test_a_missing_package_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, f"is_{absent}_available", lambda: False)
    with pytest.raises(
        MissingExtraError, match=rf"{absent} is not installed.*\nRun: pip install 'textlift\[quantized\]'"
    ):
        require_quantizable("4bit", device="cpu")
    require_quantizable("none", device="cpu")


def test_a_device_where_it_was_never_tested_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"must be on cpu or cuda; runtime.device is mps.*\nPass --device cpu"):
        require_quantizable("8bit", device="mps")
    require_quantizable("8bit", device="cuda:1")


def test_what_bitsandbytes_says_of_a_kernel_from_the_hub_is_not_shown() -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    with quiet_libraries():
        pass
    told = ["Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "something else"]
    records = [logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None) for message in told]
    assert [bool(logger.filter(record)) for record in records] == [False, True]


def test_full_precision_holds_no_packed_layer(base_folder: BaseFolder) -> None:
    assert quantization_of(fresh(base_folder("gpt2"))[0].classifier) == "none"
    assert CPU.precision == "fp32"
