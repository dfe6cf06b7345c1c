"""Data sets of the Hub, from the local one of ../shared and from small servers of this file."""

import http.server
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from textlift.data import read_dataset
from textlift.errors import DataError, InputNotFoundError, UnavailableError
from textlift.recipe import DataSection

LOCAL_HUB = Path(__file__).parents[2].parent / "shared" / "hub" / "local_hub.py"
SOURCE = Path(__file__).parents[2] / "src"
needs_hub = [
    pytest.mark.hub,
    pytest.mark.skipif(not LOCAL_HUB.is_file(), reason="../shared/hub is not on this machine"),
]

CARD = """---
configs:
- config_name: small
  default: true
  data_files:
  - {split: train, path: small/train.csv}
  - {split: test, path: "small/te*"}
- config_name: other
  data_files: other/*.csv
dataset_info:
- config_name: small
  features: [{name: label, dtype: {class_label: {names: {'0': sad, '1': glad}}}}]
---
"""
ROWS = "text,label\nfirst,0\nsecond,1\n"
REPOSITORIES = {
    "own/carded": {"README.md": CARD, "small/train.csv": ROWS, "small/test.csv": ROWS, "other/training set.csv": ROWS},
    "own/plain": {"training set.csv": ROWS, "testing set.csv": ROWS, "README.md": "# no header"},
    "own/script": {"script.py": "raise SystemExit('never run')", "README.md": "# no header"},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("hub")
    for name, files in REPOSITORIES.items():
        for file, content in files.items():
            path = root / "datasets" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    port = 8700 + os.getpid() % 50
    command = [sys.executable, str(LOCAL_HUB), "--serve", str(root), "--port", str(port)]
    with subprocess.Popen(command) as server:
        _wait_for(f"http://127.0.0.1:{port}/api/datasets/own/plain")
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.05)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.usefixtures("cache")
class TestWithTheLocalHub:
    pytestmark = needs_hub

    def test_a_card_tells_splits_and_label_names(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        use(monkeypatch, hub)
        dataset = read_dataset(DataSection(source="own/carded"))
        assert list(dataset.splits) == ["train", "test"]
        assert dataset.label_names == ("sad", "glad")
        assert dataset.fingerprints["small/train.csv"]["commit"] == "0" * 39 + "1"
        assert f"own/carded is taken at commit {'0' * 39}1." in dataset.reasons

    def test_only_the_files_of_the_configuration_are_fetched(
        self, hub: str, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, hub)
        dataset = read_dataset(DataSection(source="own/carded:other"))
        assert list(dataset.splits) == ["train"]
        assert [path.name for path in cache.rglob("*.csv")] == ["training set.csv"]

    def test_file_names_tell_the_splits_where_no_card_does(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        use(monkeypatch, hub)
        assert list(read_dataset(DataSection(source="own/plain")).splits) == ["train", "test"]

    def test_an_unknown_configuration_is_told_with_the_known_ones(
        self, hub: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, hub)
        with pytest.raises(InputNotFoundError, match=r"configuration 'smal'; it has 'small', 'other'. Did you mean"):
            read_dataset(DataSection(source="own/carded:smal"))

    def test_a_loading_script_is_never_run(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        use(monkeypatch, hub)
        with pytest.raises(DataError, match="only a loading script"):
            read_dataset(DataSection(source="own/script"))

    def test_an_unknown_data_set_is_no_input(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        use(monkeypatch, hub)
        with pytest.raises(InputNotFoundError, match=r"own/gone: must be a file, a folder or a data set on 127.0.0.1"):
            read_dataset(DataSection(source="own/gone"))

    def test_a_bare_word_that_is_nothing_offers_near_files(
        self, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, hub)
        (tmp_path / "reviews.csv").write_text(ROWS, encoding="utf-8")
        with pytest.raises(InputNotFoundError, match=r"Did you mean 'reviews\.csv'"):
            read_dataset(DataSection(source="reviews"))

    def test_cached_files_serve_where_the_hub_does_not_answer(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("own/plain", "own/carded"):
            use(monkeypatch, hub)
            first = read_dataset(DataSection(source=name))
            use(monkeypatch, "http://127.0.0.1:9")
            assert read_dataset(DataSection(source=name)) == first

    def test_files_that_are_not_cached_are_told_where_the_hub_does_not_answer(
        self, hub: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, hub)
        read_dataset(DataSection(source="own/carded:small"))
        use(monkeypatch, "http://127.0.0.1:9")
        with pytest.raises((UnavailableError, DataError)) as caught:
            read_dataset(DataSection(source="own/carded:other"))
        assert caught.value.exit_code == 75

    def test_the_environment_names_the_hub_and_the_cache(self, hub: str, tmp_path: Path) -> None:
        script = (
            "from textlift.data import read_dataset; from textlift.recipe import DataSection;"
            "print(list(read_dataset(DataSection(source='own/plain')).splits))"
        )
        environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "PYTHONPATH": str(SOURCE)}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert run.stdout == "['train', 'test']\n"
        assert run.stderr == ""


@pytest.mark.usefixtures("cache")
def test_a_hub_that_does_not_answer_is_told_with_its_host_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(
        UnavailableError, match=r"127\.0\.0\.1:9; the host does not answer(.|\n)*--data FILES"
    ) as caught:
        read_dataset(DataSection(source="own/plain"))
    assert caught.value.exit_code == 75
    assert str(caught.value).count("\n") <= 2


class Refusal(http.server.BaseHTTPRequestHandler):
    status, code = 403, "GatedRepo"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (403, "GatedRepo", InputNotFoundError, "gated(.|\n)*HF_TOKEN"),
        (404, "RevisionNotFound", InputNotFoundError, "data.revision must be"),
        (503, "", UnavailableError, "does not answer"),
    ],
)
def test_refusals_of_the_hub_are_told(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, error: type[Exception], said: str
) -> None:
    monkeypatch.setattr(Refusal, "status", status)
    monkeypatch.setattr(Refusal, "code", code)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(error, match=said):
            read_dataset(DataSection(source="own/plain", revision="v1"))
        server.shutdown()
