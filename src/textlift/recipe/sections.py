"""The sections of a recipe: frozen values with their range, default and meaning."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from textlift.errors import RecipeError, nearest
from textlift.recipe.wording import in_one_line, shortened, shown, told_by_key

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")

Count = Annotated[int, Field(ge=1)]
Quantization = Literal["none", "8bit", "4bit"]
SchedulerType = Literal["linear", "cosine", "constant_with_warmup"]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused, no silent change of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSection(Section):
    """Where the labelled rows come from and what of them is used."""

    source: str | None = Field(None, description="File, folder with one file per split, or Hub data set name[:config].")
    files: dict[Literal["train", "validation", "test"], str] = Field({}, description="A file for each split, by name.")
    revision: str | None = Field(None, description="Commit, tag or branch of a Hub data set.")
    text: str | None = Field(None, description="Column of the texts; found out when not given.")
    label: str | None = Field(None, description="Column of the labels; found out when not given.")
    split_column: str | None = Field(None, description="Column that says train, validation or test.")
    label_names: dict[str, str] | None = Field(None, description="Name of each label as written: {'0': 'sadness'}.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="Field delimiter of a CSV file.")
    encoding: str = Field("utf-8", description="Encoding of CSV and JSON files.")
    limit: Count | None = Field(None, description="At most this many rows of each split, stratified and seeded.")
    validation_size: float = Field(0.1, gt=0, lt=0.5, description="Share cut from train where no validation is given.")
    test_size: float = Field(0.2, gt=0, lt=0.5, description="Share cut from train where no test is given.")
    drop_empty: bool = Field(False, description="Leave out rows whose text is empty, counted, instead of stopping.")
    allow_leak: bool = Field(False, description="Go on, and say so, where test rows are also in train.")
    allow_conflicts: bool = Field(False, description="Go on where over 5 % of texts carry two labels.")
    min_per_class: Count = Field(2, description="Rows that every class must have.")


class ModelSection(Section):
    """The base model."""

    name: str = Field("embedded", min_length=1, description="Hub name or folder; 'embedded' is all-MiniLM-L6-v2.")
    revision: str | None = Field(None, description="Commit, tag or branch on the Hub.")
    pooling: Literal["auto", "native", "mean"] = Field(
        "auto", description="native: the family's own; mean: over all tokens; auto: mean for mean-pooled embedders."
    )
    quantization: Quantization = Field(
        "none", description="Bits in which the base keeps its linear layers; head and what trains stay fp32."
    )
    max_length: Annotated[int, Field(ge=4)] | Literal["auto"] = Field(
        "auto", description="Tokens of a text that the model sees; auto cuts at most 1 % of the rows, up to 512 tokens."
    )


class TrainingSection(Section):
    """How a variant is trained."""

    epochs: int = Field(2, ge=1, le=1000, description="Passes over the training rows.")
    max_steps: Count | None = Field(None, description="Stop after this many optimizer steps.")
    max_tokens: Count | None = Field(
        None, description="Stop before this many useful tokens are passed: one budget for variants of any batch size."
    )
    max_seconds: float | None = Field(
        None, gt=0, description="Stop after this many seconds of steps; the learning rate follows the clock."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate; the method's own if not given, at most twice that if steps are few or full.",
    )
    lr_scheduler_type: SchedulerType = Field(
        "linear", description="How the learning rate falls, to nothing or not at all, once it has risen."
    )
    batch_size: Count | None = Field(
        None,
        description="Examples of one optimizer step, over all devices; when not given 32, with LoRA up to 128 where "
        "texts are short and many and the learning rate is not given either.",
    )
    tokens_per_batch: Annotated[int, Field(ge=16)] | None = Field(
        None,
        description="Budget of padded tokens of one forward pass; larger batches are split. When not given 4096 on a "
        "CPU, 8192 on a GPU.",
    )
    fast: bool = Field(
        False,
        description="Train, and measure while training, on products with frozen weights in bf16 or int8 "
        "where the processor has them; scores that are told stay exact.",
    )
    compile: bool = Field(
        False, description="Compile the layers (torch.compile) for passes that train; meant for small models on a GPU."
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto", description="Compute each layer again going back, for less memory; auto only where nothing else fits."
    )
    group_by_length: bool = Field(True, description="Fill batches with texts of like length.")
    warmup_ratio: float = Field(0.06, ge=0, lt=1, description="Share of all steps in which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled (AdamW) decay; biases and norms are exempt.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    frozen_dropout: bool = Field(False, description="Keep the dropout of the frozen base model while training.")
    head_start: Literal["probe", "fresh"] = Field("probe", description="What the head starts from.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: each class counts the same in the loss, however many rows it has."
    )
    logit_adjustment: float = Field(
        0.0, ge=0, le=10, description="Times the log share of each class, added to the logits in the loss; 1 balances."
    )
    contrastive_weight: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Weight of a loss over all pairs of texts of a step, beside that of the rows: one class is to be "
        "alike, two are not. At the end the head is fitted anew, on the last weights unless validation shows others to "
        "be better; patience does not count. Where labelled texts are few: 4, with a batch_size of 64 and 20 epochs.",
    )
    evaluations_per_epoch: Count = Field(4, description="Measurements on validation in an epoch.")
    patience: Count | None = Field(
        6, description="Stop after this many measurements in which neither accuracy nor log loss gains; null: never."
    )


class ThresholdSection(Section):
    """What a threshold of a class is to give on validation; one of the two."""

    precision: Share | None = Field(None, description="Share of its predictions that are to be right.")
    recall: Share | None = Field(None, description="Share of its rows that are to be found.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "ThresholdSection":
        return one_of(self, "precision", "recall")


class AbstainSection(Section):
    """When to give no answer, chosen on validation; one of the two."""

    accuracy: Share | None = Field(None, description="Share of the answers that are to be right.")
    coverage: Share | None = Field(None, description="Share of the rows that are to be answered.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "AbstainSection":
        return one_of(self, "accuracy", "coverage")


AnySection = TypeVar("AnySection", bound=Section)


def one_of(section: AnySection, first: str, second: str) -> AnySection:
    """The section, of whose two values exactly one must be given."""
    if (getattr(section, first) is None) == (getattr(section, second) is None):
        raise ValueError(f"{first} or {second} must be given, and not both")
    return section


class DecisionSection(Section):
    """How the logits of a tuned variant become answers; fitted on validation and stored with the model."""

    calibrate: bool = Field(True, description="Divide logits by the temperature that is fitted on validation.")
    priors: Literal["none", "estimate"] | dict[str, Share] = Field(
        "none",
        description="Shares of classes where the model is used: estimated from the texts of test, or by label.",
    )
    thresholds: dict[str, ThresholdSection] = Field(
        {}, description="By label, what its threshold is to give: {spam: {precision: 0.9}} or {recall: 0.9}."
    )
    costs: dict[str, dict[str, float]] = Field(
        {}, description="Of true label and prediction: {spam: {ham: 5}}; others cost 1, right ones 0."
    )
    abstain: AbstainSection | None = Field(
        None, description="No answer where unsure: {accuracy: 0.95} of answers, or {coverage: 0.9} of rows."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "DecisionSection":
        if self.costs and self.thresholds:
            raise ValueError("costs and thresholds exclude each other; found both")
        if self.priors != "none" and not self.calibrate:
            raise ValueError("priors need calibrated probabilities; found calibrate: false beside them")
        if isinstance(self.priors, dict) and abs(sum(self.priors.values()) - 1) > 0.01:
            raise ValueError(f"priors must sum to 1; found {sum(self.priors.values()):.3g}")
        return self


class RuntimeSection(Section):
    """Where the work is done."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the forward pass; auto is bf16 on a GPU that has it, else fp32."
    )
    threads: Count | None = Field(
        None, description="CPU threads; OMP_NUM_THREADS, else all cores this process may use, when not given."
    )
    linear_kernel: Literal["auto", "torch", "onednn"] = Field(
        "auto", description="Matrix product of fp32 linear layers on a CPU; auto is the faster one, measured at start."
    )


