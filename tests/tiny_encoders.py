"""Encoder layers of every layout with random LoRA, small enough to differentiate, and what comes of a pass."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel

from textlift.models.encoder_layer import LAYOUTS
from textlift.runtime import ONEDNN, Runtime, quiet_libraries

FAST = Runtime("cpu", "fp32", 1, (), ONEDNN)
KINDS = {name.split(".")[2].replace("_", "-"): name for name in LAYOUTS}
SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
DISTILBERT = {"dim": 24, "n_layers": 3, "n_heads": 3, "hidden_dim": 40}


def tiny(kind: str, *, seed: int = 0, **settings: Any) -> Any:
    """A base model of a kind with random LoRA on some or all of its linear layers."""
    torch.manual_seed(seed)
    shape = DISTILBERT if kind == "distilbert" else SMALL
    config = AutoConfig.for_model(kind, vocab_size=50, embedding_size=24, pad_token_id=0, **shape)
    with quiet_libraries():
        layers = {"target_modules": "all-linear", "r": 2, **settings}
        model = get_peft_model(AutoModel.from_config(config), LoraConfig(init_lora_weights=False, **layers))
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)
    return model.eval()


def batch(tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    mask = (torch.arange(tokens) < torch.tensor([tokens, max(1, tokens // 2), max(1, tokens - 2)])[:, None]).long()
    return {"input_ids": torch.randint(1, 50, (3, tokens), generator=generator) * mask, "attention_mask": mask}


def outcome(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state * inputs["attention_mask"][..., None]
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))  # squares of a norm are constant
    (weights * hidden).sum().backward()
    return hidden.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
