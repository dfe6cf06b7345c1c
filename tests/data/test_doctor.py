"""Contracts over the table of checks: each finds what it is for, and nothing where nothing is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doctor_samples import FIRES, SOUND, evidence, probabilities, sound, sound_data

from textlift.data.checks import CHECKS, found_at
from textlift.data.findings import Finding, percent

CASES = [(name, code) for name, cases in FIRES.items() for code in cases]
BY_NAME = {check.name: check for check in CHECKS}


def found(name: str, code: str) -> list[Finding]:
    return [
        finding
        for stage in BY_NAME[name].stages
        for finding in found_at(stage, FIRES[name][code])
        if finding.code == code
    ]


def test_every_check_of_the_table_has_an_example() -> None:
    assert set(FIRES) == set(BY_NAME)


def test_every_finding_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-doctor.md").read_text(encoding="utf-8")
    codes = [code.replace("_train_test", "_A_B").removesuffix("_train") for _, code in CASES]
    assert [code for code in codes if f"`{code}" not in page] == []


@pytest.mark.parametrize(("name", "code"), CASES)
def test_a_check_finds_what_it_is_for(name: str, code: str) -> None:
    assert found(name, code)


@pytest.mark.parametrize(("name", "code"), CASES)
def test_a_finding_says_what_was_found_why_it_matters_and_what_to_do(name: str, code: str) -> None:
    finding = found(name, code)[0]
    assert finding.why.endswith(".")
    assert finding.advice or finding.severity == "error"
    assert finding.count > 0
    assert json.loads(json.dumps(finding.to_dict()))["code"] == code


@pytest.mark.parametrize("stage", SOUND)
def test_sound_rows_give_no_finding_at_any_stage(stage: str) -> None:
    assert [finding.message for finding in found_at(stage, SOUND[stage])] == []


@pytest.mark.parametrize("seed", range(5))
def test_sound_rows_of_other_draws_give_no_finding_either(seed: int) -> None:
    data = sound_data(train=sound(400, seed=seed), test=sound(120, seed=seed + 10))
    assert [finding.message for finding in found_at("files", evidence(data))] == []


@pytest.mark.parametrize(("name", "code"), CASES)
def test_the_file_of_a_finding_lists_as_many_rows_as_it_counts(name: str, code: str) -> None:
    for finding in found(name, code):
        if finding.listing is not None:
            assert len(finding.listing) == finding.count
            assert all(len(cells) == finding.count for cells in finding.listing.columns.values())


@pytest.mark.parametrize(("share", "told"), [(0.0, "0.0 %"), (0.0001, "< 0.1 %"), (0.165, "16.5 %")])
def test_a_share_is_never_shown_as_none(share: float, told: str) -> None:
    assert percent(share) == told


def test_labels_that_follow_their_probabilities_are_no_errors() -> None:
    data = SOUND["probe"].dataset
    seen = evidence(data, probabilities={"train": probabilities(data)})
    assert [finding.severity for finding in found_at("probe", seen) if finding.severity != "info"] == []


def test_planted_label_errors_are_most_of_what_is_found() -> None:
    (finding,) = found("label_errors", "label_errors")
    assert finding.listing is not None
    planted = sum(row <= 20 for row in finding.listing.parts[0][1].row_numbers)
    assert planted >= 18
    assert planted >= 0.5 * finding.count


def test_findings_of_rows_that_are_not_scored_do_not_stand_against_scores() -> None:
    (of_train,) = found("duplicates", "duplicate_text")
    (of_test,) = found("leak", "leak_train_test")
    assert (of_train.against_scores, of_test.against_scores) == (False, True)


def test_probabilities_that_promise_more_than_they_keep_are_not_trusted() -> None:
    seen = evidence(SOUND["probe"].dataset, probabilities={"train": probabilities(SOUND["probe"].dataset, n_wrong=120)})
    (finding,) = found_at("probe", seen)
    assert (finding.code, finding.severity) == ("label_errors_not_sought", "info")
    assert "do not hold there" in finding.message


def test_candidates_are_those_of_confident_learning_where_it_is_installed() -> None:
    pytest.importorskip("cleanlab")
    (finding,) = found("label_errors", "label_errors")
    assert "by confident learning (cleanlab)" in finding.message


def test_labels_drawn_from_their_probabilities_are_seldom_taken_for_errors() -> None:
    data, alarms = SOUND["probe"].dataset, 0
    for seed in range(100):
        given = np.random.default_rng(seed).dirichlet((0.3, 0.3), len(data.splits["train"]))
        drawn = np.where(np.random.default_rng(seed + 1).random(len(given)) < given[:, 0], "a", "b")
        splits = {**data.splits, "train": replace(data.splits["train"], labels=drawn.tolist())}
        seen = evidence(replace(data, splits=splits), probabilities={"train": given})
        alarms += any(finding.severity == "warning" for finding in found_at("probe", seen))
    assert alarms <= 4
