"""Which layers (IA)^3 stretches and which norms are tuned, family by family."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from conftest import BaseFolder
from textlift.errors import RecipeError
from textlift.export.saving import save_adapter, settings_of
from textlift.inference import Predictor
from textlift.methods.scaling import Ia3Options, wrap_ia3
from textlift.training.tuning import parts_of
from tiny_models import LABEL_NAMES, fresh, logits_of, wrapped

# Output stretched, and input stretched, by the last two parts of a name.
STRETCHED = {
    "bert": ({"self.key", "self.value"}, {"output.dense"}),
    "distilbert": ({"attention.k_lin", "attention.v_lin"}, {"ffn.lin2"}),
    "roberta": ({"self.key", "self.value"}, {"output.dense"}),
    "deberta-v2": ({"self.key_proj", "self.value_proj"}, {"output.dense"}),
    "modernbert": ({"attn.Wqkv"}, {"mlp.Wo"}),
    "gpt2": ({"attn.c_attn"}, {"mlp.c_proj"}),
    "llama": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "qwen2": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "qwen3": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "embedder": ({"self.key", "self.value"}, {"output.dense"}),
    "electra": ({"self.key", "self.value"}, {"output.dense"}),
    "mpnet": ({"attn.k", "attn.v"}, {"output.dense"}),
    "opt": ({"self_attn.k_proj", "self_attn.v_proj"}, {"layers.fc2"}),
    "gpt_neox": ({"attention.query_key_value"}, {"mlp.dense_4h_to_h"}),
}
# Norms of the base with two layers; none of the head.
NORMS = {
    "bert": 1 + 2 * 2,
    "distilbert": 1 + 2 * 2,
    "roberta": 1 + 2 * 2,
    "deberta-v2": 1 + 1 + 2 * 2,  # one for the relative positions
    "modernbert": 1 + 1 + 2 * 2 - 1,  # embeddings, the end; the first layer has none before its attention
    "gpt2": 1 + 2 * 2,
    "llama": 1 + 2 * 2,
    "qwen2": 1 + 2 * 2,
    "qwen3": 1 + 2 * 4,  # query and key have one each
    "embedder": 1 + 2 * 2,
    "opt": 1 + 2 * 2,
}


def stretched(predictor: Predictor) -> dict[str, bool]:
    """Names of the layers that have a vector, and whether it stretches their input."""
    named = predictor.classifier.named_modules()
    return {name: layer.is_feedforward for name, layer in named if hasattr(layer, "ia3_l")}


def last_parts(names: list[str]) -> set[str]:
    """The last two parts of names, numbers of layers left out."""
    return {".".join([part for part in name.split(".") if not part.isdigit()][-2:]) for name in names}


@pytest.mark.parametrize("name", STRETCHED)
def test_keys_values_and_feed_forward_inputs_are_stretched(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "ia3")
    layers = stretched(predictor)
    outputs, inputs = STRETCHED[name]
    assert last_parts([layer for layer, is_input in layers.items() if not is_input]) == outputs
    assert last_parts([layer for layer, is_input in layers.items() if is_input]) == inputs
    assert not [layer for layer in layers if "attention.output" in layer]
    assert len(layers) == 2 * (len(outputs) + len(inputs))


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
def test_vectors_start_at_one_and_change_no_logit(base_folder: BaseFolder, name: str) -> None:
    plain, _ = fresh(base_folder(name))
    predictor, _ = wrapped(base_folder(name), "ia3")
    np.testing.assert_allclose(logits_of(predictor), logits_of(plain), atol=1e-6)


def test_layers_to_stretch_can_be_named(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(
        base_folder("bert"), "ia3", target_modules=("query",), feedforward_modules=("intermediate.dense",)
    )
    layers = stretched(predictor)
    assert last_parts([layer for layer, is_input in layers.items() if not is_input]) == {"self.query"}
    assert last_parts([layer for layer, is_input in layers.items() if is_input]) == {"intermediate.dense"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"target_modules": ("q_proj",)}, r"method.target_modules must name linear layers .*'q_proj' fit none"),
        ({"feedforward_modules": ("fc2",)}, r"method.feedforward_modules must name linear layers .*'fc2' fit none"),
        (
            {"feedforward_modules": ("key",)},
            r"must name different layers; both name encoder.layer.0.attention.self.key",
        ),
    ],
)
def test_names_that_cannot_be_stretched_are_refused(
    base_folder: BaseFolder, options: dict[str, tuple[str, ...]], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        wrapped(base_folder("embedder"), "ia3", **options)


def test_an_architecture_with_names_of_its_own_is_refused_with_its_layers(base_folder: BaseFolder) -> None:
    parts = parts_of(fresh(base_folder("embedder"))[0].classifier)
    renamed = replace(parts, linear_layers=("layers.0.alpha", "layers.0.beta"))
    with pytest.raises(RecipeError, match=r"layers of key and value, .*found 'auto'.\nIt has alpha, beta"):
        wrap_ia3(renamed, Ia3Options())


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_of_the_base_is_tuned(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "layernorm")
    layers = [key for key, module in predictor.classifier.named_modules() if hasattr(module, "ln_tuning_layers")]
    assert len(layers) == NORMS[name]
    assert not [key for key in layers if "modules_to_save" in key]


def test_a_file_of_tuned_norms_holds_them_and_the_head_and_nothing_else(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    predictor, base = wrapped(base_folder("modernbert"), "layernorm")
    settings = settings_of(base, predictor, kind="adapter", method="layernorm", label_values=LABEL_NAMES)
    save_adapter(predictor, tmp_path, settings=settings, card="")
    keys = load_file(tmp_path / "adapter_model.safetensors").keys()
    others = [key for key in keys if ".ln_tuning_layers." not in key]
    assert len(keys) - len(others) == NORMS["modernbert"]  # weights alone: ModernBERT's norms have no bias
    assert others
    assert all(key.startswith(("base_model.model.head.", "base_model.model.classifier.")) for key in others)
