"""Features of the frozen base model kept in the run, so that rows like a given one can be told later.

Kept as unit rows in half precision; of a large split a seeded sample.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textlift.data import Dataset
from textlift.errors import CheckpointError
from textlift.evaluation.error_book import nearest_rows, unit_rows
from textlift.runs import RunDirectory
from textlift.storage import storing, write_whole
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.preparation import Job

FILE = "features.safetensors"
MOST_BYTES = 64 << 20  # of a split
NEAREST = 3
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class KeptFeatures:
    """Places of rows of train and test, and their unit features, (M, D)."""

    rows: dict[str, npt.NDArray[np.int64]]
    unit: dict[str, npt.NDArray[np.float16]]

    def of_test(self, place: int) -> npt.NDArray[np.float16] | None:
        """Features of a test row, (D,); None where it was not kept."""
        found = int(np.searchsorted(self.rows["test"], place))
        is_kept = found < len(self.rows["test"]) and self.rows["test"][found] == place
        return self.unit["test"][found] if is_kept else None


def keep_features(run: RunDirectory, job: Job, frozen: FrozenPass) -> None:
    """Write the features of train and test to the run where the whole frozen pass was made; none is made for it.

    Called before what made the pass is recorded as done: a run that is continued finds them.

    Raises:
        StorageError: The disk refuses.
    """
    from safetensors.numpy import save

    path = run.path / FILE
    if not (frozen.is_whole and frozen.is_made) or path.is_file():
        return
    arrays: dict[str, np.ndarray] = {}
    for number, split in enumerate(_SPLITS):
        features = frozen.features(split)
        most = max(1, MOST_BYTES // (2 * features.shape[1]))
        places = np.arange(len(features))
        if len(places) > most:
            draw = np.random.default_rng([job.recipe.seed, number])
            places = np.sort(draw.choice(len(features), most, replace=False))
        arrays[f"{split}_rows"] = places
        arrays[f"{split}_unit"] = unit_rows(features[places]).astype(np.float16)
    with storing(path):
        write_whole(path, save(arrays))


def kept_features(run: RunDirectory) -> KeptFeatures | None:
    """The features that a run kept, or None where it made no frozen pass.

    Raises:
        CheckpointError: The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = run.path / FILE
    if not path.is_file():
        return None
    try:
        arrays = load(path.read_bytes())
        return KeptFeatures(
            {split: arrays[f"{split}_rows"] for split in _SPLITS},
            {split: arrays[f"{split}_unit"] for split in _SPLITS},
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: must hold features that textlift wrote; it cannot be read.") from error


def nearest_train_rows(
    kept: KeptFeatures, queries: npt.NDArray[np.floating], dataset: Dataset, *, most_characters: int
) -> list[list[dict[str, object]]]:
    """The training rows nearest to each query by cosine of the frozen features, as records, nearest first."""
    if not len(queries):
        return []
    rows = dataset.splits["train"]
    found, similar = nearest_rows(queries, kept.unit["train"], k=NEAREST)
    return [
        [
            {
                "source": rows.sources[place],
                "row": rows.row_numbers[place],
                "label": dataset.name_of(rows.labels[place]),
                "text": rows.texts[place][:most_characters],
                "similarity": round(float(value), 3),
            }
            for place, value in zip(kept.rows["train"][places].tolist(), values, strict=True)
        ]
        for places, values in zip(found, similar, strict=True)
    ]
