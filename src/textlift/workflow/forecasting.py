"""A forecast in words, and the refusal of a training that cannot fit into memory."""

from textlift.errors import RecipeError
from textlift.memory import is_out_of_memory
from textlift.progress import Progress, seconds_in_words
from textlift.training.rehearsal import Forecast, rehearse
from textlift.training.session import TrainingSession


def tell_forecast(name: str, session: TrainingSession, progress: Progress) -> None:
    """Rehearse a session that has not begun and tell what it will take.

    Raises:
        RecipeError: Its widest pass cannot fit into memory.
    """
    try:
        forecast = rehearse(session)
        if _needs_recomputing(session, forecast) and session.recompute():
            progress.say(f"  gradient checkpointing: nothing else fits into memory; {PRICE}")
            forecast = rehearse(session)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        session.optimizer.zero_grad(set_to_none=True)
        progress.say("  memory did not suffice for the widest pass; training will take smaller parts")
        return
    require_fit(name, forecast)
    for line in forecast_lines(forecast):
        progress.say(f"  {' '.join(line.split())}")


def forecast_lines(forecast: Forecast) -> list[str]:
    """Memory and time, one line each."""
    texts, tokens = forecast.widest
    peak = (
        "not told by this system" if forecast.peak_memory_bytes is None else size_in_words(forecast.peak_memory_bytes)
    )
    free = "" if forecast.free_bytes is None else f", {size_in_words(forecast.free_bytes)} more are free"
    lines = [f"peak memory         {peak}{free}; widest pass {texts} texts, {tokens:,} tokens"]
    if forecast.seconds_per_epoch is not None:
        lines.append(
            f"an epoch            {seconds_in_words(forecast.seconds_per_epoch)}; {forecast.steps:,} steps planned"
        )
    return lines


PRICE = "each layer is computed twice, which takes about half as long again"


def _needs_recomputing(session: TrainingSession, forecast: Forecast) -> bool:
    texts, tokens = forecast.widest
    fits_in_parts = forecast.fits or forecast.fitting_tokens >= tokens // texts
    return session.settings.gradient_checkpointing == "auto" and not fits_in_parts


def require_fit(name: str, forecast: Forecast) -> None:
    """Refuse a training whose widest pass cannot fit into memory.

    Raises:
        RecipeError: It cannot; what would is told.
    """
    if forecast.fits:
        return
    texts, tokens = forecast.widest
    longest = tokens // texts
    if forecast.fitting_tokens >= longest:
        advice = f"--set training.tokens_per_batch={forecast.fitting_tokens}, which changes no result"
    else:
        advice = "fewer tokens (--set model.max_length), a smaller base model, or --method qlora"
    needed = "more" if forecast.peak_memory_bytes is None else f"{size_in_words(forecast.peak_memory_bytes)} in all"
    raise RecipeError(
        f"variant {name}: a pass over {texts} texts of {longest} tokens must fit into memory; it takes {needed}, and "
        f"{size_in_words(forecast.free_bytes or 0)} are free.\nPass {advice}."
    )


def size_in_words(count: int) -> str:
    """Such as "334.1 MB" or "1.25 GB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
