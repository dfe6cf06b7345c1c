"""The verbs on the command line: parse, call, print.

Results go to stdout, progress and errors to stderr. A TextliftError is at most three lines and has its own exit code;
anything else is a bug of ours, keeps its traceback, and exits with 70.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from textlift.cli_exit import exit_codes
from textlift.cli_options import (
    AllowConflicts,
    AllowLeak,
    CheckModel,
    Data,
    Delimiter,
    Device,
    DropEmpty,
    Encoding,
    Fast,
    Fix,
    Json,
    LabelColumn,
    Limit,
    MinPerClass,
    Model,
    Overrides,
    Raw,
    Relabel,
    Saved,
    Seed,
    Seeds,
    SplitColumn,
    Target,
    Test,
    TextColumn,
    Texts,
    Validation,
)
from textlift.cli_printing import print_check, print_explained, print_json, print_line, print_scores
from textlift.errors import UsageError
from textlift.interrupts import handled

app = typer.Typer(
    name="textlift",
    help="Labelled text in, a proven and cheap classifier out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    target: Target,
    data: Data = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    split_column: SplitColumn = None,
    model: Model = None,
    method: Annotated[str | None, typer.Option(help="Way to tune, in place of the recipe's: see `methods`.")] = None,
    methods: Annotated[str | None, typer.Option(help="Variants to train, with commas: lora,full.")] = None,
    overrides: Overrides = None,
    limit: Limit = None,
    output: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME when not given.")] = None,
    seed: Seed = None,
    seeds: Seeds = None,
    device: Device = None,
    fast: Fast = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    drop_empty: DropEmpty = False,
    allow_leak: AllowLeak = False,
    allow_conflicts: AllowConflicts = False,
    min_per_class: MinPerClass = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Tune a classifier, compare it with what was there before, and write a report."""
    from textlift.workflow.main_job import run_recipe
    from textlift.workflow.planning import Request, resolve

    _require_one(overwrite, resume)
    values = _data_values(
        text=text,
        label=label,
        split_column=split_column,
        limit=limit,
        drop_empty=drop_empty,
        allow_leak=allow_leak,
        allow_conflicts=allow_conflicts,
        min_per_class=min_per_class,
        delimiter=delimiter,
        encoding=encoding,
    )
    request = Request(
        target,
        data=_paths(data),
        validation=validation,
        test=test,
        model=model,
        method=method,
        methods=_names(methods),
        overrides=overrides or (),
        values={**values, "seed": seed, "seeds": seeds, "runtime.device": device, "training.fast": fast or None},
    )
    result = run_recipe(resolve(request), output=output, overwrite=overwrite, resume=resume, command=_command())
    if as_json:
        print_json({"directory": str(result.directory), **result.results})
        return
    print_line(f"{result}\nReport: {result.report}")


@app.command()
def plan(
    target: Target,
    data: Data = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    model: Model = None,
    methods: Annotated[str | None, typer.Option(help="Variants to plan, with commas: lora,full.")] = None,
    overrides: Overrides = None,
    limit: Limit = None,
    device: Device = None,
    fast: Fast = False,
    as_json: Json = False,
) -> None:
    """Tell what a run will take: parameters trained, peak memory, seconds of an epoch, disk."""
    from textlift.progress import Progress
    from textlift.workflow.planning import Request, resolve
    from textlift.workflow.plans import plan as make_plan
    from textlift.workflow.plans import plan_text

    request = Request(
        target,
        data=_paths(data),
        validation=validation,
        test=test,
        model=model,
        methods=_names(methods),
        overrides=overrides or (),
        values={
            **_data_values(text=text, label=label, limit=limit),
            "runtime.device": device,
            "training.fast": fast or None,
        },
    )
    plans = make_plan(resolve(request), Progress())
    if as_json:
        print_json([one.to_dict() for one in plans])
    else:
        print_line(plan_text(plans))


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="Data file, folder, Hub data set, or recipe.")],
    data: Data = None,
    validation: Validation = None,
    test: Test = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    split_column: SplitColumn = None,
    model: CheckModel = None,
    limit: Limit = None,
    drop_empty: DropEmpty = False,
    allow_leak: AllowLeak = False,
    allow_conflicts: AllowConflicts = False,
    min_per_class: MinPerClass = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    output: Annotated[Path | None, typer.Option(help="Folder for checks.json and the rows of every finding.")] = None,
    fix: Fix = None,
    relabel: Relabel = None,
    as_json: Json = False,
) -> None:
    """Tell what is in labelled rows and what is wrong with them; exit code 65 on errors."""
    from textlift.errors import DataError
    from textlift.progress import Progress
    from textlift.workflow.checking import check_rows, write_check, write_fixed
    from textlift.workflow.planning import Request, resolve

    if relabel is not None and fix is None:
        raise UsageError("--relabel puts labels into the copy of --fix; pass --fix DIR too.")
    values = _data_values(
        text=text,
        label=label,
        split_column=split_column,
        limit=limit,
        drop_empty=drop_empty,
        allow_leak=allow_leak,
        allow_conflicts=allow_conflicts,
        min_per_class=min_per_class,
        delimiter=delimiter,
        encoding=encoding,
    )
    request = Request(target, data=_paths(data), validation=validation, test=test, model=model, values=values)
    recipe = resolve(request)
    found = check_rows(recipe, Progress(), with_model=model is not None)
    result = found if output is None else write_check(found, output)
    fixed = None if fix is None else write_fixed(result, recipe.data, fix, relabel=relabel)
    (print_json if as_json else print_check)(result.to_dict() | ({"fixed": fixed.to_dict()} if fixed else {}))
    if (fixed or result).has_errors:
        raise typer.Exit(DataError.exit_code)


