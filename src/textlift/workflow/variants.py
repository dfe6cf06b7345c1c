"""The variants of a run that are trained: started, followed step by step, measured, saved, loaded back."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from textlift import interrupts
from textlift.errors import TrainingError
from textlift.evaluation.verdict import one_class_warning
from textlift.export.card import model_card
from textlift.export.proof import prove_saved
from textlift.export.saving import save_adapter, save_model, settings_of
from textlift.inference import Predictor
from textlift.memory import PeakMemory, give_back_memory
from textlift.methods.base import Method, MethodOptions, learning_rate_warning, peak_learning_rate
from textlift.methods.registry import method_of, quantization_of
from textlift.models.quantized import BaseBytes, base_bytes
from textlift.progress import Progress
from textlift.recipe import Quantization, TrainingSection, Variant
from textlift.runs import RunDirectory
from textlift.runtime import environment, set_seed
from textlift.training.checkpoint import restore_latest, save_checkpoint
from textlift.training.health import Spikes
from textlift.training.loop import Shrunk, TrainStep
from textlift.training.session import Measurement, TrainingSession
from textlift.training.steps import USUAL_BATCH, affordable_evaluations, batch_size_of, planned_steps, rate_factor
from textlift.training.tuning import ParameterCounts, apply_method, hooks_of
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.deciding import Ground, decide, told_of_decision
from textlift.workflow.forecasting import PRICE, tell_forecast
from textlift.workflow.measuring import MEASURED, Measured, forward_split, measure, proof_texts, tell_proof
from textlift.workflow.preparation import Job

# Rows on which the start of a variant is compared with the probe, and how near is the same, exact and rounded.
_TRIED, _SAME, _SAME_ROUNDED = 32, 1e-3, 5e-2
_FEW = 40  # training rows for each class of the labels
_SAVED_SECONDS = 300.0  # at most so much of a long epoch is lost to a sudden end


@dataclass(frozen=True)
class Tuning:
    """A variant that is ready to train: its classifier is wrapped and its head started."""

    session: TrainingSession
    method: Method
    options: MethodOptions
    counts: ParameterCounts
    learning_rate: float
    quantization: Quantization
    base_bytes: BaseBytes


def start_tuning(job: Job, variant: Variant, frozen: FrozenPass, *, progress: Progress) -> Tuning:
    """A fresh classifier with its head started, wrapped by the variant's method, in a session that has not begun.

    Raises:
        RecipeError: There is no such method, or an option is unknown or out of range.
        ModelError: The base model cannot be used.
    """
    method, options = method_of(variant)
    quantization = quantization_of(variant)
    predictor = job.fresh_predictor(quantization)
    held = base_bytes(predictor.classifier.model)
    if variant.training.head_start == "probe":
        head, _ = frozen.probe
        predictor.classifier.set_head(head.weight, head.bias)
    set_seed(job.recipe.seed)
    settings, fuller = _with_batch_size(variant.training, job, method)
    steps = planned_steps(settings, job.tokens["train"].lengths, seed=job.recipe.seed)
    counts = apply_method(predictor.classifier, method, options, total_steps=steps)
    predictor.classifier.to(job.runtime.device)
    factor = rate_factor(fuller, steps=steps, few_steps=method.few_steps_factor)
    rate, why = peak_learning_rate(method, hidden_size=job.base.hidden_size, factor=factor)
    if settings.learning_rate is not None:
        rate, why = settings.learning_rate, f"learning_rate {settings.learning_rate:g}: as asked"
    progress.say(f"variant {variant.name}: {method.name}, {_told(counts)}; {why}")
    if quantization != "none":
        progress.say(f"  base in {quantization}: {_told_bytes(held)}; products in {job.runtime.precision}")
    warning = learning_rate_warning(method, rate, hidden_size=job.base.hidden_size)
    if warning:
        progress.say(f"  warning: {warning}")
    if fuller > 1:
        progress.say(f"  batches of {settings.batch_size}: texts are short and many")
    _advise_on_few(variant, job, progress)
    settings = _affordable(settings, job, progress)
    session = TrainingSession(
        predictor,
        job.examples("train"),
        job.examples("validation"),
        settings=settings,
        learning_rate=rate,
        seed=job.recipe.seed,
        base_dropout=variant.training.frozen_dropout or method.base_dropout,
        hooks=hooks_of(predictor.classifier, method, options),
        stop=interrupts.pending,
    )
    if variant.training.head_start == "probe":
        session.start_logits = _known_start(predictor, job, frozen)
    if variant.training.gradient_checkpointing is True:
        progress.say(f"  gradient checkpointing as asked: {PRICE}")
    if variant.training.fast:
        kept = "" if session.is_fast else "no faster on this processor: "
        how = "in bf16 or int8 until the best weights are found, then exact" if session.is_fast else "stay exact"
        progress.say(f"  fast: {kept}products with frozen weights {how}")
    if job.runtime.device.startswith("cuda"):
        progress.say(f"  {_told_packing(session)}")
    return Tuning(session, method, options, counts, rate, quantization, held)


def _advise_on_few(variant: Variant, job: Job, progress: Progress) -> None:
    """Name the settings that were measured to win where texts of a class are few (docs/performance.md)."""
    settings = variant.training
    if len(job.labels["train"]) <= _FEW * job.n_classes and settings == TrainingSection(fast=settings.fast):
        keys = ("contrastive_weight=4", "batch_size=64", "epochs=20")
        advice = " ".join(f"--set variants.{variant.name}.training.{key}" for key in keys)
        progress.say(f"  few texts of each class; pairs of them may teach more: {advice}")


def _known_start(predictor: Predictor, job: Job, frozen: FrozenPass) -> np.ndarray | None:
    """Logits of the validation rows before the first step, where they are those of the probe; else None.

    A method that starts where the base model stands, with the probe's head, gives them: tried on a few rows.
    """
    known = frozen.probe_logits("validation")
    rows = np.arange(min(_TRIED, len(known)))
    with frozen.products(predictor):
        found = predictor.forward(job.tokens["validation"].take(rows)).logits
    scale = max(1.0, float(np.abs(found).max()))
    same = _SAME_ROUNDED if frozen.rounds else _SAME
    return known if float(np.abs(found - known[rows]).max()) <= same * scale else None


def follow(tuning: Tuning, name: str, progress: Progress) -> Iterator[TrainingSession]:
    """Train to the end, telling how far it is, and yield the session where it is to be saved.

    That is after each measurement, some minutes after the last time, and where the process was asked to end; then it
    ends once the caller comes back. Once exhausted, the module is what its method measures and saves.

    Raises:
        Interrupted: The process was asked to end.
        TrainingError: As `TrainingSession.run`.
    """
    session, classifier = tuning.session, tuning.session.classifier
    spikes, saved = Spikes(len(session.predictor.label_names)), time.monotonic()
    with interrupts.deferred(), progress.task(f"training {name}", session.total_steps) as task:
        for event in session.run():
            if isinstance(event, TrainStep):
                task.reach(event.number, f"loss {event.loss:.3f}")
                told = spikes.told(event.number, event.loss)
            else:
                told = _told_event(event, session)
            if told:
                progress.say(f"  {told}")
            if isinstance(event, Measurement) or time.monotonic() - saved > _SAVED_SECONDS:
                yield session
                saved = time.monotonic()
        if interrupts.pending():
            yield session
            interrupts.obey()
    if session.end_reason:
        progress.say(f"  stopped early: {session.end_reason}")
    if tuning.method.before_save is not None:
        classifier.model = tuning.method.before_save(classifier.model, tuning.options)


def _told_event(event: Measurement | Shrunk, session: TrainingSession) -> str:
    if isinstance(event, Measurement):
        mark = " (best)" if event.is_best else ""
        what = "head fitted anew" if event.is_refit else f"step {event.step}/{session.total_steps}"
        return f"{what}: validation accuracy {event.accuracy:.4f}, log loss {event.log_loss:.4f}{mark}"
    return (
        f"out of memory: {event.tokens_per_batch:,} padded tokens in one forward pass from here on, with the same "
        f"examples per step; --set training.tokens_per_batch={event.tokens_per_batch} begins there"
    )


def tune(job: Job, variant: Variant, *, run: RunDirectory, frozen: FrozenPass, progress: Progress) -> Measured:
    """Train a variant, measure it, save it, and load it back in a fresh process before it counts.

    Raises:
        TrainingError: Loss or gradient became infinite.
        ModelError: What was saved does not give the same logits.
        StorageError: The disk refuses.
    """
    tuning, measured = train_variant(job, variant, variant.name, run=run, frozen=frozen, progress=progress)
    predictor = _decided(measured, tuning.session.predictor, job=job, progress=progress)
    return _save(measured, predictor, job=job, run=run, progress=progress, saves_adapter=tuning.method.saves_adapter)


def train_variant(
    job: Job, variant: Variant, name: str, *, run: RunDirectory, frozen: FrozenPass, progress: Progress
) -> tuple[Tuning, Measured]:
    """Train a variant and measure it; checkpoints lie in the run's folder of the name until it is stored.

    Raises:
        TrainingError: Loss or gradient became infinite.
        StorageError: The disk refuses.
    """
    memory = PeakMemory(job.runtime.device)
    tuning = start_tuning(job, variant, frozen, progress=progress)
    session, method, counts, predictor = tuning.session, tuning.method, tuning.counts, tuning.session.predictor
    _train(tuning, name, job=job, run=run, progress=progress)
    give_back_memory()  # the passes that follow are of other sizes, and would not fit into the holes
    passes = {split: forward_split(predictor, job, split, progress=progress, title=name) for split in MEASURED}
    measured = measure(
        job,
        name,
        {split: done.logits for split, done in passes.items()},
        kind="tuned",
        method=method.name,
        description=variant.description or method.summary,
        history=session.progress.history,
        trained_parameters=counts.trained,
        total_parameters=counts.total,
        train_seconds=session.progress.seconds,
        useful_tokens=session.progress.useful_tokens,
        useful_tokens_per_second=session.progress.useful_tokens / max(session.progress.seconds, 1e-9),
        peak_memory_bytes=memory.bytes(),
        base_weight_bytes=asdict(tuning.base_bytes),
        samples_per_second=passes["test"].samples_per_second,
        settings={
            **tuning.options.model_dump(mode="json"),
            **session.settings.model_dump(mode="json"),
            "quantization": tuning.quantization,
            "learning_rate": tuning.learning_rate,
            "batch_size": tuning.session.batch_size,
            "tokens_per_batch": session.progress.tokens_per_batch,
            "steps": session.progress.step,
            "best_step": session.progress.best_step,
        },
    )
    told = one_class_warning(name, measured.record)
    if told:
        progress.say(f"  warning: {told}")
    measured.record["warnings"] = [told] if told else []
    return tuning, measured


def _decided(measured: Measured, predictor: Predictor, *, job: Job, progress: Progress) -> Predictor:
    """The predictor with its decision, of which the record is told."""
    has_prior_shift = any(one.code == "prior_shift" and one.split == "test" for one in job.findings)
    ground = ground_of(job, measured.logits)
    decision, told = decide(ground, job.recipe.decision, has_prior_shift=has_prior_shift, seed=job.recipe.seed)
    measured.record.update(told)
    for line in told_of_decision(told, job.dataset.label_names):
        progress.say(f"  {line}")
    return replace(predictor, decision=decision)


def ground_of(job: Job, logits: Mapping[str, np.ndarray]) -> Ground:
    """What a decision is made from."""
    return Ground(job.labels, logits, job.dataset.label_names, job.dataset.label_values)


def _train(tuning: Tuning, name: str, *, job: Job, run: RunDirectory, progress: Progress) -> None:
    checkpoints = run.variant(name) / "checkpoints"
    session, machine = tuning.session, environment(job.runtime)
    # Both follow from the recipe and the rows by defaults that a version may change.
    steps = {"number of steps": str(session.total_steps), "learning rate": f"{tuning.learning_rate:g}"}
    fingerprint = {**job.fingerprint, **steps}
    restored = restore_latest(session, checkpoints, job=fingerprint, environment=machine)
    for sentence in restored.told:
        progress.say(f"  {sentence}")
    if restored.step:
        progress.say(f"  continued from step {restored.step}")
    else:
        tell_forecast(name, session, progress)
    try:
        for place in follow(tuning, name, progress):
            save_checkpoint(place, checkpoints, job=fingerprint, environment=machine)
    except TrainingError as error:
        kept = _keep_last_finite(tuning, job, run.variant(name) / "last-finite")
        raise TrainingError(f"{error} The weights before that step: {kept}") from error


def _keep_last_finite(tuning: Tuning, job: Job, folder: Path) -> Path:
    """Save the weights as they were before the step that failed, for whoever wants to look at them."""
    predictor, method = tuning.session.predictor, tuning.method
    if method.before_save is not None:
        predictor.classifier.model = method.before_save(predictor.classifier.model, tuning.options)
    kind = "adapter" if method.saves_adapter else "model"
    settings = settings_of(job.base, predictor, kind=kind, method=method.name, label_values=job.dataset.label_values)
    card = "Weights of a training that failed, as they were before the step that was not finite.\n"
    shutil.rmtree(folder, ignore_errors=True)
    (save_adapter if method.saves_adapter else save_model)(predictor, folder, settings=settings, card=card)
    return folder


def _save(
    measured: Measured, predictor: Predictor, *, job: Job, run: RunDirectory, progress: Progress, saves_adapter: bool
) -> Measured:
    kind = "adapter" if saves_adapter else "model"
    folder = run.variant(measured.name) / kind
    shutil.rmtree(folder, ignore_errors=True)
    settings = settings_of(
        job.base, predictor, kind=kind, method=measured.record["method"], label_values=job.dataset.label_values
    )
    card = model_card(measured.record, settings, name=job.recipe.name, dataset=job.dataset.name)
    (save_adapter if saves_adapter else save_model)(predictor, folder, settings=settings, card=card)
    proof = prove_saved(
        predictor,
        job.base,
        proof_texts(job),
        adapter=folder if saves_adapter else None,
        model=None if saves_adapter else folder,
    )
    tell_proof(proof, progress)
    return Measured(measured.name, measured.logits, {**measured.record, "proof": proof}, measured.history)


def _with_batch_size(asked: TrainingSection, job: Job, method: Method) -> tuple[TrainingSection, float]:
    """The settings with the examples of a step, and how much fuller than usual that is without being asked to."""
    batch = batch_size_of(asked, job.tokens["train"].lengths, fullest=method.fullest_batch)
    return asked.model_copy(update={"batch_size": batch}), batch / (asked.batch_size or USUAL_BATCH)


def _affordable(settings: TrainingSection, job: Job, progress: Progress) -> TrainingSection:
    asked = settings.evaluations_per_epoch
    count = affordable_evaluations(
        asked,
        train_tokens=int(job.tokens["train"].lengths.sum()),
        validation_tokens=int(job.tokens["validation"].lengths.sum()),
    )
    if count < asked:
        progress.say(
            f"  {count} measurement{'s' * (count > 1)} an epoch in place of {asked}: validation is large beside train"
        )
    return settings.model_copy(update={"evaluations_per_epoch": count})


def _told_packing(session: TrainingSession) -> str:
    why = session.classifier.not_packed or ("the dropout of the base is on" if session.base_dropout else "")
    return f"batches are padded: {why}" if why else "batches without padding: as exact as padded ones on this device"


def _told_bytes(held: BaseBytes) -> str:
    parts = {"linear layers": held.quantized, "embeddings": held.embeddings, "the rest": held.other}
    sizes = ", ".join(f"{name} {count / 1e6:,.1f} MB" for name, count in parts.items())
    return f"its weights take {held.share:.0%} of fp32 ({sizes})"


def _told(counts: ParameterCounts) -> str:
    return f"{counts.trained:,} of {counts.total:,} parameters train ({counts.trained / counts.total:.2%})"
