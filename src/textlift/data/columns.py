"""Which column holds the texts and which the labels: by stated rules, never by a guess between equals."""

from collections.abc import Mapping, Sequence
from itertools import islice

from textlift.data.problems import listed, quoted
from textlift.data.table import Table
from textlift.errors import DataError, nearest
from textlift.recipe import DataSection

# The first name wins where it stands; the others are equals.
TEXT_NAMES = (
    "text",
    *("sentence", "sentences", "texts", "tweet", "tweets", "review", "reviews", "content", "comment", "comments"),
    *("message", "messages", "body", "utterance", "document", "documents", "post", "posts", "question", "query"),
    *("headline", "email", "abstract", "review_text", "tweet_text", "comment_text", "full_text", "clean_text"),
)
LABEL_NAMES = (
    "label",
    *("labels", "class", "classes", "category", "target", "sentiment", "emotion", "topic", "intent", "tag"),
    *("rating", "stars", "polarity", "stance", "genre", "airline_sentiment", "class_label", "class_name"),
)
_SAMPLE = 5000  # rows that the rules by content look at, spread over the file
_MOST_CLASSES = 200


class ColumnChoice:
    """The columns of a data set: settled by the first file, then asked of every other."""

    def __init__(self, section: DataSection, *, one_file: bool) -> None:
        self.text = self.label = ""
        self.split: str | None = None
        self.reasons: list[str] = []
        self._section = section
        self._one_file = one_file

    def want(self, header: Sequence[str]) -> Sequence[str] | None:
        """The columns to keep of a file with this header; None where names do not say and content must.

        Raises:
            DataError: Columns are missing, or several are equals.
        """
        if self.text and self.label:
            missing = [name for name in (self.text, self.label) if name not in header]
            if missing:
                raise DataError(f"the header must have {listed(missing)}, as the first file; found {listed(header)}.")
            return [self.text, self.label]
        if len(header) < 2:
            found = listed(header) or "none"
            raise DataError(f"a text and a label column must be there; found only {found}. Add one, or --delimiter.")
        self._settle_split(header)
        text, label = self._by_name(header)
        self.reasons += [found[1] for found in (text, label) if found]
        self.text, self.label = text[0] if text else "", label[0] if label else ""
        if not (text and label):
            return None
        self._tell_left_out(header)
        return [self.text, self.label, *([self.split] if self.split else [])]

    def settle_by_content(self, table: Table) -> None:
        """Choose what names did not say from the cells of the first file.

        Raises:
            DataError: Nothing fits, several columns are equals, or the header looks like a row.
        """
        nested = [name for name in (self.text, self.label) if name and name not in table.columns]
        if nested:
            raise DataError(f"{listed(nested)} is struct, list or binary; it must be a text or a number.")
        left = {name: cells for name, cells in table.columns.items() if name not in {self.split, self.label}}
        if not self.text:
            self.text, reason = text_by_content(left)
            self.reasons.append(reason)
        if not self.label:
            self.label, reason = label_by_content({name: cells for name, cells in left.items() if name != self.text})
            self.reasons.append(reason)
        if self.label in set(table.columns[self.label]):
            raise DataError(
                f"the first row must name the columns; found {quoted(self.text)}, {quoted(self.label)}, which look "
                "like a text and its label. Add a header such as text,label."
            )
        self._tell_left_out(table.names)

    def _by_name(self, header: Sequence[str]) -> list[tuple[str, str] | None]:
        found, complaints = [], []
        text, label = self._section.text, self._section.label
        for kind, given, other in (("text", text, label), ("label", label, text)):
            names = header if given is not None else [name for name in header if name not in {other, self.split}]
            try:
                found.append(by_name(kind, names, given))
            except DataError as error:
                complaints.append(str(error))
        if text is not None and text == label:
            complaints.append(f"text and label must be two columns; found {quoted(text)} for both.")
        if complaints:
            raise DataError(" ".join(complaints))
        return found

    def _settle_split(self, header: Sequence[str]) -> None:
        given = self._section.split_column
        if given is not None:
            if given not in header:
                raise DataError(
                    f"split column {quoted(given)} must be in the header; found {listed(header)}."
                    f"{nearest(given, header)}"
                )
            self.split = given
        elif self._one_file and "split" in header and "split" not in (self._section.text, self._section.label):
            self.split = "split"

    def _tell_left_out(self, names: Sequence[str]) -> None:
        left_out = [name for name in names if name not in {self.text, self.label, self.split}]
        if left_out:
            self.reasons.append(f"Columns left out: {listed(left_out)}.")


