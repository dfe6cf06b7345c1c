"""Bad input through the command line and through Python: a message, a code, and nothing touched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from reliability_trials.forks import Fork
from reliability_trials.ours import Setting, Tally

_VALUE_OF = {"--label": "data.label", "--text": "data.text", "--device": "runtime.device"}


def bad_inputs(setting: Setting, progress: Callable[[str], None]) -> list[Tally]:
    """Every case of tests/test_bad_inputs.py."""
    from test_bad_inputs import CASES

    by_command, by_call = Tally("bad input, command line"), Tally("bad input, Python")
    for number, (name, files, arguments, code, _) in enumerate(CASES):
        folder = setting.folder / f"input-{number}"
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        folder.mkdir(exist_ok=True)
        before = _tree(folder)
        ended = Fork(_command(folder, arguments), setting.folder / "log").wait()
        lines = ended.err[max(0, ended.err.find("error: ")) :].splitlines()
        sound = ended.code == code and "Traceback" not in ended.err and "MODEL LOADED" not in ended.err
        short = code == 2 or len(lines) <= 3
        by_command.count("" if sound and short and _tree(folder) == before else f"{name}: {ended.code} {ended.err}")
        if code != 2:
            ended = Fork(_call(folder, arguments), setting.folder / "log").wait()
            right = ended.out.strip() == f"{code} short" and "MODEL LOADED" not in ended.err
            by_call.count("" if right and _tree(folder) == before else f"{name}: {ended.out} {ended.err}")
        shutil.rmtree(folder)
    progress(f"bad input: {by_command.good} of {by_command.trials}, {by_call.good} of {by_call.trials}")
    return [by_command, by_call]


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _watch_models() -> None:
    from textlift.workflow import preparation

    def loaded(*_: object, **__: object) -> None:
        os.write(2, b"MODEL LOADED\n")

    preparation.build_classifier = loaded


def _command(folder: Path, arguments: list[str]) -> Callable[[], None]:
    def done() -> None:
        import sys

        from textlift import cli

        _watch_models()
        os.chdir(folder)
        sys.argv = ["textlift", "run", *arguments, "--output", "out"]
        cli.main()

    return done


def _call(folder: Path, arguments: list[str]) -> Callable[[], None]:
    def done() -> None:
        from textlift.errors import TextliftError
        from textlift.progress import Progress
        from textlift.workflow.main_job import run_recipe
        from textlift.workflow.planning import Request, resolve

        _watch_models()
        os.chdir(folder)
        target, rest = arguments[0], arguments[1:]
        given = dict(zip(rest[::2], rest[1::2], strict=True))
        test, methods = given.pop("--test", None), given.pop("--methods", "")
        overrides = [given.pop("--set")] if "--set" in given else []
        values = {_VALUE_OF[flag]: value for flag, value in given.items()}
        request = Request(
            target, test=test, methods=methods.split(",") if methods else (), overrides=overrides, values=values
        )
        try:
            run_recipe(resolve(request), output=Path("out"), progress=Progress(silent=True))
        except TextliftError as error:
            print(error.exit_code, "short" if len(str(error).splitlines()) <= 3 else "long")

    return done
