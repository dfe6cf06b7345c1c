"""Every input that fuzzing found worth keeping, played without the fuzzer."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
CORPUS = sorted((HERE / "corpus").iterdir())


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_readers", HERE / "fuzz_readers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_small() -> None:
    assert 20 <= len(CORPUS) <= 200
    assert max(path.stat().st_size for path in CORPUS) < 4096


def test_every_input_of_the_corpus_is_read_or_refused(fuzz: ModuleType, tmp_path: Path) -> None:
    for path in CORPUS:
        fuzz.read_one(path.read_bytes(), tmp_path)
