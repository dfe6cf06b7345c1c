"""A data set read: files found, columns chosen, labels named, every problem of every file told at once."""

from collections.abc import Callable, Sequence

from textlift.data.beside import MOST_BYTES, Beside, count_beside
from textlift.data.columns import ColumnChoice
from textlift.data.dataset import Dataset, Rows
from textlift.data.files import changed, file_state, fingerprint, read_table
from textlift.data.labels import name_labels, without_unlabelled
from textlift.data.layout import SPLIT_WORDS
from textlift.data.problems import listed, located, quoted, raise_problems
from textlift.data.sources import Source, SplitFile, find_source
from textlift.data.table import Table
from textlift.data.text_checks import empty_findings
from textlift.errors import DataError, RecipeError
from textlift.recipe import DataSection

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def read_dataset(section: DataSection, *, progress: Progress | None = None) -> Dataset:
    """The splits that are there, with texts and labels as written.

    Args:
        section: Where the rows are and what is asked of them.
        progress: Told the bytes read and the bytes of all files.

    Raises:
        DataError: Files cannot be read or columns not be found; all problems of all files in one message.
        InputNotFoundError: A file, folder or data set is not there.
        UnavailableError: The Hub cannot be reached and nothing is cached.
        RecipeError: A value of the section cannot be used.
    """
    source = find_source(section)
    reader = _Reader(section, source, progress)
    for split, files in source.files.items():
        for file in files:
            reader.read(split, file)
    if reader.problems:
        empty = [finding.message for finding in empty_findings(reader.splits, section) if finding.severity == "error"]
        raise_problems([*reader.problems, *empty])
    choice = reader.choice
    reasons = [*source.reasons, *choice.reasons]
    splits = reader.splits
    if choice.split is not None:
        asked = section.split_column is not None
        splits = _by_split_column(splits["train"], reader.split_cells, choice.split, reasons=reasons, asked=asked)
    splits = without_unlabelled(splits, reasons)
    class_names = {**source.class_names, **reader.class_names}.get(choice.label, ())
    values, names = name_labels(splits, section.label_names, class_names, reasons=reasons)
    return Dataset(
        name=source.name,
        splits=splits,
        label_names=names,
        label_values=values,
        text_column=choice.text,
        label_column=choice.label,
        reasons=tuple(reasons),
        fingerprints=reader.fingerprints,
        beside={column: counts for column, counts in reader.beside.items() if counts},
    )


class _Reader:
    """Reads file after file and keeps what came of them."""

    def __init__(self, section: DataSection, source: Source, progress: Progress | None) -> None:
        files = [file for files in source.files.values() for file in files]
        if section.split_column is not None and len(files) > 1:
            raise RecipeError("data.split_column needs one file with all rows; found several. Leave it out.")
        self.problems: list[str] = []
        self.splits: dict[str, Rows] = {}
        self.split_cells: list[str] = []
        self.fingerprints: dict[str, dict[str, str | int]] = {}
        self.class_names: dict[str, tuple[str, ...]] = {}
        self.beside: Beside = {}
        self.choice = ColumnChoice(section, one_file=len(files) == 1)
        self._section = section
        self._commit = source.commit
        self._progress = progress
        self._bytes_done = 0
        self._bytes_total = sum(_size(file) for file in files)

    def read(self, split: str, file: SplitFile) -> None:
        """Read a file into its split, or note what is wrong with it."""
        by_content = False

        def want(header: Sequence[str]) -> Sequence[str] | None:
            nonlocal by_content
            try:
                wanted = self.choice.want(header)
            except DataError as error:
                self.problems.append(located(file.name, str(error), ""))
                return ()
            by_content = wanted is None
            return wanted

        table = read_table(
            file.path,
            name=file.name,
            want=want,
            delimiter=self._section.delimiter,
            encoding=self._section.encoding,
            advance=self._advance,
        )
        self.problems += map(str, table.problems)
        self._bytes_done += _size(file)
        self._advance(0)
        if by_content and table.row_numbers:
            try:
                self.choice.settle_by_content(table)
            except DataError as error:
                self.problems.append(located(file.name, str(error), ""))
        self._keep(split, file, table)

    def _advance(self, done: int) -> None:
        if self._progress is not None:
            self._progress(min(self._bytes_done + done, self._bytes_total), self._bytes_total)

    def _keep(self, split: str, file: SplitFile, table: Table) -> None:
        texts, labels = table.columns.get(self.choice.text), table.columns.get(self.choice.label)
        if texts is None or labels is None:
            return
        self.class_names = {**table.class_names, **self.class_names}
        if self.choice.split is not None:
            self.split_cells = table.columns.get(self.choice.split, [])
        shared: dict[str, str] = {}  # one string for each class, not for each row
        rows = self.splits.setdefault(split, Rows([], [], [], []))
        rows.texts.extend(texts)
        rows.labels.extend(shared.setdefault(label, label) for label in labels)
        rows.row_numbers.extend(table.row_numbers)
        rows.sources.extend([file.name] * len(texts))
        used = {self.choice.text, self.choice.label, self.choice.split or self.choice.label}
        if not self.problems and set(table.names) - used and _size(file) <= MOST_BYTES:
            count_beside(file, self._section, used=used, labels=labels, into=self.beside)
        if not self.problems:
            commit = {"commit": self._commit} if self._commit else {}
            record = fingerprint(file.path)
            if file_state(file.path) != table.state:
                self.problems.append(str(changed(file.name)))
            self.fingerprints[file.name] = {**record, "rows": len(texts), **commit}


def _size(file: SplitFile) -> int:
    return (file_state(file.path) or (0, 0, 0))[2]


def _by_split_column(rows: Rows, cells: list[str], column: str, *, reasons: list[str], asked: bool) -> dict[str, Rows]:
    places: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    unknown: list[int] = []
    for place, cell in enumerate(cells):
        split = SPLIT_WORDS.get(cell.strip().casefold())
        (unknown if split is None else places[split]).append(place)
    if unknown and not asked:
        reasons.append(f"Column {quoted(column)} was left out: not all of its values are train, validation or test.")
        return {"train": rows}
    if unknown:
        found = listed(sorted({cells[place] for place in unknown}), 6)
        raise DataError(
            located(
                rows.sources[0],
                f"{quoted(column)} must say train, validation or test; found {found}.",
                "Correct the rows, or leave --split-column out.",
                rows=[rows.row_numbers[place] for place in unknown[:20]],
                count=len(unknown),
            )
        )
    reasons.append(f"The splits are told by column {quoted(column)}.")
    return {split: rows.take(taken) for split, taken in places.items() if taken}
