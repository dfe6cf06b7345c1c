"""Shared fixtures: tiny base models, each written once for the whole run."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
