"""Parquet files, by pyarrow; numbers and booleans get their JSON spelling."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from textlift.data.problems import Problem, listed, quoted
from textlift.data.table import Advance, RowProblems, Table, Want

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet


def read_parquet(path: Path, *, name: str, want: Want, advance: Advance) -> Table:
    """The wanted columns of a Parquet file, with all that is wrong with it."""
    import pyarrow
    import pyarrow.parquet

    table = Table()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _read_batches(file, table, name=name, want=want, advance=advance, size=path.stat().st_size)
    except UnicodeError:
        table.problems.append(Problem(name, "texts must be UTF-8; found bytes that are not.", "Write the file again."))
    except (pyarrow.ArrowException, OSError) as error:
        said = quoted(str(error).splitlines()[0] if str(error) else type(error).__name__, 80)
        found = f"must be a whole Parquet file; it cannot be read: {said}."
        table.problems.append(Problem(name, found, "It is cut off or damaged: fetch or write it again."))
    return table


def _read_batches(
    file: "pyarrow.parquet.ParquetFile", table: Table, *, name: str, want: Want, advance: Advance, size: int
) -> None:
    schema, n_rows = file.schema_arrow, _row_count(file)
    table.names = tuple(schema.names)
    doubled = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if doubled:
        found = f"column names must differ; found {listed(doubled)} more than once."
        table.problems.append(Problem(name, found, "Rename one."))
        return
    table.class_names = _class_names(schema.metadata or {})
    wanted = want(table.names)
    columns = [c for c in schema.names if _is_plain(schema.field(c).type)] if wanted is None else list(wanted)
    for column in columns:
        if not _is_plain(schema.field(column).type):
            found = (
                f"{quoted(column)} is {quoted(str(schema.field(column).type))[1:-1]}; it must be a text or a number."
            )
            table.problems.append(Problem(name, found, "Write one value in each row."))
    if not n_rows:
        table.problems.append(Problem(name, "must hold labelled rows; found no rows.", "Add rows."))
    if table.problems:
        return
    table.columns = {column: [] for column in columns}
    problems = RowProblems(name, table.problems)
    done = 0
    for batch in file.iter_batches(batch_size=65_536, columns=columns):
        for column in columns:
            table.columns[column] += _strings(batch.column(column), column, done=done, problems=problems)
        done += batch.num_rows
        advance(min(size, size * done // n_rows))
    if done != n_rows:
        found = f"must be a whole Parquet file; its footer counts {n_rows:,} rows, it holds {done:,}."
        table.problems.append(Problem(name, found, "It is damaged: fetch or write it again."))
    table.row_numbers = list(range(1, done + 1))


def _row_count(file: "pyarrow.parquet.ParquetFile") -> int:
    return int(file.metadata.num_rows)


def _is_plain(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    is_view = getattr(types, "is_string_view", lambda _: False)
    return any(
        check(kind)
        for check in (
            types.is_string,
            types.is_large_string,
            is_view,
            types.is_integer,
            types.is_floating,
            types.is_boolean,
            types.is_null,
        )
    )


def _strings(array: "pyarrow.Array", column: str, *, done: int, problems: RowProblems) -> list[str]:
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    values = array.to_pylist()
    if types.is_boolean(array.type):
        return ["" if value is None else "true" if value else "false" for value in values]
    if types.is_integer(array.type):
        return ["" if value is None else str(value) for value in values]
    if types.is_floating(array.type):
        for row, value in enumerate(values, start=done + 1):
            if value is not None and value - value != 0:
                found = f"{quoted(column)} is {json.dumps(float(value))}, which is no label or text."
                problems.add(f"constant {column}", row, found=found, advice="Write a number, or null.")
        return ["" if value is None else json.dumps(float(value)) for value in values]
    return ["" if value is None else value for value in values] if array.null_count else values


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of ClassLabel columns that the datasets library writes into a file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: tuple(str(name) for name in feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # not a note of that library
        return {}
