"""The catalogue of bad input, 1 to 40, as a user meets it: the command ends with the code of its kind, says in at most
three lines what must hold, what was found and what to do, and leaves the output untouched.

Readers and checks are tried more closely in tests/data; here it is the whole command.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli_calls import Command, rows

GOOD = rows(60)
Case = tuple[str, dict[str, str | bytes], list[str], int, list[str]]


def extra(*lines: str) -> str:
    return GOOD + "".join(f"{line}\n" for line in lines)


def parquet(tmp_path: Path, **columns: list[object]) -> bytes:
    path = tmp_path / "made.parquet"
    pq.write_table(pa.table(columns), path)
    return path.read_bytes()


def leaking() -> dict[str, str | bytes]:
    return {"train.csv": GOOD, "test.csv": rows(12) + "a new one,sea\n"}


CASES: list[Case] = [
    # name, files, arguments, exit code, what the message says
    ("1 empty file", {"a.csv": ""}, ["a.csv"], 65, ["a.csv", "0 bytes"]),
    ("2 header only", {"a.csv": "text,label\n"}, ["a.csv"], 65, ["no rows"]),
    ("4 latin-1", {"a.csv": GOOD.encode() + b"caf\xe9,sea\n"}, ["a.csv"], 65, ["a.csv:61", "offset", "latin-1"]),
    ("6 unclosed quote", {"a.csv": extra('"open,sea', "more,sky")}, ["a.csv"], 65, ["a.csv:61", "line 62"]),
    ("7 extra column", {"a.csv": extra("one, two,sea")}, ["a.csv"], 65, ["row 61 has 3 fields, header 2"]),
    ("8 semicolon", {"a.csv": GOOD.replace(",", ";")}, ["a.csv"], 65, ["';'", "--delimiter"]),
    ("11 broken JSON line", {"a.jsonl": '{"text": "a", "label": 1}\n{"text": }\n'}, ["a.jsonl"], 65, ["line 2"]),
    ("12 NaN label", {"a.jsonl": '{"text": "a", "label": NaN}\n'}, ["a.jsonl"], 65, ["NaN"]),
    ("15 truncated Parquet", {"a.parquet": b"PAR1 cut off"}, ["a.parquet"], 65, ["Parquet"]),
    ("15 JSON lines named csv", {"a.csv": '{"text": "a", "label": 1}\n' * 9}, ["a.csv"], 65, ["JSON lines", ".jsonl"]),
    ("15 web page named csv", {"a.csv": "<!DOCTYPE html>\n<html>gone</html>\n"}, ["a.csv"], 65, ["a web page"]),
    ("15 CSV named jsonl", {"a.jsonl": GOOD}, ["a.jsonl"], 65, ["is not JSON", ".csv"]),
    ("17 home of nobody", {}, ["~no-such-person/a.csv"], 66, ["must be a data file"]),
    ("16 folder without data", {"d/readme.txt": "x"}, ["d"], 66, ["d"]),
    ("17 missing file", {"reviews.csv": GOOD}, ["revews.csv"], 66, ["revews.csv", "'reviews.csv'"]),
    ("17 missing recipe", {}, ["my.yaml"], 66, ["my.yaml", "Built-in"]),
    ("17 misspelt recipe", {}, ["emotoin"], 66, ["'emotion'"]),
    ("19 label column missing", {"a.csv": GOOD}, ["a.csv", "--label", "labl"], 65, ["'labl'", "'label'"]),
    ("20 one class", {"a.csv": "text,label\na,x\nb,x\nc,x\n"}, ["a.csv"], 65, ["two classes"]),
    ("21 class with one row", {"a.csv": extra("alone,lava")}, ["a.csv"], 65, ["'lava'", "--min-per-class 1"]),
    ("22 empty label", {"a.csv": extra("no label,")}, ["a.csv"], 65, ["a.csv:61: label is empty"]),
    ("23 empty text", {"a.csv": extra(" ,sea")}, ["a.csv"], 65, ["a.csv:61: text is empty", "--drop-empty"]),
    (
        "25 conflicts over 5 %",
        {"a.csv": extra(*(f"twice {i},{name}" for i in range(9) for name in ("sea", "sky")))},
        ["a.csv"],
        65,
        ["two labels", "--allow-conflicts"],
    ),
    ("26 leak", leaking(), ["train.csv", "--test", "test.csv"], 65, ["test.csv", "12 of 13", "--allow-leak"]),
    ("39 unknown key", {}, ["demo", "--set", "training.lerning_rate=1e-4"], 78, ["lerning_rate", "'learning_rate'"]),
    ("39 unknown method key", {}, ["demo", "--set", "method.rnk=4"], 78, ["method.rnk", "'rank'"]),
    ("39 unknown method", {}, ["demo", "--methods", "lorra"], 78, ["'lorra'", "'lora'"]),
    ("39 unknown section in a file", {"r.yaml": "dta: {source: a.csv}\n"}, ["r.yaml"], 78, ["dta", "'data'"]),
    ("40 negative rate", {}, ["demo", "--set", "training.learning_rate=-1"], 78, ["greater than 0", "-1"]),
    ("40 no epochs", {}, ["demo", "--set", "training.epochs=0"], 78, ["training.epochs", "0"]),
    ("40 NaN", {}, ["demo", "--set", "training.learning_rate=.nan"], 78, ["training.learning_rate"]),
    ("40 wrong type", {}, ["demo", "--set", "training.epochs=many"], 78, ["training.epochs", "'many'"]),
    ("40 rank zero", {}, ["demo", "--set", "method.rank=0"], 78, ["method.rank"]),
    ("40 not YAML", {"r.yaml": "data: [unclosed\n"}, ["r.yaml"], 78, ["r.yaml", "line"]),
    ("40 no date", {"r.yaml": "description: 2020-99-99\n"}, ["r.yaml"], 78, ["r.yaml", "must be YAML"]),
    (
        "40 mistakes of two variants",
        {"r.yaml": "seed: -1\nvariants: {a: {training: {epochs: 0}}, b: {training: {epoch: 1}}}\n"},
        ["r.yaml"],
        78,
        ["3 values", "seed", "variants.a.training.epochs", "variants.b.training.epoch is not known", "'epochs'"],
    ),
    ("40 override without value", {}, ["demo", "--set", "method.rank"], 78, ["method.rank=16"]),
    ("unknown device", {"a.csv": GOOD}, ["a.csv", "--device", "tpu"], 78, ["'tpu'", "cuda"]),
    ("unknown option", {}, ["demo", "--metods", "lora"], 2, ["--metods"]),
    ("both flags", {"a.csv": GOOD}, ["a.csv", "--resume", "--overwrite"], 2, ["one of them"]),
]


@pytest.mark.parametrize(
    ("files", "arguments", "code", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_input_ends_with_its_code_and_leaves_the_output_untouched(
    files: dict[str, str | bytes],
    arguments: list[str],
    code: int,
    said: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = command("run", *arguments, "--output", "out")
    assert ended.code == code, ended.err
    assert [words for words in said if words not in ended.err] == [], ended.err
    assert "Traceback" not in ended.err
    lines = ended.err.splitlines()
    first = next((place for place, line in enumerate(lines) if line.startswith("error: ")), len(lines) - 3)
    assert len(lines[first:]) <= 3
    assert not Path("out").exists()
    assert ended.out == ""


def test_1_to_13_words_that_look_like_nothing_stay_words(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(GOOD + "NA,null\nnull,None\nN/A,null\nnone,None\n", encoding="utf-8")
    told = json.loads(command("check", path, "--json").out)
    assert {"null", "None"} <= set(told["labels"]["train"])


def test_10_labels_that_mix_spellings_are_listed(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"row {i} of it,{['0', '1', 'True'][i % 3]}\n" for i in range(60)))
    told = json.loads(command("check", path, "--json").out)
    assert any("True" in one["message"] and one["severity"] == "warning" for one in told["checks"])


def test_14_nested_text_is_named(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(tmp_path, text=[{"en": "a"}, {"en": "b"}], label=["x", "y"]))
    ended = command("check", path)
    assert ended.code == 65
    assert "struct" in ended.err


def test_21_a_class_with_one_row_goes_to_train_where_allowed(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(extra("alone,lava"))
    told = json.loads(command("check", path, "--min-per-class", "1", "--json").out)
    assert told["labels"]["train"]["lava"] == 1
    assert any("lava" in reason for reason in told["reasons"])


def test_23_empty_texts_are_dropped_where_asked_and_counted(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(extra(" ,sea", ",sky"))
    told = json.loads(command("check", path, "--drop-empty", "--json").out)
    assert sum(told["rows"].values()) == 60
    assert any("2" in reason and "left out" in reason for reason in told["reasons"])


def test_26_a_leak_that_is_allowed_is_a_warning(command: Command, tmp_path: Path) -> None:
    for name, content in leaking().items():
        (tmp_path / name).write_text(str(content))
    told = json.loads(
        command("check", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--allow-leak", "--json").out
    )
    assert [one["severity"] for one in told["checks"] if one["code"] == "leak_train_test"] == ["warning"]


def test_30_a_limit_that_nobody_chose_may_not_cut_most_rows(
    base_folder: Callable[[str], Path], command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{' '.join(['wave', 'bird'][i % 2] for _ in range(80))} {i},{'xy'[i % 2]}" for i in range(40)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    model = base_folder("bert")
    ended = command("run", path, "--model", model, "--output", tmp_path / "out")
    assert ended.code == 65
    assert "max_length" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_31_a_read_only_output_is_told_before_training(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "locked").mkdir(mode=0o500)
    assert command("run", tmp_path / "a.csv", "--output", tmp_path / "locked" / "out").code == 73


def test_31_an_output_below_a_file_is_told_before_training(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    ended = command("run", tmp_path / "a.csv", "--output", tmp_path / "a.csv" / "out")
    assert ended.code == 73
    assert "writable" in ended.err


def test_32_an_output_with_other_files_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    ended = command("run", tmp_path / "a.csv", "--output", tmp_path)
    assert ended.code == 73
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_33_a_full_disk_ends_with_74(command: Command, monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    import errno

    from textlift.errors import StorageError
    from textlift.runs import RunDirectory

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("textlift.storage.os.fsync", full)
    before = (finished / "results.json").read_bytes()
    with pytest.raises(StorageError, match="no space is left") as caught:
        RunDirectory(finished).write("results.json", {})
    assert caught.value.exit_code == 74
    assert (finished / "results.json").read_bytes() == before


def test_35_a_flipped_bit_in_an_adapter_is_found(finished: Path, command: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    weights = copy / "variants" / "lora" / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)
    ended = command("predict", copy, "-")
    assert ended.code == 65
    assert "sha256" in ended.err


def test_36_an_adapter_on_another_base_of_the_same_shape_is_refused(
    finished: Path, base_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import textlift

    other = tmp_path / "other"
    shutil.copytree(base_folder("bert"), other)
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    with pytest.raises(textlift.TextliftError) as caught:
        textlift.load(f"{finished}/lora", base=str(other))
    assert caught.value.exit_code == 65
    assert str(other) in str(caught.value)
    assert "trained" in str(caught.value)


def test_37_a_missing_pad_token_is_set_and_told(
    base_folder: Callable[[str], Path], command: Command, data_file: Path, tmp_path: Path
) -> None:
    from textlift.models.loading import open_base

    base = open_base(str(base_folder("gpt2")))
    assert base.config.pad_token_id == base.tokenizer.pad_token_id is not None
    assert any("pad token" in reason for reason in base.reasons)


def test_38_a_length_beyond_the_context_is_refused(
    base_folder: Callable[[str], Path], command: Command, data_file: Path, tmp_path: Path
) -> None:
    model = base_folder("bert")
    ended = command("run", data_file, "--model", model, "--set", "model.max_length=4096", "--output", tmp_path / "out")
    assert ended.code == 78
    assert "at most" in ended.err
    assert not (tmp_path / "out").exists()


def test_all_complaints_of_a_recipe_are_told_at_once(command: Command) -> None:
    overrides = ["training.epochs=0", "trainin.epochs=1", "model.pooling=max", "seed=-1"]
    ended = command("run", "demo", *(part for one in overrides for part in ("--set", one)))
    assert ended.code == 78
    assert [key for key in ("training.epochs", "trainin", "model.pooling", "seed") if key not in ended.err] == []


@pytest.mark.parametrize("target", ["emotion", "someone/some-set"])
def test_a_hub_that_cannot_be_reached_ends_with_75(target: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(
        [sys.executable, "-m", "textlift", "run", target, "--output", str(tmp_path / "out")],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not (tmp_path / "out").exists()


def test_hostile_names_reach_the_terminal_escaped(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(extra("x,\x1b[31mred", "y,\x1b[31mred"), encoding="utf-8")
    ended = command("check", path)
    assert "\x1b" not in ended.out + ended.err
    assert "\\u001b" in ended.out
