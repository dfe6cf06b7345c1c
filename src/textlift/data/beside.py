"""The columns beside text and label, as counts of their values by label: read where files are small, then forgotten."""

from collections import Counter

from textlift.data.files import read_table
from textlift.data.sources import SplitFile
from textlift.recipe import DataSection

MOST_BYTES = 100_000_000  # of a file that is read a second time for its other columns
_MOST_VALUES = 1_000  # of a column, by which a label could be told
_MOST_COLUMNS = 20

Beside = dict[str, Counter[tuple[str, str]]]  # column -> (value, label) -> rows


def count_beside(file: SplitFile, section: DataSection, *, used: set[str], labels: list[str], into: Beside) -> None:
    """Add the values of the other columns of a file; a column of too many values is dropped."""
    table = read_table(
        file.path,
        name=file.name,
        want=lambda _: None,
        delimiter=section.delimiter,
        encoding=section.encoding,
        advance=lambda _: None,
    )
    others = [name for name in table.columns if name not in used][:_MOST_COLUMNS]
    for name in others:
        cells = table.columns[name]
        if len(cells) != len(labels):
            continue
        counts = into.setdefault(name, Counter())
        if len(set(cells)) <= _MOST_VALUES:
            counts.update(zip(cells, labels, strict=True))
        else:
            into[name] = Counter()
