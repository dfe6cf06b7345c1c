"""Whatever texts, labels and names say, report, tables and terminal keep their shape and nothing of it runs."""

import io
import re
import unicodedata
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hostile import PAYLOADS, label
from pages import Structure
from sample import HARMLESS, make_histories, make_results, with_foreign_text

from textlift.errors import (
    DataError,
    InputNotFoundError,
    MissingExtraError,
    RecipeError,
    StorageError,
    TextliftError,
)
from textlift.escaping import visible
from textlift.progress import Progress
from textlift.recipe import parse_recipe
from textlift.report.html import render_comparison_html, render_html
from textlift.report.table import comparison_markdown, comparison_text, html_fragment, markdown_table, text_table
from textlift.report.wording import display_width

each = pytest.mark.parametrize("payload", PAYLOADS, ids=label)

# Control, format, surrogate and line-breaking characters, the bidirectional ones among them.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
FORBIDDEN_ELEMENTS = {"script", "iframe", "object", "embed", "img", "base", "form", "link", "frame", "applet"}
FORBIDDEN_ATTRIBUTES = {"src", "srcset", "action", "formaction", "data", "srcdoc", "xlink:href", "ping", "poster"}


@cache
def results_with(text: str) -> dict[str, Any]:
    changed: dict[str, Any] = with_foreign_text(make_results(), text)
    return changed


@cache
def report_with(text: str) -> str:
    named = {f"{text}{name}": history for name, history in make_histories(steps=60).items()}
    return render_html(results_with(text), named)


@cache
def comparison_with(text: str) -> str:
    return render_comparison_html([results_with(text), make_results()])


@cache
def parsed(page: str) -> Structure:
    return Structure(page)


def hidden_in(text: str) -> set[str]:
    """Characters that a screen obeys instead of showing them; joiners of scripts and emoji are none."""
    return {one for one in text if unicodedata.category(one) in HIDDEN and one not in "\n\u200c\u200d"}


def test_there_are_over_a_hundred_payloads() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) > 100


# ---- report and comparison


@each
@pytest.mark.parametrize("page", [report_with, comparison_with], ids=["report", "comparison"])
def test_a_page_has_the_same_nodes_whatever_the_names(page: Any, payload: str) -> None:
    found = parsed(page(payload))
    assert found.elements == parsed(page(HARMLESS)).elements
    assert found.open == []


@each
@pytest.mark.parametrize("page", [report_with, comparison_with], ids=["report", "comparison"])
def test_a_page_runs_nothing_and_opens_no_url(page: Any, payload: str) -> None:
    found = parsed(page(payload))
    names = {name for name, _ in found.values}
    assert not {tag for tag, _ in found.elements} & FORBIDDEN_ELEMENTS
    assert not {name for name in names if name.startswith("on")} | names & FORBIDDEN_ATTRIBUTES
    assert all(re.fullmatch(r"#[a-z-]+", value) for name, value in found.values if "href" in name)
    assert not [value for _, value in found.values if "url(" in value or "evil" in value or "script" in value]
    assert [value for name, value in found.values if name == "http-equiv"] == ["Content-Security-Policy"]


@each
def test_ids_classes_and_styles_are_ours_alone(payload: str) -> None:
    ours = {"id", "class", "style", "href", "aria-labelledby", "role", "tone"}

    def kept(text: str) -> list[tuple[str, str]]:
        values = [(name, value) for name, value in parsed(report_with(text)).values if name in ours]
        # Room for names differs, and a long verdict is set smaller.
        return [(name, re.sub(r"[\d.]+px", "px", re.sub("long|medium", "short", value))) for name, value in values]

    assert kept(payload) == kept(HARMLESS)


@each
@pytest.mark.parametrize("page", [report_with, comparison_with], ids=["report", "comparison"])
def test_no_character_that_a_screen_obeys_reaches_a_page(page: Any, payload: str) -> None:
    page(payload).encode()
    assert hidden_in(page(payload)) == set()


