import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from sample import make_results, with_foreign_text

from textlift.report import wording
from textlift.report.table import (
    comparison_markdown,
    comparison_notes,
    comparison_text,
    headline,
    html_fragment,
    markdown_table,
    run_titles,
    strongest_baseline,
    text_table,
)

HOSTILE_NAMES = ["a|b", "`code`", "two\nlines", "<b>bold</b>", "[x](http://evil.example)", "http://evil.example",
                 "www.evil.example", "\u202eabc", "\x1b[31mred", "\x00", "日本語" * 40, "w" * 10_000]  # fmt: skip


def rows_of(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def n_cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def test_markdown_names_every_variant_under_the_verdict() -> None:
    results = make_results()
    verdict, *_ = markdown_table(results).splitlines()
    assert verdict == f"**Verdict:** {results['verdict']}"
    assert [row.split(" | ")[0][2:] for row in rows_of(markdown_table(results))[2:]] == list(results["variants"])


def test_markdown_shows_percentages_and_thousands() -> None:
    row = rows_of(markdown_table(make_results()))[6]
    assert "445,446 (1.9 %)" in row
    assert "6 min 12 s" in row
    assert re.search(r"\d\d\.\d % \(\d\d\.\d to \d\d\.\d\)", row)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_markdown_keeps_its_cells_whatever_the_names(name: str) -> None:
    markdown = markdown_table(with_foreign_text(make_results(), name))
    assert {n_cells(row) for row in rows_of(markdown)} == {10}
    assert not re.search(r"<|(?<!\\)`|(?<![:\\])://|\bwww\.|\x1b|\x00|\u202e", markdown.replace("< 0.1 %", ""))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_terminal_lines_are_printable_and_at_most_100_columns(name: str) -> None:
    results = with_foreign_text(make_results(), name)
    for table in (text_table(results), comparison_text([results, make_results()])):
        assert max(map(wording.display_width, table.splitlines())) <= 100
        assert all(character.isprintable() for line in table.splitlines() for character in line)


def test_terminal_columns_are_aligned() -> None:
    table = text_table(make_results())
    heading, rule, *rows = table.split("\n\n")[1].splitlines()[1:]
    assert {len(line) for line in (heading, rule, *rows)} == {len(rule)}


def test_terminal_table_of_one_variant_has_one_row() -> None:
    table = text_table(make_results(variants=0))
    assert len(table.split("\n\n")[1].splitlines()) == 4


def test_what_stands_against_the_scores_follows_the_verdict() -> None:
    lines = text_table(make_results()).splitlines()
    assert lines[1].startswith("The checks found one thing against these scores")
    assert lines[2].startswith("- 0.5 % of the test rows are also in train")
    assert "**Data:** The checks found one thing against these scores" in markdown_table(make_results())


def test_results_of_an_older_version_have_no_line_on_the_data() -> None:
    results = make_results()
    del results["soundness"]
    assert text_table(results).splitlines()[1] == ""
    assert "**Data:**" not in markdown_table(results)


def test_report_is_about_the_variant_of_the_examples() -> None:
    results = make_results()
    results["examples"]["variant"] = "full"
    assert headline(results) == "full"


def test_report_is_about_the_best_tuned_variant_where_no_example_names_one() -> None:
    results = make_results()
    results["examples"]["variant"] = None
    assert headline(results) == "lora"


def test_report_is_about_a_baseline_where_nothing_was_tuned() -> None:
    results = make_results()
    del results["variants"]["lora"], results["variants"]["full"], results["variants"]["merged"]
    assert headline(results) == "tfidf"


def test_strongest_baseline_is_the_hardest_to_beat_on_test() -> None:
    assert strongest_baseline(make_results()) == "tfidf"
    assert strongest_baseline(make_results(variants=0)) is None


def test_runs_of_the_same_name_are_numbered() -> None:
    titles = run_titles([make_results(), make_results()])
    assert titles[1] == f"{titles[0]} (2)"


def test_notes_say_that_test_rows_differ_in_number() -> None:
    other = make_results()
    other["task"]["rows"]["test"] = 872
    assert comparison_notes([make_results(), other]) == [
        "The runs were tested on different rows (2,000 / 872): their scores cannot be compared directly."
    ]


def test_notes_say_that_equally_many_test_rows_are_not_the_same() -> None:
    first, second = make_results(), make_results()
    first["task"]["test_fingerprint"], second["task"]["test_fingerprint"] = "a", "b"
    assert "not the same ones" in comparison_notes([first, second])[0]


def test_notes_are_empty_for_runs_on_the_same_rows() -> None:
    assert comparison_notes([make_results(), make_results()]) == []


def test_comparisons_hold_every_run_and_variant() -> None:
    runs = [make_results(), make_results(["negative", "positive"], variants=2)]
    assert len(rows_of(comparison_markdown(runs))) == 2 + 7 + 3
    assert comparison_text(runs).count("lora lifts accuracy") == 2
    assert "Note: The runs do not have the same label names." in comparison_text(runs)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_notebook_table_has_the_same_elements_whatever_the_names(name: str) -> None:
    def elements(page: str) -> list[str]:
        found: list[str] = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: found.append(f"{tag} {attributes}")  # type: ignore[method-assign]
        parser.feed(page)
        return found

    assert elements(html_fragment(with_foreign_text(make_results(), name))) == elements(html_fragment(make_results()))


def test_tables_import_nothing_heavy() -> None:
    code = (
        "import sys, textlift.report.table; print({'torch', 'numpy', 'jinja2', 'yaml', 'sklearn'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.percent(0.9314), "93.1 %"),
        (wording.percent(0.0001), "< 0.1 %"),
        (wording.percent(None), wording.MISSING),
        (wording.percent(float("nan")), wording.MISSING),
        (wording.points(0.061), "+6.1"),
        (wording.points(-0.0123), "\N{MINUS SIGN}1.2"),
        (wording.points(-0.0001), "0.0"),
        (wording.difference(-0.25, "log_loss"), "\N{MINUS SIGN}0.250"),
        (wording.p_value(0.0), "< 0.001"),
        (wording.whole(22_713_216), "22,713,216"),
        (wording.duration(0.42), "0.4 s"),
        (wording.duration(59.6), "1 min 00 s"),
        (wording.duration(3_900), "1 h 05 min"),
        (wording.memory(1_310_000_000), "1.2 GiB"),
        (wording.moment("2026-05-12T14:03:20.481516+00:00"), "2026-05-12 14:03:20 UTC"),
        (wording.clip("abcdef", 4), "abc…"),
        (wording.clip("日本語", 4), "日…"),
        (wording.visible("a\u202eb\x00\ud800\n"), "a\\u202eb\\u0000\\ud800\\n"),
        (wording.visible("\u0645\u06cc\u200c\u062f"), "\u0645\u06cc\u200c\u062f"),
        (wording.visible("e" + 6 * "\u0301"), "e" + 4 * "\u0301" + 2 * "\\u0301"),
        (wording.wrap("one two three", 8), "one two\nthree"),
        (wording.wrap("abcdefghij", 4), "abcd\nefgh\nij"),
    ],
)
def test_numbers_and_texts_are_shown_the_same_everywhere(shown: str, expected: str) -> None:
    assert shown == expected
