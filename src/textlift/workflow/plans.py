"""`textlift plan`: what each variant of a recipe will take, before anything is trained; a run tells the same first."""

from dataclasses import dataclass
from typing import Any

from textlift.progress import Progress
from textlift.recipe import Recipe
from textlift.training.rehearsal import Forecast, rehearse
from textlift.training.tuning import ParameterCounts
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.forecasting import forecast_lines, size_in_words
from textlift.workflow.preparation import prepare
from textlift.workflow.variants import start_tuning


@dataclass(frozen=True)
class VariantPlan:
    """What one variant will take."""

    name: str
    method: str
    counts: ParameterCounts
    forecast: Forecast
    saved_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As `textlift plan --json` prints it."""
        return {
            "variant": self.name,
            "method": self.method,
            "trained_parameters": self.counts.trained,
            "total_parameters": self.counts.total,
            "saved_bytes": self.saved_bytes,
            **self.forecast.to_dict(),
        }


def plan(recipe: Recipe, progress: Progress) -> list[VariantPlan]:
    """Read the rows and the base model, and rehearse a few steps of each variant that is trained.

    Raises:
        TextliftError: As a run would before it trains.
    """
    job = prepare(recipe, progress)
    frozen = FrozenPass(job, progress)
    plans = []
    for variant in recipe.settled_variants():
        if variant.merge_of is not None:
            continue
        fresh = variant.training.model_copy(update={"head_start": "fresh"})  # the probe's head takes nothing more
        tuning = start_tuning(job, variant.model_copy(update={"training": fresh}), frozen, progress=progress)
        weights = tuning.counts.trained if tuning.method.saves_adapter else tuning.counts.total
        forecast = rehearse(tuning.session)
        plans.append(VariantPlan(variant.name, tuning.method.name, tuning.counts, forecast, 4 * weights))
    return plans


def plan_text(plans: list[VariantPlan]) -> str:
    """A block of lines for each variant."""
    blocks = []
    for one in plans:
        share = one.counts.trained / one.counts.total
        disk = one.forecast.checkpoint_bytes + one.saved_bytes
        lines = [
            f"{one.name} ({one.method})",
            f"  parameters trained  {one.counts.trained:,} of {one.counts.total:,} ({share:.2%})",
            *(f"  {line}" for line in forecast_lines(one.forecast)),
            f"  disk                {size_in_words(disk)} while training, {size_in_words(one.saved_bytes)} saved",
        ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)
