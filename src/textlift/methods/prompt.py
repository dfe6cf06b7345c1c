"""Methods that put trained vectors beside the text and leave every weight of the base as it is.

    prompt tuning     inputs = [P ; E(text)]              P (V, D) trained
    p-tuning          inputs = [f(P) ; E(text)]           f an MLP or LSTM, trained with P, gone once saved
    prefix tuning     keys = [K ; W_k x], values = [V ; W_v x] in every layer, K and V (V, D) trained

With the first two the V virtual tokens are positions of the model's output too; with the last the output is the text's.
Where the model has an input width of its own (ELECTRA, ALBERT, OPT), D is that width.

Source:
    Lester et al. (2021), The Power of Scale for Parameter-Efficient Prompt Tuning, section 2.
    Liu et al. (2021), GPT Understands, Too, section 3.
    Li and Liang (2021), Prefix-Tuning: Optimizing Continuous Prompts for Generation, section 4.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from textlift.methods.base import Method, MethodOptions, Parts

_Width = Annotated[int, Field(ge=1, le=8192)]
_MARK = "prompt_encoder."


class PromptTuningOptions(MethodOptions):
    """Options of prompt tuning.

    Source:
        Lester et al. (2021), section 3.2: beyond 20 virtual tokens little is gained, and values drawn from the
        vocabulary begin better than random ones.
    """

    virtual_tokens: int = Field(20, ge=1, le=1024, description="Trained positions before the text.")
    init: Literal["vocabulary", "random"] = Field(
        "vocabulary", description="Start values: embeddings of words of the base, drawn by the seed, or random numbers."
    )


class PTuningOptions(MethodOptions):
    """Options of p-tuning."""

    virtual_tokens: int = Field(20, ge=1, le=1024, description="Trained positions before the text.")
    encoder: Literal["mlp", "lstm"] = Field(
        "mlp", description="What makes the positions while training: three linear layers, or a two-way LSTM and two."
    )
    encoder_hidden_size: _Width | Literal["auto"] = Field(
        "auto", description="Width inside the encoder: a number, or that of the embeddings."
    )


class PrefixTuningOptions(MethodOptions):
    """Options of prefix tuning."""

    virtual_tokens: int = Field(20, ge=1, le=1024, description="Trained keys and values in every layer.")
    projection_hidden_size: _Width | None = Field(
        None, description="Width of an MLP that makes keys and values while training; none trains them themselves."
    )


def wrap_prompt_tuning(parts: Parts, options: PromptTuningOptions) -> Any:
    """The model with a trained prompt before its embeddings, as a PeftModel."""
    from peft import PromptTuningConfig, PromptTuningInit, get_peft_model  # heavy: only once a model is built

    start = PromptTuningInit.SAMPLE_VOCAB if options.init == "vocabulary" else PromptTuningInit.RANDOM
    return get_peft_model(parts.model, PromptTuningConfig(prompt_tuning_init=start, **_before_the_text(parts, options)))


def wrap_p_tuning(parts: Parts, options: PTuningOptions) -> Any:
    """The model with a prompt that an encoder makes before its embeddings, as a PeftModel."""
    from peft import PromptEncoderConfig, get_peft_model

    values = _before_the_text(parts, options)
    width = values["token_dim"] if options.encoder_hidden_size == "auto" else options.encoder_hidden_size
    kind = options.encoder.upper()
    config = PromptEncoderConfig(encoder_reparameterization_type=kind, encoder_hidden_size=width, **values)
    return get_peft_model(parts.model, config)


def wrap_prefix_tuning(parts: Parts, options: PrefixTuningOptions) -> Any:
    """The model with trained keys and values before those of the text in every layer, as a PeftModel."""
    from peft import PrefixTuningConfig, get_peft_model

    values = _in_every_layer(parts, options)
    if options.projection_hidden_size is not None:
        values |= {"prefix_projection": True, "encoder_hidden_size": options.projection_hidden_size}
    return get_peft_model(parts.model, PrefixTuningConfig(**values))


def positions_taken(options: MethodOptions) -> int:
    """Positions of the base model that a method takes from the text, whether or not they are in its output."""
    return int(getattr(options, "virtual_tokens", 0))


def virtual_tokens_of(model: Any) -> int:
    """Positions that an adapter puts before the text in the output of its model; 0 where it puts none."""
    from peft import PeftType, PromptLearningConfig

    configs = getattr(model, "peft_config", {}).values()
    return sum(
        int(config.num_virtual_tokens)
        for config in configs
        if isinstance(config, PromptLearningConfig) and config.peft_type != PeftType.PREFIX_TUNING
    )


def _before_the_text(parts: Parts, options: Any) -> dict[str, Any]:
    """As wide as the embeddings, which is not the width of the hidden states in every architecture."""
    width = int(parts.model.get_input_embeddings().weight.shape[1])
    return {**_shared(parts, options), "token_dim": width}


def _in_every_layer(parts: Parts, options: Any) -> dict[str, Any]:
    """As wide as all heads of the keys, which are fewer than those of the queries where several queries share one."""
    config = parts.model.config
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return {**_shared(parts, options), "token_dim": heads * width, "num_attention_heads": heads}


def _shared(parts: Parts, options: Any) -> dict[str, Any]:
    from peft import TaskType

    config = parts.model.config
    return {
        "task_type": TaskType.SEQ_CLS if parts.has_head else TaskType.FEATURE_EXTRACTION,
        "num_virtual_tokens": options.virtual_tokens,
        "num_transformer_submodules": 1,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        # From the root on: peft goes by the end of a name, and p-tuning has a `mlp_head` of its own.
        "modules_to_save": [f"base_model.{name}" for name in parts.head_modules] or None,
    }


METHODS = (
    Method(
        "prompt-tuning",
        "A trained prompt before the embeddings of the text.",
        PromptTuningOptions,
        wrap_prompt_tuning,
        learning_rate=3e-2,
        paper="https://arxiv.org/abs/2104.08691",
        mergeable=False,
        saves_adapter=True,
        learning_rates=(1e-3, 0.5),
        weights=(_MARK,),
        quantized_base=True,
        virtual_tokens=positions_taken,
    ),
    Method(
        "p-tuning",
        "A prompt before the embeddings of the text, made by a small trained network.",
        PTuningOptions,
        wrap_p_tuning,
        learning_rate=3e-3,
        paper="https://arxiv.org/abs/2103.10385",
        mergeable=False,
        saves_adapter=True,
        learning_rates=(1e-4, 3e-2),
        weights=(_MARK,),
        quantized_base=True,
        virtual_tokens=positions_taken,
    ),
    Method(
        "prefix-tuning",
        "Trained keys and values before those of the text in every layer.",
        PrefixTuningOptions,
        wrap_prefix_tuning,
        learning_rate=1e-2,
        paper="https://arxiv.org/abs/2101.00190",
        mergeable=False,
        saves_adapter=True,
        learning_rates=(1e-3, 0.2),
        weights=(_MARK,),
        needs=("past-key-values",),
        quantized_base=True,
    ),
)
