"""A whole run over a file whose name, columns, texts and labels mean harm: nothing of them gets out of its place."""

import csv
import io
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from pages import Structure
from sample import make_histories, make_results

from cli_calls import SUBJECTS, Command
from conftest import BaseFolder
from textlift.progress import Progress
from textlift.report.html import render_html
from textlift.workflow.main_job import run_recipe
from textlift.workflow.planning import Request, resolve
from textlift.workflow.verbs import load

FILE = "=cmd|'<img src=x onerror=alert(1)>'\"\x1b]52;c;x\x07\u202e;=1.csv"
LABELS = ["../../../escape<script>alert(1)</script>", "=1+1\x1b[31m\x9b2J\u202e", "a\u2028b|`x`\n\n# h {{7*7}} <b>"]
TEXT, LABEL = "text <b>\x1b[1m", "label \u202e=x"
SHOWN = {".json", ".jsonl", ".csv", ".md", ".yaml", ".html"}
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class HostileRun(NamedTuple):
    folder: Path
    directory: Path
    told: str


@pytest.fixture(scope="module")
def hostile_run(base_folder: BaseFolder, tmp_path_factory: pytest.TempPathFactory) -> HostileRun:
    folder = tmp_path_factory.mktemp("hostile")
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow([TEXT, LABEL])
    for number in range(60):
        words = list(SUBJECTS.values())[number % 3].split()
        label = LABELS[number % 3]
        writer.writerow([f"={words[0]} {words[number % 2]} {label} number {number}", label])
    writer.writerows([["=two \x1b[31m", LABELS[0]], ["=two \x1b[31m", LABELS[1]]])
    (folder / FILE).write_text(rows.getvalue(), encoding="utf-8")
    request = Request(
        str(folder / FILE),
        model=str(base_folder("bert")),
        overrides=["training.epochs=1", "baselines=[majority]", "variants.lora.description=<b>;<script>"],
        methods=["lora"],
        values={"data.text": TEXT, "data.label": LABEL, "data.allow_conflicts": True, "data.allow_leak": True},
    )
    stream = io.StringIO()
    run_recipe(resolve(request), output=folder / "run", progress=Progress(stream), command="textlift run <b>\x1b[1m")
    return HostileRun(folder, folder / "run", stream.getvalue())


def hidden_in(text: str) -> set[str]:
    return {one for one in text if unicodedata.category(one) in HIDDEN and one != "\n"}


def test_no_label_or_file_name_becomes_a_path(hostile_run: HostileRun) -> None:
    assert sorted(path.name for path in hostile_run.folder.iterdir()) == sorted([FILE, "run"])
    found = [path.relative_to(hostile_run.directory) for path in hostile_run.directory.rglob("*")]
    assert all(
        re.fullmatch("[a-zA-Z0-9_.-]+", part) and not part.startswith("-") for path in found for part in path.parts
    )
    assert {path.parts[1] for path in found if path.parts[0] == "variants" and len(path.parts) > 1} == {
        "majority",
        "lora",
    }


def test_its_report_holds_no_other_kind_of_node(hostile_run: HostileRun) -> None:
    page = (hostile_run.directory / "report.html").read_text(encoding="utf-8")
    ours = Structure(render_html(make_results(), make_histories()))
    found = Structure(page)
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in ours.elements}
    assert {name for name, _ in found.values} <= {name for name, _ in ours.values}
    assert found.open == []
    assert all(value.startswith("#") for name, value in found.values if name == "href")
    assert hidden_in(page) == set()
    assert LABELS[0] in found.text


def test_its_tables_card_and_progress_are_printable(hostile_run: HostileRun) -> None:
    card = (hostile_run.directory / "variants" / "lora" / "adapter" / "README.md").read_text(encoding="utf-8")
    markdown = (hostile_run.directory / "results.md").read_text(encoding="utf-8")
    conflicts = (hostile_run.directory / "conflicts.csv").read_text(encoding="utf-8")
    for shown in (card, markdown, conflicts, hostile_run.told):
        assert hidden_in(shown) == set()
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "peft"
    with (hostile_run.directory / "conflicts.csv").open(encoding="utf-8", newline="") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_its_labels_come_back_as_they_were_written(hostile_run: HostileRun) -> None:
    predictor = load(hostile_run.directory / "lora")
    assert sorted(predictor.label_names) == sorted(LABELS)
    assert predictor.predict(["a wave"])[0].label in LABELS


def test_no_file_that_people_read_holds_a_character_that_a_screen_obeys(hostile_run: HostileRun) -> None:
    shown = [path for path in hostile_run.directory.rglob("*") if path.suffix in SHOWN and "adapter" not in path.parts]
    assert len(shown) > 10
    assert {path.name: hidden_in(path.read_text(encoding="utf-8")) for path in shown} == {
        path.name: set() for path in shown
    }
    with (hostile_run.directory / "splits.csv").open(encoding="utf-8", newline="") as file:
        assert {row["source"][:2] for row in csv.DictReader(file)} == {"'="}


def test_commands_print_nothing_that_a_terminal_obeys(
    hostile_run: HostileRun, command: Command, tmp_path: Path
) -> None:
    columns = ("--text", TEXT, "--label", LABEL)
    file = hostile_run.folder / FILE
    told = [
        command("evaluate", hostile_run.directory / "lora", file, *columns),
        command("check", file, *columns),
        command("predict", hostile_run.directory / "lora", file, "--text", TEXT),
        command("compare", hostile_run.directory, hostile_run.directory, "--output", tmp_path / "both\x1b[1m"),
    ]
    assert [ended.code for ended in told] == [0, 0, 0, 0]
    assert [hidden_in(ended.out + ended.err) for ended in told] == [set()] * 4
    assert "\n# h" not in told[1].out
