"""A run that is asked to end saves and says so; continued, it gives what the unbroken one gives; one at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

import textlift
from conftest import BaseFolder
from textlift.claims import claim, require_claimable
from textlift.errors import CannotCreateError, CheckpointError, UnavailableError
from textlift.interrupts import Interrupted, deferred, handled, obey, pending
from textlift.progress import Progress
from textlift.workflow import variants
from textlift.workflow.main_job import run_recipe
from textlift.workflow.planning import Request, resolve

TIMING = {
    "train_seconds",
    "useful_tokens_per_second",
    "peak_memory_bytes",
    "samples_per_second",
    "created",
    "command",
}
STEPS = 400


@pytest.fixture
def arguments(base_folder: BaseFolder, data_file: Path) -> list[str]:
    """A run of some seconds of training, measured every hundred steps."""
    settings = [f"training.epochs={STEPS // 10}", "training.batch_size=8", "training.patience=null"]
    sets = [word for setting in [*settings, "training.evaluations_per_epoch=1"] for word in ("--set", setting)]
    return ["run", str(data_file), "--model", str(base_folder("bert")), "--methods", "lora", *sets]


def start(arguments: list[str], output: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(textlift.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "textlift", *arguments, "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_checkpoint(process: subprocess.Popen[str], output: Path) -> None:
    place = output / "variants" / "lora" / "checkpoints"
    until = time.monotonic() + 120
    while len(list(place.glob("step-*/manifest.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def facts(value: object) -> object:
    """Results without what the clock and the command line put into them."""
    if isinstance(value, dict):
        return {key: facts(inner) for key, inner in value.items() if key not in TIMING}
    return [facts(inner) for inner in value] if isinstance(value, list) else value


def results(output: Path) -> object:
    found = json.loads((output / "results.json").read_text())
    del found["ledger"]  # a run that is continued opens its rows again, and says so
    del found["environment"]["reasons"]  # how much faster one kernel is than another
    return facts(found)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_that_is_ended_and_continued_gives_what_an_unbroken_one_gives(
    arguments: list[str], tmp_path: Path, unbroken: Path, number: signal.Signals, code: int
) -> None:
    process = start(arguments, tmp_path / "run")
    wait_for_checkpoint(process, tmp_path / "run")
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert out == ""
    if number != signal.SIGKILL:
        assert f"stopped by {number.name}; a run continues with --resume" in err
    assert not (tmp_path / "run" / "results.json").exists()

    continued = start([*arguments, "--resume"], tmp_path / "run")
    _, err = continued.communicate(timeout=300)
    assert continued.returncode == 0, err
    assert "continued from step " in err
    assert results(tmp_path / "run") == results(unbroken)
    left, right = (folder / "variants" / "lora" for folder in (tmp_path / "run", unbroken))
    assert (left / "history.jsonl").read_text() == (right / "history.jsonl").read_text()
    assert (left / "predictions.jsonl").read_text() == (right / "predictions.jsonl").read_text()
    weights, others = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (left, right))
    assert weights.keys() == others.keys()
    assert all(bool((weights[key] == others[key]).all()) for key in weights)
    assert not (left / "checkpoints").exists()


@pytest.fixture(scope="session")
def unbroken(base_folder: BaseFolder, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody stopped; read it, never write it."""
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    process = start(arguments.__wrapped__(base_folder, data_file), output)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return output


CLAIM = {"command": "", "overwrite": False, "resume": False, "environment": {}}


def test_a_second_run_in_one_directory_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    with claim(tmp_path / "run", fingerprint={"recipe": "a"}, **CLAIM):
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UnavailableError, match=f"process {os.getpid()}, since .*, is writing it") as caught:
                require_claimable(tmp_path / "run", **{"resume": False, "overwrite": False, **flags})
            assert caught.value.exit_code == 75
    require_claimable(tmp_path / "run", overwrite=False, resume=True)


