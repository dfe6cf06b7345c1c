"""The data part of ../shared/design/bad-inputs.md (1 to 30): what is refused, how, and what is kept."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textlift.data import Dataset, Finding, find_problems, raise_errors, read_dataset
from textlift.errors import DataError, InputNotFoundError, TextliftError
from textlift.recipe import DataSection

GOOD = "text,label\n" + "".join(f"text number {i} of the file,{'ab'[i % 2]}\n" for i in range(40))


def parquet(columns: Mapping[str, object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), sink)
    return sink.getvalue()


def rows(*lines: str) -> str:
    return GOOD + "".join(f"{line}\n" for line in lines)


def check(path: Path, **options: object) -> tuple[Dataset, list[Finding]]:
    section = DataSection(source=str(path), **options)
    dataset = read_dataset(section)
    findings = find_problems(dataset, section)
    raise_errors(findings)
    return dataset, findings


BROKEN = parquet({"text": ["a b c"] * 1000, "label": ["x", "y"] * 500})
REFUSED = [
    # name of the case, file, content, what the message must say
    ("1 empty file", "a.csv", "", ["a.csv: ", "0 bytes"]),
    ("1 empty jsonl", "a.jsonl", "", ["0 bytes"]),
    ("1 empty parquet", "a.parquet", "", ["0 bytes"]),
    ("2 header only", "a.csv", "text,label\n", ["no rows"]),
    ("2 blank lines only", "a.csv", "\n\n", ["no rows"]),
    ("2 parquet without rows", "a.parquet", parquet({"text": pa.array([], pa.string()), "label": [] }), ["no rows"]),
    ("2 empty JSON array", "a.json", "[]", ["no rows"]),
    ("4 latin-1", "a.csv", "text,label\nplain,1\ncaf\xe9,0\n".encode("latin-1"),
     ["a.csv:2: ", "must be UTF-8", "byte 0xE9 at offset 22", "latin-1"]),
    ("4 cp1252", "a.csv", "text,label\n\u201ccaf\u00e9\u201d,1\n".encode("cp1252"),
     ["a.csv:1: ", "0x93 at offset 11", "cp1252"]),
    ("4 utf-16", "a.csv", GOOD.encode("utf-16"), ["must be UTF-8", "offset 0", "utf-16"]),
    ("4 latin-1 in JSON lines", "a.jsonl", b'{"text": "a", "label": 1}\n{"text": "\xe9", "label": 0}\n',
     ["a.jsonl:2: ", "0xE9 at offset 36"]),
    ("6 unclosed quote", "a.csv", 'text,label\nfine,1\n"never closed,0\nmore,1\n',
     ["a.csv:2: ", "opened at line 3 is never closed"]),
    ("6 unclosed quote after a multi-line field", "a.csv", 'text,label\n"two\nlines","open\nmore\n',
     ["a.csv:1: ", "opened at line 3"]),
    ("6 text after a closing quote", "a.csv", 'text,label\n"a" b,1\n',
     ["a.csv:1: ", "follows the closing quote", "line 2"]),
    ("7 extra column", "a.csv", "text,label\nhello, there,1\nfine,0\nx,y,z,0\n",
     ["a.csv:1: row 1 has 3 fields, header 2.", "2 rows (1, 3)", "double quotes"]),
    ("7 missing field", "a.csv", "text,label\nfine,0\nalone\n", ["a.csv:2: row 2 has 1 field, header 2."]),
    ("8 semicolon", "a.csv", "text;label\na, b;1\nc, d, e;0\n", ["found ';'", "--delimiter ';'"]),
    ("8 tab in a csv", "a.csv", "text\tlabel\na, b\t1\nc, d, e\t0\n", ["found a tab", "--delimiter $'\\t'"]),
    ("8 bar", "a.csv", "text|label\na|1\nb|0\n", ["found '|'", "--delimiter '|'"]),
    ("8 comma in a tsv", "a.tsv", "text,label\na,1\nb,0\n", ["found ','", "--delimiter ','"]),
    ("11 JSONL broken line", "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": }\n',
     ["a.jsonl:2: ", "line 2, column 24"]),
    ("11 JSONL broken lines are counted", "a.jsonl", '{"text": "a", "label": 1}\n{\n\n]\n',
     ["a.jsonl:2", "2 rows (2, 3)"]),
    ("11 JSONL row is a list", "a.jsonl", '{"text": "a", "label": 1}\n["b", 1]\n',
     ["a.jsonl:2", "object", "found a list"]),
    ("11 JSON key twice", "a.jsonl", '{"text": "a", "label": 1, "label": 2}\n', ["a.jsonl:1", "'label' twice"]),
    ("11 JSON nested too deeply", "a.jsonl", '{"text": ' + "[" * 100_000 + "\n", ["a.jsonl:1"]),
    ("12 JSONL label NaN", "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": NaN}\n',
     ["a.jsonl:2: 'label' is NaN"]),
    ("12 JSONL label Infinity", "a.jsonl", '{"text": "a", "label": -Infinity}\n', ["a.jsonl:1", "-Infinity"]),
    ("12 Parquet label NaN", "a.parquet", parquet({"text": ["a", "b"], "label": [1.0, float("nan")]}),
     ["a.parquet:2", "'label' is NaN"]),
    ("12 JSON half a character", "a.jsonl", '{"text": "a \\ud83d", "label": 1}\n', ["a.jsonl:1", "lone surrogate"]),
    ("14 nested parquet text", "a.parquet", parquet({"text": [{"en": "a"}], "label": [1]}), ["'text' is struct<en"]),
    ("14 nested parquet label", "a.parquet", parquet({"text": ["a"], "label": [[1, 2]]}), ["'label' is list<"]),
    ("14 nested JSON text", "a.jsonl", '{"text": {"en": "a"}, "label": 1}\n', ["a.jsonl:1", "'text' is struct"]),
    ("14 list as JSON label", "a.jsonl", '{"text": "a", "label": [1]}\n', ["a.jsonl:1", "'label' is list"]),
    ("14 nested text beside labels of unknown name", "a.jsonl",
     "".join(f'{{"text": {{"en": "a"}}, "kind": {i % 2}}}\n' for i in range(8)), ["'text' is struct, list or binary"]),
    ("14 nested label beside texts of unknown name", "a.parquet",
     parquet({"words": ["a fine long day"], "label": [[1]]}), ["'label' is struct, list or binary"]),
    ("15 truncated parquet", "a.parquet", BROKEN[:-50], ["a.parquet: ", "whole Parquet file", "damaged"]),
    ("15 parquet without magic", "a.parquet", "text,label\n", ["must be a Parquet file"]),
    ("15 parquet named csv", "a.csv", BROKEN, ["is a Parquet file", ".parquet"]),
    ("15 gzip named csv", "a.csv", b"\x1f\x8b\x08\x00 rest", ["gzip", "gunzip"]),
    ("15 Excel named csv", "a.csv", b"PK\x03\x04 rest", ["Excel", "CSV"]),
    ("19 label column missing", "a.csv", "text,sort,size\na b,x,1\nc d,y,2\ne f,z,3\n",
     ["--label", "'sort'", "'size'"]),
    ("20 one class", "a.csv", "text,label\na,x\nb,x\nc,x\n", ["at least two classes", "all 3 rows", "'x'"]),
    ("21 class with one example", "a.csv", rows("alone,c"), ["at least 2 rows", "'c' has 1", "--min-per-class 1"]),
    ("22 empty label", "a.csv", rows("one,", "two, ", "three,a", "four,\u200b"),
     ["a.csv:41: label is empty. 3 rows (41, 42, 44)."]),
    ("22 null label in parquet", "a.parquet", parquet({"text": list("abcde"), "label": ["x", "y", "x", "y", None]}),
     ["a.parquet:5: label is empty."]),
    ("23 empty text", "a.csv", rows(",a", " \u00a0,a"), ["a.csv:41: text is empty. 2 rows (41, 42).", "--drop-empty"]),
    ("28 zero-width text", "a.csv", rows("\u200b\u200d\ufeff,a"), ["a.csv:41: text is empty."]),
    ("28 control characters alone", "a.csv", rows("\x07\x1b,a"), ["a.csv:41: text is empty."]),
    ("25 conflicting labels over 5 %", "a.csv", rows("Text  NUMBER 1 of the file,a", "x,a", "x,b", "y,a", "y,b"),
     ["two labels", "3 of 42 texts", "--allow-conflicts"]),
    ("NUL byte", "a.csv", "text,label\nfine,1\nnul\0here,0\n", ["a.csv:2: a NUL byte"]),
    ("doubled column", "a.csv", "text,label,text\na,1,b\n", ["must differ", "'text'"]),
    ("no header", "a.csv", "a fine day out,pos\na bad day in,neg\nwe like it all,pos\nwe hate it,neg\nso good,pos\n",
     ["first row must name the columns"]),
    ("one column", "a.csv", "text\nhello\nworld\n", ["text and a label column", "'text'"]),
    ("unknown ending", "a.dat", GOOD, ["must be one of .csv", "'.dat'"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_bad_input_is_refused_with_code_65_in_three_lines(
    tmp_path: Path, name: str, content: str | bytes, said: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        check(path)
    message = str(caught.value)
    assert caught.value.exit_code == 65
    assert [words for words in said if words not in message] == [], message
    assert message.count("\n") <= 2
    assert len(message) < 800


KEPT = [
    ("3 UTF-8 BOM", "a.csv", b"\xef\xbb\xbf" + GOOD.encode(), "text number 0 of the file"),
    ("3 BOM in JSON lines", "a.jsonl", b'\xef\xbb\xbf{"text": "x", "label": 1}\n{"text": "y", "label": 2}\n', "x"),
    ("5 CRLF inside quotes", "a.csv", b'text,label\r\n"two\r\nlines",a\r\nb,b\r\n', "two\r\nlines"),
    ("9 NA is a word", "a.csv", "text,label\nNA,NA\nnull,None\n", "NA"),
    ("13 JSON array named .jsonl", "a.jsonl", '[{"text": "x", "label": 1},\n {"text": "y", "label": 2}]', "x"),
    ("28 emoji, right-to-left, joiners", "a.csv", "text,label\n\u202eabc \U0001f469\u200d\U0001f680,1\nb,0\n",
     "\u202eabc \U0001f469\u200d\U0001f680"),
    ("29 script", "a.csv", 'text,label\n<script>alert("x")</script>,1\nb,0\n', '<script>alert("x")</script>'),
    ("wide field", "a.csv", f"text,label\n{'w' * 200_000},1\nb,0\n", "w" * 200_000),
    ("line separators of Unicode", "a.csv", "text,label\na\u2028b\x85c,1\nb,0\n", "a\u2028b\x85c"),
    ("blank lines between records", "a.csv", "text,label\n\nx,1\n\n\ny,2\n\n", "x"),
    ("dictionary-encoded Parquet", "a.parquet",
     parquet({"text": pa.array(["x", "y"]).dictionary_encode(), "label": [1, 2]}), "x"),
    ("large strings", "a.parquet", parquet({"text": pa.array(["x", "y"], pa.large_string()), "label": [1, 2]}),
     "x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "first"), [case[1:] for case in KEPT], ids=[case[0] for case in KEPT])
def test_odd_but_sound_input_is_kept_as_written(tmp_path: Path, name: str, content: str | bytes, first: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset, _ = check(path, min_per_class=1)
    assert dataset.splits["train"].texts[0] == first


def test_words_for_missing_values_are_labels_like_others(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nNA,NA\nnull,null\nN/A,None\nnan,nan\n", encoding="utf-8")
    assert check(path, min_per_class=1)[0].label_values == ("NA", "None", "nan", "null")


@pytest.mark.parametrize("labels", [("1", "01"), ("True", "1"), ("Pos", "pos"), ("é", "e\u0301"), ("a b", "a  b")])
def test_labels_that_look_alike_are_told_with_their_rows(tmp_path: Path, labels: tuple[str, str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(*(f"row {i} for it,{label}" for i, label in enumerate(labels * 2))), encoding="utf-8")
    found = [finding for finding in check(path)[1] if finding.code == "lookalike_labels"]
    assert [finding.severity for finding in found] == ["warning"]
    assert "(2 rows)" in found[0].message


def test_numbers_and_truth_values_among_labels_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,0\nb,0\nc,True\nd,True\n", encoding="utf-8")
    assert "mix numbers and truth values" in check(path)[1][0].message


def test_a_folder_without_data_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="must hold data files"):
        read_dataset(DataSection(source=str(tmp_path)))


def test_a_folder_where_a_file_is_asked_for_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="it is a folder"):
        read_dataset(DataSection(files={"train": str(tmp_path)}))


def test_a_missing_file_is_no_input_and_the_nearest_name_is_offered(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(GOOD, encoding="utf-8")
    with pytest.raises(InputNotFoundError, match=r"there is none[^?]*Did you mean '[^']*reviews\.csv'") as caught:
        read_dataset(DataSection(source=str(tmp_path / "review.csv")))
    assert caught.value.exit_code == 66


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read every file")
def test_an_unreadable_file_is_no_input_and_its_owner_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(GOOD, encoding="utf-8")
    path.chmod(0)
    with pytest.raises(InputNotFoundError, match="permission is denied"):
        read_dataset(DataSection(source=str(path)))


def test_a_missing_column_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(DataError, match=r"column 'labels' must be in the header; found 'text', 'label'.*mean 'label'"):
        read_dataset(DataSection(source=str(path), label="labels"))


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,b,c\n,x\nfine,\n", encoding="utf-8")
    (tmp_path / "validation.csv").write_text("text,label\nx;1\n\0,2\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_dataset(DataSection(source=str(tmp_path)))
    message = str(caught.value)
    for words in (
        "train.csv:1: row 1 has 3",
        "train.csv:2: text is",
        "train.csv:3: label",
        "validation.csv:1",
        "0 bytes",
    ):
        assert words in message
    assert message.count("\n") == 2


def test_control_characters_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("te\x1b[31mxt,lab\u202eel\nx,1\ny,2\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_dataset(DataSection(source=str(path), text="text"))
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


def test_an_unknown_encoding_is_a_fault_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(TextliftError, match="Did you mean 'utf-8'") as caught:
        read_dataset(DataSection(source=str(path), encoding="utf_9"))
    assert caught.value.exit_code == 78


def test_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\ncafé,1\nthé,2\n".encode("utf-16"))
    dataset = read_dataset(DataSection(source=str(path), encoding="utf-16"))
    assert dataset.splits["train"].texts == ["café", "thé"]
