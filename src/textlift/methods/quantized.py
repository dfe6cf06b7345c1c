"""Methods whose base model is kept in few bits unless the recipe says otherwise.

    h = W x + s B A x        W packed in 4 bits and unpacked for each product; A, B and the head train in fp32

Any method with `quantized_base` trains on a quantized base; a row here is the name that people know such a pair by.

Source:
    Dettmers et al. (2023), QLoRA: Efficient Finetuning of Quantized LLMs, section 3.
"""

from textlift.methods.base import Method
from textlift.methods.low_rank import LoraOptions, wrap_lora

METHODS = (
    Method(
        "qlora",
        "LoRA on a base whose linear layers are kept in 4 bits.",
        LoraOptions,
        wrap_lora,
        learning_rate=1e-3,
        paper="https://arxiv.org/abs/2305.14314",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-4, 5e-3),
        few_steps_factor=1.5,
        fullest_batch=128,
        weights=("lora_",),
        late_weights=("lora_A.",),
        quantized_base=True,
        quantization="4bit",
    ),
)