@app.command()
def evaluate(
    saved: Saved,
    source: Annotated[str, typer.Argument(help="Labelled rows: file, folder or Hub data set.")],
    text: TextColumn = None,
    label: LabelColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    device: Device = None,
    raw: Raw = False,
    as_json: Json = False,
) -> None:
    """Measure a saved variant on other labelled rows."""
    from textlift.recipe import parse_recipe
    from textlift.workflow.planning import nested
    from textlift.workflow.verbs import evaluate_file

    given = _data_values(text=text, label=label, delimiter=delimiter, encoding=encoding)
    values = nested({"data.source": source, **{key: value for key, value in given.items() if value is not None}})
    scores = evaluate_file(saved, parse_recipe(values).data, device=device or "auto", raw=raw, command=_command())
    if as_json:
        print_json(scores)
    else:
        print_scores(scores, f"{saved} on {scores['n']:,} rows of {source}")


@app.command()
def predict(
    saved: Saved,
    source: Annotated[str, typer.Argument(help="File with texts, or - for one text a line on standard input.")],
    text: TextColumn = None,
    delimiter: Delimiter = None,
    device: Device = None,
    raw: Raw = False,
    as_json: Json = False,  # noqa: ARG001 - JSON lines are the only form; the flag is known everywhere
) -> None:
    """Print one JSON line for each text: text, label (null where the decision gives none), probabilities."""
    from textlift.data import read_texts
    from textlift.runs import find_variant

    find_variant(saved)
    read = partial(read_texts, source, text_column=text, delimiter=delimiter)
    texts = None if source == "-" else read()  # a file before torch, which takes seconds; nobody types for a bad model
    from textlift.workflow.verbs import load

    predictor = load(saved, device=device or "auto")
    for prediction in predictor.predict(read() if texts is None else texts, raw=raw):
        typer.echo(json.dumps(prediction.to_dict()))


@app.command()
def explain(saved: Saved, texts: Texts, device: Device = None, as_json: Json = False) -> None:
    """Tell which words carried a prediction, and which training rows are near."""
    from textlift.workflow.explaining import explain_texts

    told = explain_texts(saved, texts, device=device or "auto")
    (print_json if as_json else print_explained)(told)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Finished runs.", metavar="RUN RUN ...")],
    output: Annotated[Path | None, typer.Option(help="Folder for report.html and results.md.")] = None,
    as_json: Json = False,
) -> None:
    """Put several runs in one table, and with --output in one report."""
    from textlift.workflow.verbs import compare_runs

    comparison = compare_runs(runs, output=output)
    if as_json:
        print_json(list(comparison.runs))
        return
    typer.echo(str(comparison))
    if output is not None:
        print_line(f"\nReport: {output / 'report.html'}")


@app.command()
def export(
    saved: Saved,
    output: Annotated[Path, typer.Argument(help="Folder to write.", metavar="DIR")],
    to: Annotated[str, typer.Option(help="merged: the adapter folded into the base, a plain Hugging Face folder.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Merge a quantized variant though it gets worse or cannot be measured.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a saved variant in another format and prove it in a fresh process."""
    from textlift.progress import Progress
    from textlift.workflow.verbs import export_variant

    proof = export_variant(saved, to, output, overwrite=overwrite, force=force, progress=Progress())
    if as_json:
        print_json({"output": str(output), "proof": proof})
        return
    print_line(str(output))
    for record in proof:
        typer.echo(
            f"loaded back in a fresh process ({record['loader']}): logits of {record['texts']} texts differ by at most "
            f"{record['largest_logit_difference']:.1g}"
        )


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, to edit.")] = None, as_json: Json = False
) -> None:
    """List the built-in recipes, or print one to edit."""
    from textlift.recipe import read_recipe, recipe_names, recipe_path

    if name is not None:
        recipe = read_recipe(name)
        if as_json:
            print_json(recipe.model_dump(mode="json"))
        else:
            print_line(recipe_path(name).read_text(encoding="utf-8").rstrip())
        return
    descriptions = {known: read_recipe(known).description for known in recipe_names()}
    if as_json:
        print_json(descriptions)
        return
    for known, description in descriptions.items():
        typer.echo(f"{known:<24} {description}")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Tell all of this one, with its options.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods of tuning and where they work, or tell all of one."""
    from textlift.workflow.method_table import method_records, method_text, methods_text

    records = method_records(name)
    if as_json:
        print_json(records if name is None else records[0])
    else:
        typer.echo(methods_text(records) if name is None else method_text(records[0]))


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    with exit_codes(), handled():
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)


def _data_values(**options: Any) -> dict[str, Any]:
    """Options of the data section by dotted key; a flag that was not given leaves the recipe's value."""
    return {f"data.{name}": None if value is False else value for name, value in options.items()}


def _paths(data: Sequence[str] | None) -> list[str]:
    """Files of --data: repeated, or in one argument with commas."""
    return [
        part
        for entry in data or ()
        for part in ([entry] if os.path.exists(entry) else entry.split(","))  # noqa: PTH110 - no error where it is long
        if part.strip()
    ]


def _require_one(overwrite: bool, resume: bool) -> None:
    if overwrite and resume:
        raise UsageError("--overwrite replaces a run and --resume continues it; pass one of them.")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _command() -> str:
    return shlex.join(["textlift", *sys.argv[1:]])