class VariantSection(Section):
    """One column of the comparison: what differs from the recipe's own method and training."""

    description: str = Field("", description="One line for the report.")
    method: dict[str, Any] = Field({}, description="Method name and options; what is not given comes from the recipe.")
    training: dict[str, Any] = Field({}, description="Training values that differ from the recipe's.")
    quantization: Quantization | None = Field(
        None, description="In place of model.quantization; where neither is given, the method says: 4bit for qlora."
    )
    merge_of: Name | None = Field(None, description="Fold the adapter of this variant into the base; trains nothing.")
    force: bool = Field(
        False, description="Use a merged model though it is clearly worse than the quantized one it was made from."
    )


class Variant(Section):
    """A variant with everything settled."""

    name: Name
    description: str = ""
    method: str = "lora"
    options: dict[str, Any] = {}
    training: TrainingSection = TrainingSection()
    quantization: Quantization | None = None
    merge_of: Name | None = None
    force: bool = False


class Recipe(Section):
    """One job: data, base model, baselines and variants."""

    format_version: Literal[1] = 1
    name: Name = "run"
    description: str = ""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    method: dict[str, Any] = Field({"name": "lora"}, description="Method and options that variants start from.")
    training: TrainingSection = TrainingSection()
    baselines: tuple[Literal["majority", "tfidf", "untrained", "probe"], ...] = Field(
        ("majority", "tfidf", "untrained", "probe"), strict=False, description="Measured on the same rows."
    )
    variants: dict[Name, VariantSection] = Field(
        {"lora": VariantSection(), "merged": VariantSection(merge_of="lora")}, description="What is trained, in order."
    )
    decision: DecisionSection = DecisionSection()
    runtime: RuntimeSection = RuntimeSection()
    seed: int = Field(0, ge=0, lt=2**32, description="Every draw of the run comes from this number.")

    seeds: int = Field(
        1, ge=1, le=100, description="Trainings of each variant, from this seed on; the first is saved, all are scored."
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_fit(cls, seeds: int, info: ValidationInfo) -> int:
        first = info.data.get("seed", 0)  # missing where it is itself out of range
        if first + seeds > 2**32:
            raise ValueError(f"seed and seeds must stay below {2**32}; found {first} and {seeds}")
        return seeds

    @property
    def all_seeds(self) -> range:
        """Those that a variant is trained from, the one that is saved first."""
        return range(self.seed, self.seed + self.seeds)

    @model_validator(mode="after")
    def _names_fit(self) -> "Recipe":
        told = misnamed({name: one.merge_of for name, one in self.variants.items()}, self.baselines)
        if told:
            raise ValueError("; ".join(told))
        return self

    @property
    def trains_fast(self) -> bool:
        """Whether any variant is to train with `fast`."""
        return any(variant.training.fast for variant in self.settled_variants())

    def settled_variants(self) -> tuple[Variant, ...]:
        """The variants with the recipe's method and training filled in.

        Raises:
            RecipeError: A variant's training has an unknown key or a value out of range.
        """
        return tuple(self._settle(name, section) for name, section in self.variants.items())

    def _settle(self, name: str, section: VariantSection) -> Variant:
        if section.merge_of is not None:
            return self._settle(section.merge_of, self.variants[section.merge_of]).model_copy(
                update={
                    "name": name,
                    "description": section.description,
                    "merge_of": section.merge_of,
                    "force": section.force,
                }
            )
        default = str(self.method.get("name", "lora"))
        method = str(section.method.get("name", default))
        shared = self.method if method == default else {}
        options = {key: value for key, value in {**shared, **section.method}.items() if key != "name"}
        values = {**self.training.model_dump(), **section.training}
        training = _validated(TrainingSection, values, f"variants.{name}.training.")
        shared_bits = None if self.model.quantization == "none" else self.model.quantization
        return Variant(
            name=name,
            description=section.description,
            method=method,
            options=options,
            training=training,
            quantization=section.quantization or shared_bits,
        )


def _validated(model: type[Any], values: dict[str, Any], prefix: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RecipeError(in_one_line(told_by_key(error, model, prefix), "recipe")) from error


def misnamed(origins: Mapping[str, Any], baselines: Iterable[str]) -> list[str]:
    """Complaints about names of variants; origins says which variant each is merged of."""
    taken = sorted(set(origins) & set(baselines))
    told = [f"variants must have names other than the baselines; found {', '.join(taken)}"] if taken else []
    for name, origin in origins.items():
        if isinstance(origin, str) and (origin not in origins or origins[origin] is not None):
            trained = [other for other in origins if origins[other] is None]
            offer = nearest(origin, trained)
            found = f"found {shown(origin)}{'.' if offer else ''}{offer}"
            told.append(f"variants.{shortened(name)}.merge_of must name a variant that is trained; {found}")
    return told
