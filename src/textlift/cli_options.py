"""Options that several commands share, each with its type and help."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
TextColumn = Annotated[str | None, typer.Option("--text", help="Column of the texts; found out when not given.")]
LabelColumn = Annotated[str | None, typer.Option("--label", help="Column of the labels; found out when not given.")]
Delimiter = Annotated[str | None, typer.Option(help="Field delimiter of a CSV file.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of CSV and JSON files; utf-8 when not given.")]
Model = Annotated[str | None, typer.Option(help="Base model: Hub name, folder, or 'embedded' (all-MiniLM-L6-v2).")]
Fast = Annotated[bool, typer.Option("--fast", help="Train on bf16 or int8 products where the processor has them.")]
Limit = Annotated[int | None, typer.Option(help="At most this many rows of each split, stratified and seeded.")]
CheckModel = Annotated[
    str | None,
    typer.Option("--model", help="Base model: counts its tokens, and looks for label errors by its features."),
]
Fix = Annotated[Path | None, typer.Option(help="Folder for a cleaned copy with a log of every change.")]
Relabel = Annotated[
    Path | None, typer.Option(help="Listing whose filled new_label goes into the copy of --fix.", metavar="CSV")
]
Texts = Annotated[list[str], typer.Argument(help="Texts to explain.", metavar='"TEXT" ...')]
Seed = Annotated[int | None, typer.Option(help="Every draw comes from this number; 0 when not given.")]
Seeds = Annotated[
    int | None,
    typer.Option(help="Train each variant from so many seeds, for its mean and spread; the first is saved."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change one value: method.rank=16. Repeatable.")]
SplitColumn = Annotated[str | None, typer.Option(help="Column that says train, validation or test.")]
Validation = Annotated[str | None, typer.Option(help="File of the validation rows.")]
Test = Annotated[str | None, typer.Option(help="File of the test rows.")]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="Leave out rows without text, counted.")]
AllowLeak = Annotated[bool, typer.Option("--allow-leak", help="Go on where test rows are also in train.")]
AllowConflicts = Annotated[bool, typer.Option("--allow-conflicts", help="Go on where many texts carry two labels.")]
MinPerClass = Annotated[int | None, typer.Option(help="Rows that every class must have; 2 when not given.")]
Target = Annotated[str, typer.Argument(help="Recipe name or file, data file, folder, or Hub data set name[:config].")]
Data = Annotated[
    list[str] | None, typer.Option("--data", help="Local folder, or files (repeat), in place of the recipe's data.")
]
Saved = Annotated[str, typer.Argument(help="RUN, RUN/variant, or an exported folder.", metavar="RUN[/variant]")]
Raw = Annotated[bool, typer.Option("--raw", help="Without the stored decision: softmax and its most probable class.")]
