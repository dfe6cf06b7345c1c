"""Made-up rows that are sound, and for each check rows in which it finds something."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from samples import dataset

from textlift.data import Dataset, Evidence
from textlift.data.checks import Lengths
from textlift.recipe import DataSection

Pairs = list[tuple[str, str]]

SYLLABLES = re.findall("..", "badofigehukaominupasatewivuzeloruxi")
SECTION = DataSection(source="x")


def sound(n_rows: int, *, seed: int = 0, shares: Sequence[float] = (0.5, 0.5)) -> Pairs:
    """Rows of words that no language has; a class is told by a few of them, by nothing that can be seen."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=3)) for _ in range(3000)]
    telling = {"a": words[:20], "b": words[20:40]}
    pairs = []
    for _ in range(n_rows):
        label = draw.choices("ab", shares)[0]
        chosen = [*draw.choices(words[40:], k=draw.randint(7, 15)), draw.choice(telling[label])]
        draw.shuffle(chosen)
        pairs.append((f"{' '.join(chosen).capitalize()}{draw.choice('.!?')}", label))
    return pairs


def sound_data(**splits: Pairs) -> Dataset:
    """Sound train and test, or those given in their place."""
    return dataset(**{"train": sound(400), "test": sound(200, seed=1), **splits})


def evidence(data: Dataset | None = None, **more: object) -> Evidence:
    return Evidence(sound_data() if data is None else data, SECTION, **more)


def probabilities(data: Dataset, *, n_wrong: int = 0) -> np.ndarray:
    """Probabilities of train that its labels follow, but for some rows at the start."""
    draw = np.random.default_rng(0)
    labels = data.label_ids("train")
    sure = draw.uniform(0.6, 0.995, len(labels))  # of the likelier class
    likely = np.where(draw.random(len(labels)) < sure, labels, 1 - labels)
    likely[:n_wrong], sure[:n_wrong] = 1 - labels[:n_wrong], 0.999
    return np.where(np.arange(2) == likely[:, None], sure[:, None], 1 - sure[:, None])


def _changed(pairs: Pairs, n_rows: int, change: Callable[[str], str]) -> Pairs:
    return [(change(text), label) if place < n_rows else (text, label) for place, (text, label) in enumerate(pairs)]


def _marked(pairs: Pairs) -> Pairs:
    return [(text + " #" * (label == "a"), label) for text, label in pairs]


TRAIN, TEST = sound(400), sound(200, seed=1)
LONG = " ".join(f"word{'x' * number}" for number in range(30))
GERMAN = "das ist nicht der Weg und wir sind auch noch nicht da"
SHORT_A = [(" ".join(text.split()[: 3 if label == "a" else None]), label) for text, label in TRAIN]
RARE = [(f"rare {number}", "c") for number in range(4)]
PREPARED = replace(sound_data(validation=sound(100, seed=2)), prepared=True)

# For each check: what it finds, and rows in which it does.
FIRES: dict[str, dict[str, Evidence]] = {
    "empty": {
        "empty_text": evidence(sound_data(train=[*TRAIN, ("\u200b", "a")])),
        "empty_label": evidence(sound_data(train=[*TRAIN, ("x", " ")])),
    },
    "class_size": {
        "small_class": evidence(sound_data(train=[*TRAIN, ("x", "c")])),
        "single_class": evidence(dataset(train=[(text, "a") for text, _ in TRAIN])),
    },
    "unseen_label": {"unseen_label": evidence(sound_data(test=[*TEST, ("x", "c"), ("y", "c")]))},
    "leak": {"leak_train_test": evidence(sound_data(test=[*TEST, TRAIN[0]]))},
    "conflicts": {"conflicting_labels": evidence(sound_data(train=[*TRAIN, ("same text", "a"), ("same text", "b")]))},
    "lookalike_labels": {"lookalike_labels": evidence(sound_data(train=[*TRAIN, ("x", "A"), ("y", "A")]))},
    "duplicates": {"duplicate_text": evidence(sound_data(train=[*TRAIN, TRAIN[3]]))},
    "near_duplicates": {
        "near_duplicates_train_test": evidence(
            sound_data(train=[*TRAIN, (LONG, "a")], test=[*TEST, (f"{LONG} z", "a")])
        ),
        "near_duplicates_train": evidence(sound_data(train=[*TRAIN, (LONG, "a"), (f"{LONG} z", "a")])),
    },
    "grouping": {"grouped_by_label": evidence(sound_data(train=sorted(TRAIN, key=lambda pair: pair[1])))},
    "prior_shift": {"prior_shift": evidence(sound_data(test=sound(200, seed=1, shares=(0.8, 0.2))))},
    "split_shift": {"split_shift": evidence(sound_data(test=_changed(TEST, 150, str.lower)))},
    "shortcut": {
        "shortcut": evidence(sound_data(test=_marked(TEST))),
        "surface_tells_label": evidence(
            sound_data(train=[(text + " #" * (label == "a"), label) for text, label in TRAIN])
        ),
    },
    "debris": {
        "html_tags": evidence(sound_data(train=_changed(TRAIN, 1, "<br />{}".format))),
        "html_entities": evidence(sound_data(train=_changed(TRAIN, 1, "{} &amp; more".format))),
        "html_remnants": evidence(sound_data(train=_changed(TRAIN, 1, "a href http {}".format))),
        "misread_utf8": evidence(sound_data(train=_changed(TRAIN, 1, "don\u00e2\u0080\u0099t {}".format))),
        "replacement_characters": evidence(sound_data(train=_changed(TRAIN, 1, "\ufffd {}".format))),
        "control_characters": evidence(sound_data(train=_changed(TRAIN, 1, "\x97 {}".format))),
        "escape_sequences": evidence(sound_data(train=_changed(TRAIN, 1, "one\\n Two {}".format))),
        "links": evidence(sound_data(train=_changed(TRAIN, 8, "{} https://x.org/a".format))),
    },
    "scripts": {"other_script": evidence(sound_data(train=[*TRAIN, *[(f"привет мир {n}", "a") for n in range(6)]]))},
    "languages": {
        "other_language": evidence(
            sound_data(
                train=[
                    *[(f"it was the best of all {text}", label) for text, label in TRAIN],
                    *[(f"{GERMAN} {number}", "a") for number in range(6)],
                ]
            )
        )
    },
    "length_by_class": {"length_by_class": evidence(sound_data(train=SHORT_A))},
    "giveaway_column": {
        "giveaway_column": evidence(
            replace(sound_data(), beside={"kind": Counter({("x", "a"): 200, ("y", "b"): 190, ("y", "a"): 10})})
        )
    },
    "rare_class": {"rare_class": evidence(replace(sound_data(train=[*TRAIN, *RARE]), prepared=True))},
    "class_in_one_split": {
        "class_in_one_split": evidence(replace(sound_data(train=[*TRAIN, ("x", "c"), ("y", "c")]), prepared=True))
    },
    "long_texts": {"long_texts": evidence(lengths=Lengths({"train": np.array([9, 4, 4])}, 8, False))},
    "label_errors": {"label_errors": evidence(PREPARED, probabilities={"train": probabilities(PREPARED, n_wrong=20)})},
}
SOUND: dict[str, Evidence] = {
    "files": evidence(),
    "splits": evidence(PREPARED),
    "tokens": evidence(lengths=Lengths({"train": np.array([8, 4, 4])}, 8, False)),
    "probe": evidence(PREPARED, probabilities={"train": np.eye(2)[PREPARED.label_ids("train")]}),
}
