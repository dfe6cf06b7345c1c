"""Rules of the house that no linter holds: sizes, names of files, who sees a whole recipe."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "textlift"
SOURCE_FILES = sorted(SOURCE.rglob("*.py"))
FILES = [*SOURCE_FILES, *sorted((ROOT / "tests").rglob("*.py"))]

FUNCTION_LINES = 60
FILE_LINES = 400
BANNED_FILES = {"utils", "util", "helpers", "helper", "common", "misc"}
BANNED_NAMES = re.compile(r"(?:Manager|Helper)$|^_?(?:do|handle|process|my|new|tmp)_")
ROOMS_WITHOUT_RECIPE = ("data", "evaluation", "inference.py", "models", "training")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(tree: ast.Module) -> Iterator[Definition]:
    return (node for node in ast.walk(tree) if isinstance(node, Definition))


def lines_without_docstring(node: Definition | ast.Module, last: int, first: int = 1) -> int:
    has_docstring = ast.get_docstring(node, clean=False) is not None
    docstring = node.body[0] if has_docstring else None
    taken = 0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1
    return last - first + 1 - taken


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_keep_their_size(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert lines_without_docstring(tree, len(text.splitlines())) <= FILE_LINES
    sizes = {
        node.name: lines_without_docstring(node, node.end_lineno or 0, node.lineno)
        for node in definitions(tree)
        if not isinstance(node, ast.ClassDef)
    }
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", SOURCE_FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_names_say_what_a_thing_is(path: Path) -> None:
    assert path.stem not in BANNED_FILES
    names = {node.name for node in definitions(ast.parse(path.read_text(encoding="utf-8")))}
    assert {name for name in names if BANNED_NAMES.search(name)} == set()


@pytest.mark.parametrize("room", ROOMS_WITHOUT_RECIPE)
def test_inner_rooms_never_see_a_whole_recipe(room: str) -> None:
    place = SOURCE / room
    taken = {
        f"{path.name}: {alias.name}"
        for path in ([place] if place.is_file() else place.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "textlift.recipe"
        for alias in node.names
        if alias.name == "Recipe"
    }
    assert taken == set()


def test_the_pins_name_no_place_to_fetch_from() -> None:
    pins = "".join(path.read_text("utf-8") for path in (ROOT / "requirements").iterdir())
    assert not re.search(r"https?:|file:|--|@|^[/.]", pins, re.MULTILINE)
    assert "torch==" in pins
