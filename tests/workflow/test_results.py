"""Scores beside those without the rows that leaked."""

from types import SimpleNamespace

import numpy as np

from textlift.data.dataset import Rows
from textlift.data.findings import Finding, Listing
from textlift.workflow.results import without_leaks


def rows(numbers: list[int]) -> Rows:
    return Rows(["text"] * len(numbers), ["a"] * len(numbers), numbers, ["test.csv"] * len(numbers))


def job(*findings: Finding) -> SimpleNamespace:
    dataset = SimpleNamespace(splits={"test": rows([1, 2, 3, 4])})
    labels, recipe = {"test": np.array([0, 0, 1, 1])}, SimpleNamespace(seed=0)
    return SimpleNamespace(dataset=dataset, labels=labels, findings=findings, recipe=recipe)


def found(code: str, numbers: list[int], *, earlier: str | None = None) -> Finding:
    listing = Listing((("test", rows(numbers)),))
    return Finding(code, "warning", "told", "test", len(numbers), earlier=earlier, listing=listing)


MEASURED = [SimpleNamespace(name="lora", logits={"test": np.array([[1, 0], [1, 0], [1, 0], [0, 1]])})]


def test_leaked_rows_are_left_out_of_the_second_score() -> None:
    leak = found("leak_train_test", [1], earlier="train")
    near = found("near_duplicates_validation_test", [2], earlier="validation")
    told = without_leaks(job(leak, near), MEASURED)
    assert told is not None
    assert (told["left_out"], told["n"], told["accuracy"]) == (2, 2, {"lora": 0.5})


def test_the_score_without_leaks_has_an_interval() -> None:
    told = without_leaks(job(found("leak_train_test", [1], earlier="train")), MEASURED)
    assert told is not None
    assert told["accuracy_low"]["lora"] <= told["accuracy"]["lora"] <= told["accuracy_high"]["lora"]


def test_rows_that_repeat_others_of_their_own_split_stay() -> None:
    assert without_leaks(job(found("near_duplicates_test", [1]), found("duplicate_text", [2])), MEASURED) is None


def test_there_is_no_second_score_where_every_row_leaked() -> None:
    assert without_leaks(job(found("leak_train_test", [1, 2, 3, 4], earlier="train")), MEASURED) is None
