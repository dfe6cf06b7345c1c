"""Whatever names say, the front matter of a model card reads back and its body holds no markup of theirs."""

import ast
import re
from typing import Any

import pytest
import yaml
from hostile import PAYLOADS, label
from pages import Structure

from textlift.export.card import model_card
from textlift.export.saving import SavedSettings

each = pytest.mark.parametrize("payload", PAYLOADS, ids=label)
KINDS = [("adapter", "native"), ("adapter", "mean"), ("model", "native"), ("model", "mean")]
SCORE = {"n": 1234, "accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "f1_macro": 0.8}


def card(text: str, kind: str = "adapter", pooling: str = "native") -> str:
    names = (text, f"{text} two", f"a {text}")
    settings = SavedSettings(kind, "lora", text, f"{text}/base", None, {}, pooling, 128, names, names)
    record: dict[str, Any] = {"method": "lora", "trained_parameters": 10, "total_parameters": 1000, "test": SCORE}
    return model_card(record, settings, name=f"run {text}", dataset=f"{text}.csv")


def parts(written: str) -> tuple[str, str, str]:
    """Front matter, code and the body without its code."""
    _, front, body = written.split("---\n", 2)
    found = re.search(r"```python\n(.*?)```\n", body, re.DOTALL)
    assert found is not None
    return front, found[1], body.replace(found[0], "")


@each
@pytest.mark.parametrize(("kind", "pooling"), KINDS)
def test_the_front_matter_reads_back_to_the_same_values(payload: str, kind: str, pooling: str) -> None:
    front, _, _ = parts(card(payload, kind, pooling))
    library = {"adapter": "peft"}.get(kind, {"native": "transformers"}.get(pooling, "sentence-transformers"))
    assert yaml.safe_load(front) == {
        "base_model": f"{payload}/base",
        "library_name": library,
        "pipeline_tag": "text-classification",
        "tags": ["textlift"],
    }
    assert front.isascii()
    assert len(front.splitlines()) == 4


@each
def test_the_body_holds_no_html_and_no_markup_of_others(payload: str) -> None:
    usage = '`textlift.load("FOLDER").predict(["a text"])`'
    body, ours = (parts(card(text))[2].replace(usage, "") for text in (payload, "plain"))
    bare = re.sub(r"\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt);", "", body)
    assert len(body.splitlines()) == len(ours.splitlines())
    assert not re.search(r"[<>\[\]~$@{}!\\]|://|\bwww\.", bare)
    assert {mark: bare.count(mark) for mark in "#*|`_"} == {mark: ours.count(mark) for mark in "#*|`_"}
    assert not [one for one in card(payload) if not (one.isprintable() or one in "\n\u200c\u200d\u3000\xa0")]


@each
@pytest.mark.parametrize(("kind", "pooling"), KINDS)
def test_the_code_is_python_with_the_names_as_they_are(payload: str, kind: str, pooling: str) -> None:
    _, code, _ = parts(card(payload, kind, pooling))
    assert code.isascii()
    tree = ast.parse(code)
    lists = [ast.literal_eval(node.value) for node in ast.walk(tree)
             if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "label_names"]  # fmt: skip
    assert lists == ([[payload, f"{payload} two", f"a {payload}"]] if (kind, pooling) == KINDS[0] else [])
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert (f"{payload}/base" in strings) == ((kind, pooling) == KINDS[1])


@each
def test_the_card_renders_to_the_same_elements(payload: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    render = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render

    def elements(text: str) -> list[tuple[str, tuple[str, ...]]]:
        return Structure(render(card(text).split("---\n", 2)[2])).elements

    assert elements(payload) == elements("plain")