def test_what_differs_is_named_where_another_run_is_to_be_continued(tmp_path: Path) -> None:
    with claim(tmp_path / "run", fingerprint={"recipe": "a", "data": "b"}, **CLAIM):
        pass
    with (
        pytest.raises(CheckpointError, match="must have the same recipe, data; not the same: data"),
        claim(tmp_path / "run", fingerprint={"recipe": "a", "data": "c"}, **{**CLAIM, "resume": True}),
    ):
        pytest.fail("another run was continued")


@pytest.mark.parametrize(
    ("default", "later", "named"),
    [("batch_size_of", 4, "number of steps"), ("rate_factor", 1.9, "learning rate")],
)
def test_a_training_that_a_later_default_would_change_is_not_continued(
    base_folder: BaseFolder,
    data_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    default: str,
    later: float,
    named: str,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise UnavailableError("stopped after training")

    recipe = resolve(Request(str(data_file), model=str(base_folder("bert")), overrides=["baselines=[majority]"]))
    with monkeypatch.context() as patched:
        patched.setattr(variants, "measure", stop)
        with pytest.raises(UnavailableError, match="stopped after training"):
            run_recipe(recipe, output=tmp_path / "run", progress=Progress(silent=True))
    monkeypatch.setattr(variants, default, lambda *_, **__: later)  # as a later version may choose it
    with pytest.raises(CheckpointError, match=f"not the same: .*{named}"):
        run_recipe(recipe, output=tmp_path / "run", progress=Progress(silent=True), resume=True)


def test_a_directory_that_a_kill_left_before_its_head_was_written_is_claimed(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".run.json.0a1b2c3d").write_text("{")
    with claim(tmp_path, fingerprint={"recipe": "a"}, **CLAIM) as (run, before):
        assert before is None
        assert run.read("run.json")["status"] == "running"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == ["run.json"]


def test_a_run_that_was_half_replaced_when_it_was_killed_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / ".replaced-0a1b2c3d").mkdir()
    (tmp_path / ".replaced-0a1b2c3d" / "run.json").write_text("{}")
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "old.txt").write_text("old")
    with claim(tmp_path, fingerprint={"recipe": "a"}, **{**CLAIM, "resume": True}) as (_, before):
        assert before is None
        assert not (tmp_path / "variants").exists()


@pytest.fixture
def signals() -> Iterator[Callable[[signal.Signals], None]]:
    with handled():
        yield lambda number: os.kill(os.getpid(), number)


def test_a_signal_ends_the_work_where_it_stands(signals: Callable[[signal.Signals], None]) -> None:
    with pytest.raises(Interrupted, match="stopped by SIGTERM") as caught:
        signals(signal.SIGTERM)
    assert caught.value.exit_code == 143


def test_a_deferred_signal_waits_until_it_is_obeyed(signals: Callable[[signal.Signals], None]) -> None:
    with deferred():
        signals(signal.SIGINT)
        assert pending()
        with pytest.raises(Interrupted) as caught:
            obey()
    assert caught.value.exit_code == 130
    assert not pending()


def test_a_deferred_signal_ends_the_work_at_the_end_of_the_block(signals: Callable[[signal.Signals], None]) -> None:
    done = []

    def work() -> None:
        with deferred():
            signals(signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(Interrupted):
        work()
    assert done == ["all of it"]


def test_a_second_signal_leaves_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from textlift.interrupts import deferred, handled\n"
        "with handled(), deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(textlift.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=50, check=False
    )
    assert done.returncode == 143
    assert done.stderr == "finishing the step and saving; again to leave at once\n"


def test_outside_a_run_python_keeps_its_own_handlers() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with handled():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_folder_in_the_place_of_the_ledger_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    with claim(tmp_path, fingerprint={"recipe": "a"}, **CLAIM):
        pass
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(CannotCreateError, match=r"must hold its ledger\.jsonl as a file"):
        require_claimable(tmp_path, overwrite=True, resume=False)
    assert (tmp_path / "run.json").is_file()
