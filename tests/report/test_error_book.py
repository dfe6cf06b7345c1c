"""The error book on the page: what it says, that nothing hangs on a colour, and that hostile text stays text."""

from typing import Any

import pytest
from hostile import PAYLOADS, label
from pages import Structure
from sample import make_results

from textlift.report.error_book import shade, slice_bar, view
from textlift.report.html import render_comparison_html, render_html


def page_of(results: dict[str, Any]) -> str:
    return render_html(results, {})


def section(results: dict[str, Any]) -> str:
    page = page_of(results)
    start = page.index('<section id="error-book">')
    return page[start : page.index("</section>", start) + len("</section>")]


def words(results: dict[str, Any]) -> str:
    return " ".join(Structure(section(results)).text.split())


def test_it_tells_how_much_is_wrong_and_where_the_rows_stand() -> None:
    assert "lora is wrong on 138 of 2,000 test rows (6.9 %). All rows of this section stand in error-book/" in words(
        make_results()
    )


def test_a_slice_stands_with_its_interval_the_rest_and_its_commonest_mistake() -> None:
    text = words(make_results())
    assert "with a hashtag 120 67.5 %58.0 to 76.0 94.0 % 90.0 % < 0.001 sadness taken for surprise: 20" in text
    assert "word love" not in text


def test_without_a_slice_below_the_rest_it_says_so_and_folds_the_lowest() -> None:
    results = make_results()
    for one in results["error_book"]["slices"]["shown"]:
        one["is_below"] = False
    results["error_book"]["slices"]["below"] = 0
    text = words(results)
    assert "None of 214 slices tried is significantly below the rest" in text
    assert "The lowest all the same" in text


def test_what_a_shade_says_stands_beside_it_in_words() -> None:
    assert "Carried by greedy +2.5, wrong +0.4; against it feel \N{MINUS SIGN}0.8" in words(make_results())


@pytest.mark.parametrize(
    ("weight", "class_"), [(2.0, "for4"), (0.9, "for2"), (0.1, ""), (-2.0, "against4"), (-0.3, "against1"), (0, "")]
)
def test_the_shade_of_a_word_follows_its_weight(weight: float, class_: str) -> None:
    assert shade(weight, 2.0) == class_


def test_words_that_carry_nothing_are_not_shaded() -> None:
    assert shade(0.0, 0.0) == ""


def test_near_training_rows_stand_with_label_and_by_what_they_are_near() -> None:
    text = words(make_results())
    assert "Near it in train (0.83): sadness" in text
    assert "by cosine of the features that the base model has before tuning" in text


def test_a_mistake_without_words_or_near_rows_is_its_text() -> None:
    results = make_results()
    results["error_book"]["nearest_by"] = ""
    for row in results["error_book"]["confident"]:
        row["nearest"], row["words"]["parts"] = [], []
    for row in results["error_book"]["changes"][0]["wrong"]:
        row["nearest"], row["words"] = [], None
    text = words(results)
    assert "Near it in train" not in text
    assert "i didn t feel humiliated" in text


def test_what_tuning_changed_is_counted_against_each_baseline_of_the_base() -> None:
    text = words(make_results())
    assert "Against probe, the same base model before tuning: 590 rows became right, 12 became wrong" in text
    assert "Against untrained" in text


def test_a_run_without_baselines_mistakes_or_doubts_says_so() -> None:
    results = make_results()
    results["error_book"].update(changes=[], confident=[], label_errors=[])
    text = words(results)
    assert "The run measured no baseline of the same base model." in text
    assert "Most confident mistakes None." in text
    assert "Too few rows of two classes" in text


@pytest.mark.parametrize("book", [None, "absent"])
def test_results_without_an_error_book_show_the_examples(book: Any) -> None:
    results = make_results()
    results["error_book"] = book
    if book == "absent":
        del results["error_book"]
    page = page_of(results)
    assert "error-book" not in {value for name, value in Structure(page).values if name == "id"}
    assert "Most confident and wrong" in page
    assert '<a href="#examples">its mistakes</a>' in page_of(
        {**results, "soundness": {**results["soundness"], "against": []}}
    )
    assert render_comparison_html([results, make_results()])


def test_a_bar_says_nothing_that_its_row_does_not_say() -> None:
    assert 'aria-hidden="true"' in slice_bar(0.7, 0.6, high=0.8, rest=0.9)


@pytest.mark.parametrize("payload", PAYLOADS, ids=label)
def test_a_hostile_word_is_text(payload: str) -> None:
    results = make_results()
    row = results["error_book"]["confident"][0]
    row["words"]["parts"][2][0] = payload
    row["nearest"][0]["text"] = row["label"] = payload
    results["error_book"]["slices"]["shown"][0]["slice"] = f"word {payload}"
    shown, harmless = Structure(section(results)), Structure(section(make_results()))
    assert shown.elements == harmless.elements
    assert [name for name, _ in shown.values] == [name for name, _ in harmless.values]


def test_a_mistake_is_never_told_as_entirely_sure() -> None:
    results = make_results()
    results["error_book"]["confident"][0]["probability"] = 0.99996
    assert "> 99.9 %, labelled" in words(results)


def test_a_view_of_no_book_is_none() -> None:
    assert view({"error_book": None}) is None
