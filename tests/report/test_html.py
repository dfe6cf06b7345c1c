from typing import Any

import pytest
from pages import Structure
from sample import make_histories, make_results, with_foreign_text

from textlift.evaluation.soundness import soundness
from textlift.report.html import render_comparison_html, render_html
from textlift.report.wording import MISSING


def words(page: str) -> str:
    return " ".join(Structure(page).text.split())


def sections(page: str) -> set[str]:
    return {value for name, value in Structure(page).values if name == "id"}


def test_style_sheet_opens_no_url() -> None:
    page = render_html(make_results(), make_histories(steps=60))
    style = page[page.index("<style>") : page.index("</style>")]
    assert not [word for word in ("url(", "@import", "@font-face", "http") if word in style]


def test_policy_allows_nothing_but_inline_style() -> None:
    page = render_html(make_results(), {})
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert page.index("Content-Security-Policy") < page.index("<style>")


@pytest.mark.parametrize("n_classes", [2, 20, 21, 25, 150])
def test_every_number_of_classes_closes_all_its_elements(n_classes: int) -> None:
    page = Structure(render_html(make_results([f"class {label}" for label in range(n_classes)]), make_histories()))
    assert page.open == []


def test_ids_are_unique_and_every_anchor_has_its_place() -> None:
    values = Structure(render_html(make_results(), make_histories())).values
    ids = [value for name, value in values if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for name, value in values if name == "href"} <= set(ids)
    assert {part for name, value in values if name == "aria-labelledby" for part in value.split()} <= set(ids)


def test_verdict_comes_first() -> None:
    results = make_results()
    page = render_html(results, {})
    assert f">{results['verdict']}</h1>" in page
    assert page.index("<h1 ") < page.index("<h2>")


def test_verdict_stands_with_the_gain_over_the_strongest_baseline() -> None:
    text = words(render_html(make_results(), {}))
    assert "Over the strongest baseline +5.4 points +4.1 to +6.6, tfidf" in text


def test_comparison_with_the_baseline_first_is_turned_around() -> None:
    results = make_results()
    item = next(item for item in results["comparisons"] if {item["a"], item["b"]} == {"lora", "tfidf"})
    before = render_html(results, {})
    item.update(a="tfidf", b="lora", difference=-item["difference"], low=-item["high"], high=-item["low"])
    assert render_html(results, {}) == before


def test_comparison_says_what_it_shows() -> None:
    text = Structure(render_html(make_results(), {})).text
    assert "lora is better" in text
    assert "no difference shown" in text


def test_log_loss_is_better_when_lower() -> None:
    results = make_results()
    results["comparisons"] = [{"a": "lora", "b": "tfidf", "metric": "log_loss", "difference": -0.2, "low": -0.3,
                               "high": -0.1, "p_value": None, "n": 2000}]  # fmt: skip
    text = Structure(render_html(results, {})).text
    assert "lora is better" in text
    assert "\N{MINUS SIGN}0.200" in text


def test_report_without_comparisons_checks_or_histories_says_so() -> None:
    results = make_results()
    results["comparisons"] = results["checks"] = []
    page = render_html(results, {})
    assert "No variants were compared." in page
    assert "Nothing to complain about." in page
    assert "learning" not in sections(page)


def test_learning_curves_show_every_trained_variant() -> None:
    page = render_html(make_results(), make_histories(("lora", "full")))
    assert {"learning", "curve-loss-title", "curve-accuracy-title"} <= sections(page)
    assert page.count('class="key"') == 2


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_head_fitted_anew_is_told_below_the_curves_and_marked_where_it_was_kept(
    is_kept: bool,
) -> None:
    histories = make_histories(("lora",))
    last = histories["lora"][-1]["step"]
    histories["lora"] += [
        {"step": last, "epoch": 1.0, "validation": {"accuracy": 0.987, "log_loss": 0.1}},
        {"step": last, "epoch": 1.0, "validation": {"accuracy": 0.123, "log_loss": 0.5}}
        | {"is_refit": True, "is_kept": is_kept},
    ]
    text = Structure(render_html(make_results(), histories)).text
    assert ("98.7 %" in text[: text.index("The last point is of the head")]) == (not is_kept)
    assert "fitted anew" not in Structure(render_html(make_results(), make_histories(("lora",)))).text


