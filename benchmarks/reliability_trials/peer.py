"""Hugging Face Trainer + PEFT under the same kills and damages, with the resumption that its documentation shows."""

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reliability_trials.forks import Fork, count_file_events, die_at, sleep_a_while
from reliability_trials.ours import Setting, Tally

STEPS, EVERY = 60, 10


def kills(setting: Setting, trials: int, progress: Callable[[str], None]) -> list[Tally]:
    """Kill -9 at a random time, and at or just after a random change of a file; then resume_from_checkpoint."""
    expected, seconds, events = _unbroken(setting)
    any_time, saving = Tally("kill -9 at a random time"), Tally("kill -9 while saving")
    for trial in range(trials):
        source = random.Random(trial)
        output = setting.folder / f"peer-{trial}"
        if trial % 2:
            at, delay = source.randint(1, events), source.choice([0.0, source.uniform(0, 0.002)])
            Fork(_doomed(setting, output, at=at, delay=delay), setting.folder / "log").wait()
        else:
            fork = Fork(lambda place=output: _train(setting, place), setting.folder / "log")
            sleep_a_while(seconds, source)
            fork.kill()
            fork.wait()
        (saving if trial % 2 else any_time).count(_resumed(setting, output, expected))
        shutil.rmtree(output, ignore_errors=True)
        progress(f"peer kill {trial + 1}/{trials}: {any_time.good + saving.good} identical")
    return [any_time, saving]


def damages(setting: Setting, progress: Callable[[str], None]) -> Tally:
    """Each file of the last checkpoint lost, cut to half, or with one bit flipped; silently wrong is what counts."""
    expected, _, _ = _unbroken(setting)
    whole = setting.folder / "peer-half"
    Fork(lambda: _train(setting, whole, steps=STEPS // 2), setting.folder / "log").wait()
    shutil.rmtree(whole / "final")
    newest = f"checkpoint-{STEPS // 2}"
    tally = Tally("damaged checkpoint", facts={"refused": 0, "identical": 0})
    for name, damage in _damages(whole / newest):
        output = shutil.copytree(whole, setting.folder / "peer-damaged")
        damage(output / newest)
        ended = Fork(lambda place=output: _train(setting, place), setting.folder / "log").wait()
        same = ended.code == 0 and _digest(output) == expected
        tally.facts["refused"] += ended.code != 0
        tally.facts["identical"] += same
        tally.count("" if ended.code != 0 or same else f"{name}: other weights, without a word")
        shutil.rmtree(output)
    progress(f"peer damage: {tally.trials - tally.good} of {tally.trials} silently wrong")
    return tally


def diverged(setting: Setting) -> Tally:
    """A learning rate of 1e20: does the run end as a success?"""
    tally = Tally("learning rate 1e20")
    ended = Fork(lambda: _train(setting, setting.folder / "peer-lr", rate=1e20), setting.folder / "log").wait()
    tally.count("" if ended.code else "ended as a success")
    return tally


def _unbroken(setting: Setting) -> tuple[str, float, int]:
    output, marks = setting.folder / "peer-unbroken", setting.folder / "peer-events.txt"
    shutil.rmtree(output, ignore_errors=True)

    def counted() -> None:
        count_file_events(output, lambda count: marks.write_text(str(count)) and None)
        _train(setting, output)

    ended = Fork(counted, setting.folder / "log").wait()
    if ended.code != 0:
        raise RuntimeError(ended.err)
    return _digest(output), ended.seconds, int(marks.read_text())


def _doomed(setting: Setting, output: Path, *, at: int, delay: float) -> Callable[[], None]:
    def done() -> None:
        count_file_events(output, die_at(at, delay))
        _train(setting, output)

    return done


def _resumed(setting: Setting, output: Path, expected: str) -> str:
    ended = Fork(lambda: _train(setting, output), setting.folder / "log").wait()
    if ended.code != 0:
        return f"{output.name}: resuming failed: {ended.err.strip().splitlines()[-1][:200]}"
    return "" if _digest(output) == expected else f"{output.name}: other weights"


def _digest(output: Path) -> str:
    return hashlib.sha256((output / "final" / "adapter_model.safetensors").read_bytes()).hexdigest()


def _damages(newest: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        if len(content) < 2:
            continue
        flipped = bytearray(content)
        flipped[random.Random(path.name).randrange(len(content))] ^= 4
        yield f"{path.name} lost", lambda place, name=path.name: (place / name).unlink()
        for what, changed in (("cut to half", content[: len(content) // 2]), ("one bit flipped", bytes(flipped))):
            yield f"{path.name} {what}", lambda place, name=path.name, data=changed: _write(place / name, data)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _train(setting: Setting, output: Path, *, steps: int = STEPS, rate: float = 1e-3) -> None:
    """The script of the documentation: resume from the last checkpoint where there is one, then save the adapter."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_utils import get_last_checkpoint

    from tiny_models import LABEL_NAMES, texts_and_labels

    set_seed(0)
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(setting.base)
    model = AutoModelForSequenceClassification.from_pretrained(setting.base, num_labels=len(LABEL_NAMES))
    model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, lora_dropout=0.1))
    texts, labels = texts_and_labels(84)
    rows = [{**tokenizer(text), "labels": int(label)} for text, label in zip(texts, labels, strict=True)]
    arguments = TrainingArguments(
        str(output),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=rate,
        lr_scheduler_type="constant",
        save_steps=EVERY,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        seed=0,
    )
    trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), rows)
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(output / "final"))
