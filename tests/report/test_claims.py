"""What a report says about seeds, leaks, and how often the test rows were opened."""

from typing import Any

import pytest
from sample import make_ledger, make_results

from textlift.report import claims
from textlift.report.html import render_comparison_html, render_html
from textlift.report.table import comparison_markdown, comparison_text, markdown_table, text_table


def with_ledger(**ledger: Any) -> dict[str, Any]:
    return {**make_results(), "ledger": {**make_ledger(), **ledger}}


def test_rows_that_were_opened_once_are_told_so_and_not_in_red() -> None:
    told = claims.openings(with_ledger(openings=1, recipes=1, beside=[]))
    assert told is not None
    assert (told.sentence, told.is_doubtful) == ("The test rows were opened once, for this report.", False)


def test_several_recipes_on_the_same_test_rows_are_told_in_red_on_the_first_screen() -> None:
    page = render_html(make_results(), {})
    assert '<p class="grave">The test rows were opened 3 times, with 2 recipes, also by emotion-2 beside' in page
    assert page.index("opened 3 times") < page.index('id="scores"')


def test_one_recipe_that_was_run_again_chose_nothing() -> None:
    told = claims.openings(with_ledger(recipes=1))
    assert told is not None
    assert not told.is_doubtful
    assert "flatters" not in told.sentence


def test_the_terminal_table_tells_of_a_choice_by_test() -> None:
    assert "opened 3 times" in text_table(make_results())
    assert "opened" not in text_table(with_ledger(openings=1, recipes=1, beside=[]))


def test_results_without_a_ledger_say_nothing_of_openings() -> None:
    results = make_results()
    del results["ledger"]
    assert claims.openings(results) is None
    assert "were opened" not in render_html(results, {})


@pytest.mark.parametrize("render", [comparison_text, comparison_markdown, render_comparison_html])
def test_runs_on_the_same_test_rows_are_warned_of_as_chosen_by_test(render: Any) -> None:
    first, second = make_results(), make_results()
    for results in (first, second):
        results["task"]["test_fingerprint"] = "5f3c"
    assert "Chosen by test" in render([first, second])
    second["task"]["test_fingerprint"] = "other"
    assert "Chosen by test" not in render([first, second])


def test_the_leader_on_validation_is_named_where_another_leads_on_test() -> None:
    first, second = make_results(), make_results()
    for results in (first, second):
        results["task"]["test_fingerprint"] = "5f3c"
    second["variants"]["lora"]["test"]["accuracy"] = 0.99
    first["variants"]["full"]["validation"]["accuracy"] = 0.99
    (told,) = claims.chosen_by_test(["A", "B"], [first, second])
    assert told.endswith("On validation, which may choose, full of A leads, not lora of B.")


def test_the_spread_over_seeds_is_in_every_form_of_the_report() -> None:
    results = make_results()
    assert "lora: 3 seeds, accuracy 93.1 % ± 0.4 %" in text_table(results)
    assert "3 seeds" in markdown_table(results)
    assert 'id="seeds"' in render_html(results, {})


def test_scores_without_leaks_stand_beside_those_of_all_rows_with_their_intervals() -> None:
    row = claims.without_leaks(make_results())[0]
    assert (row.name, row.after, row.after_interval) == ("majority", 0.9, "89.0 to 91.0")
    assert 'id="leaks"' in render_html(make_results(), {})


def test_no_leaks_no_second_table() -> None:
    assert 'id="leaks"' not in render_html({**make_results(), "without_leaks": None}, {})
