"""The end of the last layer at the pooled position alone gives the logits and gradients of the whole layer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conftest import BaseFolder
from textlift.data.batching import collate
from textlift.inference import Predictor
from tiny_models import TEXTS, fresh, wrapped

CUT = ["bert", "distilbert", "roberta", "deberta-v2", "gpt2", "llama", "qwen2", "qwen3"]
METHODS = ["lora", "adapter", "ia3", "prefix-tuning", "prompt-tuning", "full", "bitfit"]
IMPOSSIBLE = {("distilbert", "prefix-tuning"), ("llama", "bitfit")}  # no place for keys of others, no biases
PAIRS = [(n, m) for n in ("bert", "distilbert", "gpt2", "llama") for m in METHODS if (n, m) not in IMPOSSIBLE]


def batch(predictor: Predictor) -> dict[str, torch.Tensor]:
    return collate(predictor.tokenize(TEXTS), np.arange(len(TEXTS)), pad_token_id=predictor.tokenizer.pad_token_id)


def uncut(predictor: Predictor) -> None:
    last = predictor.classifier._last_layer
    assert last is not None
    last.is_cut = False


def gradients(predictor: Predictor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    classifier = predictor.classifier
    classifier.zero_grad()
    logits = classifier(**batch(predictor))
    functional.cross_entropy(logits, torch.arange(len(TEXTS)) % logits.shape[1]).backward()
    grads = {name: p.grad.clone() for name, p in classifier.named_parameters() if p.grad is not None}
    return logits.detach(), grads


def rows_through_the_end(predictor: Predictor) -> int:
    """Rows that the last linear layer of the last layer multiplies."""
    classifier = predictor.classifier
    seen = []
    final = dict(classifier.named_modules())[f"model.{classifier.linear_layers()[-1]}"]
    hook = final.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numel() // inputs[0].shape[-1]))
    with torch.inference_mode():
        classifier(**batch(predictor))
    hook.remove()
    return seen[-1]


@pytest.mark.parametrize("name", CUT)
def test_one_row_of_each_text_goes_through_the_end(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    assert rows_through_the_end(predictor) == len(TEXTS)
    uncut(predictor)
    assert rows_through_the_end(predictor) == batch(predictor)["input_ids"].numel()


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_logits_and_gradients_are_those_of_the_whole_layer(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    predictor.classifier.set_training(base_dropout=False)
    logits, grads = gradients(predictor)
    uncut(predictor)
    expected, other = gradients(predictor)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert grads.keys() == other.keys()
    for key, value in other.items():
        torch.testing.assert_close(grads[key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_a_decoder_pools_the_token_before_an_end_token_that_also_pads(base_folder: BaseFolder) -> None:
    predictor, base = fresh(base_folder("gpt2"))
    pad = base.tokenizer.pad_token_id
    ids = torch.tensor([[5, 6, 7, pad, pad], [5, pad, 6, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    with torch.inference_mode():
        logits = predictor.classifier(ids, mask)
        uncut(predictor)
        torch.testing.assert_close(predictor.classifier(ids, mask), logits, atol=1e-5, rtol=1e-5)


def test_mean_pooling_needs_every_position(base_folder: BaseFolder) -> None:
    predictor, _ = fresh(base_folder("embedder"))
    assert predictor.classifier._last_layer is None
    assert rows_through_the_end(predictor) == batch(predictor)["input_ids"].numel()


def test_a_model_that_splits_its_rows_is_left_alone(base_folder: BaseFolder) -> None:
    from textlift.models.last_layer import LastLayer

    predictor, _ = fresh(base_folder("bert"))
    model: nn.Module = predictor.classifier.model
    model.config.chunk_size_feed_forward = 2
    assert not LastLayer(model, predictor.classifier.family).is_cut
