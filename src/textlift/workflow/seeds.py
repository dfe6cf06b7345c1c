"""A variant trained again from other seeds: for the spread of its scores, not for use. Only the first one is saved."""

from dataclasses import replace
from typing import Any

import numpy as np

from textlift.evaluation.seeds import over_seeds
from textlift.progress import Progress
from textlift.recipe import Variant
from textlift.runs import RunDirectory
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.measuring import MEASURED, Measured, restore, store
from textlift.workflow.preparation import Job
from textlift.workflow.variants import train_variant


def with_seeds(
    job: Job, variant: Variant, first: Measured, *, run: RunDirectory, frozen: FrozenPass, progress: Progress
) -> Measured:
    """A tuned variant with what its training gives from each of the recipe's other seeds, beside its own.

    The rows and their splits stay; what is drawn while training (start values, order, dropout) changes. Each seed is
    kept in `variants/NAME/seeds/SEED`, so that a run that is interrupted continues there.

    Raises:
        TextliftError: As `train_variant`.
    """
    seeds = job.recipe.all_seeds
    if len(seeds) == 1:
        return first
    others = []
    for seed in seeds[1:]:
        name = f"{variant.name}/seeds/{seed}"
        one = restore(run, name)
        if one is None:
            again = replace(job, recipe=job.recipe.model_copy(update={"seed": seed}))
            _, one = train_variant(again, variant, name, run=run, frozen=frozen, progress=progress)
            store(run, again, one)
        others.append(one.logits)
    every = [first.logits, *others]
    record: dict[str, Any] = {"values": list(seeds)}
    for split in MEASURED:
        predictions = np.stack([logits[split].argmax(axis=1) for logits in every])
        record[split] = over_seeds(job.labels[split], predictions, n_classes=job.n_classes)
    measured = replace(first, record={**first.record, "seeds": record}, other_seeds=tuple(others))
    store(run, job, measured)
    return measured
