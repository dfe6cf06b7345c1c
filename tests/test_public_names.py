"""The public face: names of the package and commands, each complete, explained and documented."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import textlift
from textlift.cli import app

ROOT = Path(__file__).parents[1]
COMMANDS = dict(sorted(getattr(get_command(app), "commands").items()))  # noqa: B009 - a group in typer's own terms


def options() -> Iterator[tuple[str, str, str]]:
    for name, command in COMMANDS.items():
        for parameter in command.params:
            yield name, parameter.opts[0], getattr(parameter, "help", None) or ""


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_public_names_are_sorted_and_each_is_there() -> None:
    assert textlift.__all__ == sorted(set(textlift.__all__))
    assert dir(textlift) == textlift.__all__
    assert [name for name in textlift.__all__ if getattr(textlift, name, None) is None] == []


def test_every_name_that_loads_on_first_use_is_public() -> None:
    assert set(textlift._HOMES) == set(textlift.__all__) - {"__version__"}


def test_every_public_function_and_class_has_a_docstring() -> None:
    objects = {name: getattr(textlift, name) for name in textlift.__all__ if name != "__version__"}
    assert [name for name, value in objects.items() if not (value.__doc__ or "").strip()] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'textlift' has no attribute 'tune'"):
        textlift.tune  # noqa: B018 - the look-up is what is tested


def test_the_version_is_that_of_the_project_file() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert declared is not None
    assert textlift.__version__ == declared[1]
    assert f"## [{textlift.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_one_sentence(name: str) -> None:
    text = (COMMANDS[name].help or "").strip()
    assert text.endswith(".")
    assert len(text.splitlines()) == 1


def test_every_option_of_every_command_has_help() -> None:
    assert [f"{command} {option}" for command, option, text in options() if not text.strip()] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_pages(name: str) -> None:
    assert (ROOT / "README.md").is_file(), "README.md must be there"
    assert any(re.search(rf"\btextlift {re.escape(name)}\b", page.read_text("utf-8")) for page in pages())


def test_the_pages_name_no_command_that_is_not_there() -> None:
    named = {
        word for page in pages() for word in re.findall(r"^(?:\$ )?textlift ([a-z]+)\b", page.read_text("utf-8"), re.M)
    }
    assert named - set(COMMANDS) == set()


def test_the_readme_names_its_two_commands_and_the_makefile_has_them() -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [f"make {name}" for name in ("demo", "test") if name not in rules or f"make {name}" not in readme] == []


@pytest.mark.parametrize("name", ["recipe_reference.py", "methods_reference.py"])
def test_the_pages_that_a_script_makes_are_current(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / name), "--check"], env=environment, check=False)
    assert done.returncode == 0, f"run: python scripts/{name}"