@pytest.mark.parametrize("payload", [one for one in PAYLOADS if visible(one) == one and len(one) < 400], ids=label)
def test_a_page_shows_the_text_as_written(payload: str) -> None:
    assert f"{payload}i didn t feel humiliated".strip() in parsed(report_with(payload)).text


@each
def test_a_notebook_table_has_the_same_nodes_whatever_the_names(payload: str) -> None:
    def elements(page: str) -> list[str]:
        found: list[str] = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: found.append(f"{tag} {attributes}")  # type: ignore[method-assign]
        parser.handle_comment = found.append  # type: ignore[method-assign]
        parser.feed(page)
        return found

    shown = html_fragment(results_with(payload))
    assert elements(shown) == elements(html_fragment(results_with(HARMLESS)))
    assert hidden_in(shown) == set()


# ---- Markdown


def bare(markdown: str) -> str:
    """Markdown without what is escaped in it."""
    return re.sub(r"\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt);", "", markdown)


@each
def test_markdown_keeps_its_rows_and_holds_no_markup_of_others(payload: str) -> None:
    for write in (
        lambda text: markdown_table(results_with(text)),
        lambda text: comparison_markdown([results_with(text)]),
    ):
        shown, harmless = write(payload), write(HARMLESS)
        assert len(shown.splitlines()) == len(harmless.splitlines())
        for line, same in zip(shown.splitlines(), harmless.splitlines(), strict=True):
            assert bare(line).count("|") == same.count("|")
            assert bare(line).count("*") == same.count("*")
            assert not re.search(r"<(?! 0\.1 %)|[`\[\]~$#@{}!_\\]|://|\bwww\.", bare(line))
        assert hidden_in(shown) == set()


@each
def test_markdown_renders_to_the_same_elements(payload: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    render = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render

    def elements(text: str) -> list[tuple[str, tuple[str, ...]]]:
        page = render(markdown_table(results_with(text)) + "\n" + comparison_markdown([results_with(text)]))
        return Structure(page).elements

    assert elements(payload) == elements(HARMLESS)


# ---- terminal


@each
def test_tables_on_a_terminal_are_printable_and_at_most_100_columns(payload: str) -> None:
    for table in (text_table(results_with(payload)), comparison_text([results_with(payload), make_results()])):
        assert hidden_in(table) == set()
        assert max(map(display_width, table.splitlines())) <= 100


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@each
@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["lines", "bars"])
def test_progress_tells_one_printable_line(stream: type[io.StringIO], payload: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("textlift.progress._LINE_SECONDS", -1.0)
    place = stream()
    progress = Progress(place)
    progress.say(payload)
    said = place.getvalue().removeprefix("\r").removesuffix("\n")
    assert hidden_in(said.replace("\n", "\x00")) == set()
    with progress.task(payload, 2) as task:
        task.reach(1, payload)
    if stream is io.StringIO:
        assert place.getvalue().count("\n") == 2
    assert hidden_in(re.sub(r"\r|\x1b\[A", "", place.getvalue())) == set()  # tqdm's own way back to the line's start


@each
def test_an_error_is_printable_wherever_it_is_told(payload: str) -> None:
    for kind in (TextliftError, DataError, InputNotFoundError, StorageError, MissingExtraError):
        assert hidden_in(str(kind(f"{payload}: must be a file."))) == set()


# ---- names that become folders


@pytest.mark.parametrize("payload", [*PAYLOADS, "", "lora\n", "a/b", "lora\x00", ".hidden", "x" * 65], ids=label)
def test_the_name_of_a_run_or_variant_is_one_part_of_a_path_or_refused(payload: str) -> None:
    for values in (
        {"name": payload},
        {"variants": {payload: {}}},
        {"variants": {"lora": {}, "m": {"merge_of": payload}}},
    ):
        try:
            recipe = parse_recipe(values)
        except RecipeError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", payload)
        assert all(Path(name).parts == (name,) for name in (recipe.name, *recipe.variants))
