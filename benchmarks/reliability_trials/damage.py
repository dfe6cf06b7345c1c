"""Every prefix of the writes of one checkpoint, and every file lost, cut short or with one bit flipped.

A damaged checkpoint must be passed over by name for the one before it. Silently wrong is a session that holds neither
the state of the newer checkpoint nor, told, that of the older one.
"""

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reliability_trials.forks import answer
from reliability_trials.ours import Setting, Tally

JOB, HERE = {"recipe": "of the trials"}, {"torch": "of the trials"}
FLIPS = 40

Damage = tuple[str, Callable[[Path], None]]


def damages(setting: Setting, progress: Callable[[str], None]) -> Tally:
    """All of them, in one forked process."""
    told = answer(lambda: _all(setting), setting.folder / "log")
    tally = Tally("damaged or unfinished checkpoint", facts={"fell back by name": told["fell_back"]})
    for problem in told["problems"]:
        tally.count(problem)
    progress(f"damage: {tally.good} of {tally.trials} not silently wrong")
    return tally


def _all(setting: Setting) -> dict[str, Any]:
    from textlift.training.checkpoint import restore_latest, save_checkpoint
    from textlift.training.session import Measurement

    places = setting.folder / "checkpoints"
    states = {}
    training = _session(setting.base)
    for event in training.run():
        if isinstance(event, Measurement) and event.step in {2, 4}:
            save_checkpoint(training, places, job=JOB, environment=HERE)
            states[event.step] = _state(training)
            if event.step == 4:
                break
    problems, fell_back = [], 0
    for number, (name, damage) in enumerate(_damages(places / "step-00000004")):
        copy = shutil.copytree(places, setting.folder / f"damaged-{number}")
        damage(copy / "step-00000004")
        continued = _session(setting.base)
        restored = restore_latest(continued, copy, job=JOB, environment=HERE)
        right = _state(continued) == states.get(restored.step)
        named = restored.step == 4 or any("step-00000004" in sentence for sentence in restored.told)
        gone = restored.step == 2 and not (copy / "step-00000004").exists()  # nothing was written: nothing to name
        problems.append("" if right and (named or gone) else f"{name}: step {restored.step}, {restored.told}")
        fell_back += restored.step == 2
        shutil.rmtree(copy)
    return {"problems": problems, "fell_back": fell_back}


def _session(base: Path) -> Any:
    from tiny_models import session, wrapped

    predictor, _ = wrapped(base, "lora", dropout=0.1)
    return session(predictor, epochs=2, batch_size=4, evaluations_per_epoch=3, patience=None)


def _state(training: Any) -> str:
    """A digest of everything that decides how a training goes on."""
    import dataclasses

    import torch

    digest = hashlib.sha256(repr(dataclasses.asdict(training.progress)).encode())
    moments = training.optimizer.state_dict()["state"]
    kept = [training.trained_weights(), training.best, *(moments[index] for index in sorted(moments))]
    tensors = [torch.get_rng_state(), *(tensor for named in kept for _, tensor in sorted(named.items()))]
    for tensor in tensors:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _damages(newest: Path) -> Iterator[Damage]:
    contents = {path.name: path.read_bytes() for path in newest.iterdir()}
    order = ["trained.safetensors", "best.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
    assert sorted(order) == sorted(contents)
    yield "the folder is not there", shutil.rmtree
    for count in range(len(order)):
        yield f"{count} files written", _prefix(order[count:], {})
        size = len(contents[order[count]])
        for part in sorted({0, 1, size // 2, size - 1}):
            begun = {f".{order[count]}.0a1b2c3d" if order[count].endswith("json") else order[count]: part}
            written = {name: contents[order[count]][:length] for name, length in begun.items()}
            yield f"{part} bytes of {order[count]} written", _prefix(order[count:], written)
    for name, content in contents.items():
        yield f"{name} lost", _prefix([name], {})
        for size in sorted({0, 1, len(content) // 2, len(content) - 1}):
            yield f"{name} cut to {size}", _prefix([name], {name: content[:size]})
        source = random.Random(name)
        for _ in range(FLIPS):
            place, bit = source.randrange(len(content)), source.randrange(8)
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            yield f"bit {bit} of byte {place} of {name} flipped", _prefix([name], {name: bytes(flipped)})


def _prefix(gone: list[str], written: dict[str, bytes]) -> Callable[[Path], None]:
    def damage(place: Path) -> None:
        for name in gone:
            (place / name).unlink()
        for name, content in written.items():
            (place / name).write_bytes(content)

    return damage
