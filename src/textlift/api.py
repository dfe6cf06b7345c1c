"""The Python functions, each the same in meaning as the command of its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textlift.inference import Predictor
from textlift.progress import Progress
from textlift.recipe import DataSection, Recipe
from textlift.workflow import verbs
from textlift.workflow.checking import CheckResult, FixResult, check_rows, write_check, write_fixed
from textlift.workflow.explaining import explain_texts
from textlift.workflow.main_job import RunResult, run_recipe
from textlift.workflow.planning import Request, resolve
from textlift.workflow.verbs import Comparison


def run(
    target: str | Path,
    *,
    data: str | Sequence[str] = (),
    validation: str | Path | None = None,
    test: str | Path | None = None,
    model: str | None = None,
    method: str | None = None,
    methods: Sequence[str] = (),
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    silent: bool = False,
) -> RunResult:
    """Turn labelled text into a proven classifier: `textlift run`.

    Args:
        target: Recipe name or file, data file, folder, or Hub data set.
        data: Local files or one folder in place of the recipe's data.
        validation: File of the validation rows.
        test: File of the test rows.
        model: Base model: a Hub name, a folder, or "embedded".
        method: Train one variant by this method.
        methods: Variants to train, by method or by name in the recipe.
        output: Run directory; runs/NAME when not given.
        overwrite: Replace a run that is there.
        resume: Continue a run that was interrupted.
        settings: Recipe values by dotted key: {"training.epochs": 3, "data.limit": 500, "seed": 1}.
        silent: No progress on stderr.

    Raises:
        TextliftError: See `textlift.errors`.
    """
    request = Request(
        str(target),
        data=[str(data)] if isinstance(data, str | Path) else [str(path) for path in data],
        validation=None if validation is None else str(validation),
        test=None if test is None else str(test),
        model=model,
        method=method,
        methods=methods,
        values=settings or {},
    )
    return run_recipe(
        resolve(request),
        output=None if output is None else Path(output),
        overwrite=overwrite,
        resume=resume,
        progress=Progress(silent=silent),
        command=f"textlift.run({str(target)!r})",
    )


def load(path: str | Path, *, device: str = "auto", base: str | None = None) -> Predictor:
    """The classifier of a run (its best variant), of RUN/variant, or of an exported folder: `load(p).predict([...])`.

    Raises:
        TextliftError: See `textlift.errors`.
    """
    return verbs.load(path, device=device, base=base)


def evaluate(
    path: str | Path, source: str | Path, *, device: str = "auto", raw: bool = False, **columns: Any
) -> dict[str, Any]:
    """Scores of a saved variant on other labelled rows: `textlift evaluate`.

    Args:
        path: As `load`.
        source: File, folder or Hub data set.
        device: auto, cpu, cuda, cuda:N or mps.
        raw: Without the stored decision: the most probable class of the softmax of the logits.
        **columns: Values of the data section, such as text="tweet", label="class".

    Raises:
        TextliftError: See `textlift.errors`.
    """
    return verbs.evaluate_file(str(path), DataSection(source=str(source), **columns), device=device, raw=raw)


def explain(path: str | Path, texts: Sequence[str] | str, *, device: str = "auto") -> list[dict[str, Any]]:
    """Which words carried what a saved variant says of texts, and which training rows are near: `textlift explain`.

    Args:
        path: As `load`.
        texts: One or several.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        For each text "text", "prediction", "probability", "words", "nearest" and "note" (docs/error-book.md).

    Raises:
        TextliftError: See `textlift.errors`.
    """
    return explain_texts(str(path), [texts] if isinstance(texts, str) else list(texts), device=device)


def compare(*paths: str | Path, output: str | Path | None = None) -> Comparison:
    """Several finished runs in one table: `textlift compare`.

    Raises:
        TextliftError: See `textlift.errors`.
    """
    return verbs.compare_runs([str(path) for path in paths], output=None if output is None else Path(output))


def export(
    path: str | Path, output: str | Path, *, to: str = "merged", overwrite: bool = False, force: bool = False
) -> list[dict[str, Any]]:
    """Write a saved variant in another format, proved in a fresh process: `textlift export`.

    Raises:
        TextliftError: See `textlift.errors`.
    """
    return verbs.export_variant(str(path), to, Path(output), overwrite=overwrite, force=force)


def check(
    source: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    model: str | None = None,
    output: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> CheckResult:
    """What is in labelled rows and what is wrong with them: `textlift check`.

    Args:
        source: Data file, folder, Hub data set, or recipe.
        validation: File of the validation rows.
        test: File of the test rows.
        model: Base model whose frozen features are looked at too, as for likely label errors; takes a pass over all
            rows.
        output: Folder for checks.json and the rows of every finding.
        settings: Recipe values by dotted key: {"data.drop_empty": True}.

    Raises:
        TextliftError: See `textlift.errors`.
    """
    recipe = _checked(source, validation=validation, test=test, model=model, settings=settings)
    result = check_rows(recipe, Progress(silent=True), with_model=model is not None)
    return result if output is None else write_check(result, Path(output))


def fix(
    source: str | Path,
    output: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    relabel: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> FixResult:
    """A cleaned copy of labelled rows with a log of every change: `textlift check --fix`. The rows stay as they are.

    Args:
        source: As `check`.
        output: New or empty folder for train.csv, validation.csv, test.csv and log/.
        validation: File of the validation rows.
        test: File of the test rows.
        relabel: A listing such as likely-wrong-labels.csv of a run; its filled new_label is put into the copy.
        settings: As `check`.

    Raises:
        TextliftError: See `textlift.errors`.
    """
    recipe = _checked(source, validation=validation, test=test, model=None, settings=settings)
    listing = None if relabel is None else Path(relabel)
    return write_fixed(check_rows(recipe, Progress(silent=True)), recipe.data, Path(output), relabel=listing)


def _checked(
    source: str | Path,
    *,
    validation: str | Path | None,
    test: str | Path | None,
    model: str | None,
    settings: Mapping[str, Any] | None,
) -> Recipe:
    return resolve(
        Request(
            str(source),
            validation=None if validation is None else str(validation),
            test=None if test is None else str(test),
            model=model,
            values=settings or {},
        )
    )
