"""Base models of the Hub: unreachable, unknown, and pinned to a commit."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
LOCAL_HUB = Path(__file__).parents[2].parent / "shared" / "hub" / "local_hub.py"
needs_hub = [
    pytest.mark.hub,
    pytest.mark.skipif(not LOCAL_HUB.is_file(), reason="../shared/hub is not on this machine"),
]
ASK = """
import sys
from textlift.errors import TextliftError
from textlift.models.sources import find_model
try:
    folder = find_model(sys.argv[1], *sys.argv[2:])
except TextliftError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(error.exit_code)
print(folder.revision, sorted(folder.sha256))
"""


ASK_TYPE = """
import sys
from textlift.errors import TextliftError
from textlift.models.sources import read_model_type
try:
    print(read_model_type(*sys.argv[1:]))
except TextliftError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(error.exit_code)
"""


def ask(home: Path, endpoint: str, *arguments: str, script: str = ASK) -> subprocess.CompletedProcess[str]:
    """What a fresh process with an empty cache says of a model; the Hub's client reads its endpoint at import."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_hub_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    done = ask(tmp_path, "http://127.0.0.1:9", "openai-community/gpt2")
    assert done.returncode == 75, done.stderr
    assert "http://127.0.0.1:9 cannot be reached and nothing is cached" in done.stdout
    assert "--model embedded" in done.stdout
    again = ask(tmp_path, "http://127.0.0.1:9", "openai-community/gpt2", script=ASK_TYPE)
    assert (again.returncode, again.stdout) == (75, done.stdout)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A local Hub with one model."""
    from tiny_models import write_base

    root = tmp_path_factory.mktemp("hub")
    write_base("gpt2", root / "models" / "someone" / "tiny-gpt2")
    (root / "models" / "someone" / "empty").mkdir()
    (root / "models" / "someone" / "empty" / "README.md").write_text("nothing here")
    (root / "datasets").mkdir()
    log = (root / "log").open("w")
    port = 8750 + os.getpid() % 50
    command = [sys.executable, str(LOCAL_HUB), "--serve", str(root), "--port", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{endpoint}/api/models/someone/tiny-gpt2", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield endpoint
    finally:
        server.terminate()
        server.wait()
        log.close()


class TestOnTheLocalHub:
    pytestmark = needs_hub

    def test_a_model_is_pinned_to_its_commit(self, hub: str, tmp_path: Path) -> None:
        done = ask(tmp_path, hub, "someone/tiny-gpt2")
        assert done.returncode == 0, done.stdout + done.stderr
        revision, _, files = done.stdout.strip().partition(" ")
        assert len(revision) == 40
        assert files == "['model.safetensors']"

    def test_an_unknown_repository_is_not_found(self, hub: str, tmp_path: Path) -> None:
        done = ask(tmp_path, hub, "someone/no-such-model")
        assert done.returncode == 66, done.stdout + done.stderr
        assert "the Hub has no such public repository" in done.stdout

    def test_the_architecture_is_known_from_one_file_and_no_weight_is_fetched(self, hub: str, tmp_path: Path) -> None:
        done = ask(tmp_path, hub, "someone/tiny-gpt2", script=ASK_TYPE)
        assert (done.returncode, done.stdout.strip()) == (0, "gpt2"), done.stdout + done.stderr
        assert {path.name for path in tmp_path.rglob("snapshots/*/*")} == {"config.json"}

    @pytest.mark.parametrize(
        ("name", "code"), [("someone/no-such-model", 66), ("not a name!", 66), ("someone/empty", 65)]
    )
    def test_an_architecture_that_cannot_be_known_is_told_as_for_the_whole_model(
        self, hub: str, tmp_path: Path, name: str, code: int
    ) -> None:
        told = [ask(tmp_path / str(turn), hub, name, script=script) for turn, script in enumerate((ASK, ASK_TYPE))]
        assert [done.returncode for done in told] == [code, code]
        assert told[0].stdout == told[1].stdout

    def test_a_name_that_is_no_repository_is_not_found(self, hub: str, tmp_path: Path) -> None:
        assert ask(tmp_path, hub, "not a name!").returncode == 66