def by_name(kind: str, names: Sequence[str], given: str | None) -> tuple[str, str] | None:
    """The column of a kind, "text" or "label", and the reason; None where names do not say.

    Raises:
        DataError: The given column is not there, or several known names stand side by side.
    """
    if given is not None:
        if given not in names:
            raise DataError(
                f"column {quoted(given)} must be in the header; found {listed(names)}.{nearest(given, names)} "
                f"Pass --{kind} COLUMN."
            )
        return given, f"The {kind}s are in column {quoted(given)}, as asked for."
    known = TEXT_NAMES if kind == "text" else LABEL_NAMES
    found = [name for name in names if name.casefold() in known]
    first = [name for name in found if name.casefold() == known[0]]
    if len(found) > 1 and len(first) != 1:
        raise DataError(f"the {kind} column must be plain; found {listed(found)}. Choose with --{kind} COLUMN.")
    if not found:
        return None
    column = (first or found)[0]
    return column, f"The {kind}s are in column {quoted(column)}, a name known for {kind}s."


def text_by_content(columns: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The column of free text and the reason: the only one, or one at least twice as long as the next.

    Free text has words (or at least 20 characters), mostly letters, and hardly repeats.

    Raises:
        DataError: None looks like free text, or two look alike.
    """
    lengths = {name: _free_text_length(_sample(cells)) for name, cells in columns.items()}
    ranked = sorted((name for name in lengths if lengths[name]), key=lambda name: -lengths[name])
    if not ranked:
        raise DataError(f"no column looks like texts; found {listed(columns)}. Choose with --text COLUMN.")
    if len(ranked) > 1 and lengths[ranked[0]] < 2 * lengths[ranked[1]]:
        raise DataError(f"the text column must be plain; found {listed(ranked)}. Choose with --text COLUMN.")
    why = "the only one of free text" if len(ranked) == 1 else "by far the longest of free text"
    return ranked[0], f"The texts are in column {quoted(ranked[0])}, {why}."


def label_by_content(columns: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The column of labels and the reason: the only one with few distinct values (2 to 200, each twice on average).

    Raises:
        DataError: None or several look like labels.
    """
    few = {}
    for name, cells in columns.items():
        n_values = len(set(cells))
        if 2 <= n_values <= _MOST_CLASSES and 2 * n_values <= len(cells):
            few[name] = n_values
    if not few:
        names = listed(columns) if columns else "no other column"
        raise DataError(f"no column looks like labels; found {names}. Choose with --label COLUMN.")
    if len(few) > 1:
        raise DataError(f"the label column must be plain; found {listed(few)}. Choose with --label COLUMN.")
    (name, n_values), *_ = few.items()
    return name, f"The labels are in column {quoted(name)}, the only one with few distinct values ({n_values})."


def _sample(cells: Sequence[str]) -> list[str]:
    step = max(1, len(cells) // _SAMPLE)
    return [cell for cell in islice(cells, 0, None, step) if cell.strip()]


def _free_text_length(cells: Sequence[str]) -> float:
    if not cells:
        return 0.0
    length = sum(map(len, cells)) / len(cells)
    spaced = sum(len(cell.split()) > 1 for cell in cells) / len(cells)
    letters = sum(character.isalpha() for cell in cells[:500] for character in cell[:200])
    characters = sum(not character.isspace() for cell in cells[:500] for character in cell[:200])
    links = sum(cell.startswith(("http://", "https://")) and " " not in cell for cell in cells)
    is_text = (spaced >= 0.5 or length >= 20) and letters >= 0.5 * characters and links < 0.5 * len(cells)
    return length if is_text and 2 * len(set(cells)) > len(cells) else 0.0
