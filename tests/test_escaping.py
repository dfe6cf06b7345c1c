"""What others wrote, in CSV that people open in a spreadsheet and in JSON that programs read."""

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hostile import PAYLOADS, label
from samples import dataset, rows

from textlift.data import write_conflicts
from textlift.escaping import csv_cell, json_text, visible

each = pytest.mark.parametrize("payload", PAYLOADS, ids=label)
FORMULA = re.compile(r"""[\s"]*[=+\-@\uff0b\uff0d\uff1d\uff20]""")


def cells(written: str, delimiter: str) -> list[str]:
    """Cells of a table as a program set to a delimiter sees them."""
    return [cell for row in csv.reader(io.StringIO(written, newline=""), delimiter=delimiter) for cell in row]


@each
def test_conflicts_hold_no_formula_for_any_delimiter(payload: str, tmp_path: Path) -> None:
    data = dataset(train=[(payload, "a"), (payload, f"{payload}b")])
    data.splits["train"] = rows([(f"{payload} x", "a"), (f"{payload} x", f"{payload}b")], source=payload)
    path = tmp_path / "conflicts.csv"
    assert write_conflicts(path, data) == 2
    written = path.read_bytes().decode()
    assert [len(row) for row in csv.reader(io.StringIO(written, newline=""))] == [5, 5, 5]
    found = [cell for delimiter in ",;\t" for cell in cells(written, delimiter) if FORMULA.match(cell)]
    assert found == []
    assert {one for one in written if unicodedata.category(one) in {"Cc", "Cf", "Cs"}} <= set("\t\r\n\u200c\u200d")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with a comma - and so on", "plain, with a comma - and so on"),
        ("a smile ;-) is none", "a smile ;-) is none"),
        ("=)", "=)"),
        ("3;4", "3;4"),
        ("-1", "'-1"),
        ("a;-1", "a;'-1"),
        ("a\n\t=b", "a\n\t'=b"),
        ("\tx", "'\tx"),
        ("\x1b[31m", "\\u001b[31m"),
        ("", ""),
    ],
)
def test_only_what_could_be_a_formula_gets_an_apostrophe(text: str, shown: str) -> None:
    assert csv_cell(text) == shown


@each
def test_json_comes_back_equal_and_on_one_printable_line(payload: str) -> None:
    written = json_text({payload: [payload, 1.5, None]})
    assert json.loads(written) == {payload: [payload, 1.5, None]}
    assert len(written.splitlines()) == 1
    written.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]", written)


def test_json_keeps_letters_of_all_scripts_readable_and_refuses_what_is_no_number() -> None:
    assert json_text({"è": "日本 😀"}) == '{"è": "日本 😀"}'
    with pytest.raises(ValueError, match="Out of range"):
        json_text(float("nan"))


@each
def test_what_was_made_visible_stays_as_it_is(payload: str) -> None:
    once = visible(payload)
    assert visible(once) == once
