"""Shared fixtures: tiny base models, each written once for the whole run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Command, call, rows

BaseFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> BaseFolder:
    """The folder of a tiny base model by the name of its family (see tiny_models.BUILDERS); read it, never write it."""
    from tiny_models import write_base

    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = write_base(name, tmp_path_factory.mktemp(f"base-{name}"))
        return written[name]

    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda *arguments: call(capsys, *arguments)


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    path.write_text(rows(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(base_folder: Callable[[str], Path], data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with an adapter and its merged model, shared by the tests that only read it."""
    from textlift.progress import Progress
    from textlift.workflow.main_job import run_recipe
    from textlift.workflow.planning import Request, resolve

    output = tmp_path_factory.mktemp("runs") / "finished"
    request = Request(str(data_file), model=str(base_folder("bert")), overrides=["training.epochs=2"])
    run_recipe(resolve(request), output=output, progress=Progress(silent=True), command="textlift run rows.csv")
    return output
