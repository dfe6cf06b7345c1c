"""What an import may bring along: the light modules stay light, so that `textlift --help` answers at once."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import textlift

HEAVY = ("torch", "transformers", "peft", "sklearn", "matplotlib")
LIGHT = ("cli", "data", "errors", "evaluation", "methods", "progress", "recipe", "report", "runs", "runtime")

_IMPORT_EACH = """
import importlib, json, sys
names, heavy = json.loads(sys.argv[1])
found = {}
for name in names:
    importlib.import_module(name)
    brought = [one for one in heavy if one in sys.modules and one not in sum(found.values(), [])]
    if brought:
        found[name] = brought
print(json.dumps(found))
"""

_RUN = """
import sys
from textlift.cli import main
sys.argv = ["textlift", *sys.argv[1:]]
try:
    main()
finally:
    print("\\nLOADED", *sorted(sys.modules), file=sys.stderr)
"""


def light_modules() -> list[str]:
    rooms = [
        name for _, name, _ in pkgutil.walk_packages(textlift.__path__, "textlift.") if name.split(".")[1] in LIGHT
    ]
    return ["textlift", *rooms, "textlift.workflow.planning"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(textlift.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )


def test_light_modules_load_no_heavy_library() -> None:
    names = light_modules()
    assert {f"textlift.{room}" for room in LIGHT} <= set(names)
    ended = python(_IMPORT_EACH, json.dumps([names, HEAVY]))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {}, "these modules import a heavy library when they are loaded"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["recipes"], ["recipes", "demo"], ["methods"], ["rnu"]]
)
def test_commands_that_need_no_model_load_no_heavy_library(arguments: list[str]) -> None:
    ended = python(_RUN, *arguments)
    loaded = ended.stderr.rpartition("LOADED")[2].split()
    assert "textlift.cli" in loaded, ended.stderr
    assert [name for name in HEAVY if name in loaded] == []


def test_the_package_itself_loads_none_of_its_rooms() -> None:
    ended = python("import sys, textlift; print(*[name for name in sys.modules if name.startswith('textlift.')])")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