def test_many_classes_are_told_as_the_pairs_confused_most() -> None:
    page = render_html(make_results([f"intent {label}" for label in range(25)]), {})
    assert "Share of the true class" in page
    assert "matrix-1-title" not in sections(page)


def test_many_classes_show_the_weakest_and_fold_the_rest() -> None:
    assert "The 30 weakest of 150 classes." in render_html(make_results([f"intent {n}" for n in range(150)]), {})


def test_errors_of_the_checks_come_first_and_are_named_in_words() -> None:
    text = Structure(render_html(make_results(), {})).text
    found = text[text.index("What the checks found") :]
    assert found.index("error") < found.index("warning") < found.index("info")


def test_the_first_page_says_what_stands_against_the_figures_and_what_to_do() -> None:
    page = render_html(make_results(), {})
    header = words(page[: page.index("<nav")])
    assert "What stands against these figures The checks found one thing against these scores, of" in header
    assert "0.5 % of the test rows are also in train, 3 of them with another label." in header
    assert "What to do next Take them out." in header
    assert "Without the 11 test rows that leaked, lora is right on 90.0 %, not 9" in header


def test_a_sound_run_is_said_to_be_one_and_to_be_ready() -> None:
    page = render_html({**make_results(), "soundness": soundness([])}, {})
    header = words(page[: page.index("<nav")])
    assert "nothing that stands against these scores" in header
    assert "Use the model: textlift predict RUN/lora texts.csv" in header


def test_results_of_an_older_version_say_nothing_of_soundness() -> None:
    results = make_results()
    del results["soundness"]
    assert "stands against these figures" not in render_html(results, {})


def test_a_finding_is_shown_with_why_it_matters_and_where_its_rows_stand() -> None:
    found = words(render_html(make_results(), {}))
    assert "Memory is no skill. Take them out." in found
    assert "all in findings/leak_train_test.csv" in found


def test_wrong_example_names_both_labels_and_its_place() -> None:
    results = make_results()
    del results["error_book"]  # of an older version
    text = words(render_html(results, {}))
    assert "joy 99.1 %, labelled sadness test.csv, row 2" in text


def test_usage_quotes_a_variant_name_for_the_shell() -> None:
    text = Structure(render_html(with_foreign_text(make_results(), "$(rm x) "), {})).text
    assert "textlift predict 'RUN/$(rm x) lora' texts.csv" in text


def test_recipe_is_shown_as_yaml() -> None:
    text = Structure(render_html(make_results(), {})).text
    assert "method:\n  name: lora\n  rank: 16\n" in text


def test_unfinished_run_is_told() -> None:
    assert "This run is not complete." in render_html({**make_results(), "status": "stopped"}, {})


def test_figures_that_were_not_measured_leave_a_dash() -> None:
    results = make_results(variants=0)
    empty: dict[str, Any] = {"train_seconds": None, "samples_per_second": None, "useful_tokens_per_second": None}
    results["variants"]["lora"].update(empty, peak_memory_bytes=None, total_parameters=0)
    assert f"Training time {MISSING} " in words(render_html(results, {}))


def test_same_results_give_the_same_page() -> None:
    assert render_html(make_results(), make_histories()) == render_html(make_results(), make_histories())


def test_comparison_names_runs_verdicts_and_differing_rows() -> None:
    other = make_results(["negative", "positive"])
    other["name"], other["task"]["rows"]["test"] = "sst2", 872
    page = Structure(render_comparison_html([make_results(), other]))
    assert "2 runs compared" in page.text
    assert page.text.count("lora lifts accuracy over tfidf") == 2
    assert "The runs were tested on different rows (2,000 / 872)" in page.text
    assert page.open == []
