"""Score against cost: which variants are on the frontier, names that never overlap, the budget in words."""

import random
from typing import Any
from xml.etree import ElementTree

import pytest
from hostile import PAYLOADS, label
from pages import Structure
from sample import HARMLESS, make_results, make_scores

from textlift.report.frontier import Point, budget_note, frontier, frontier_panels, tuned
from textlift.report.html import render_comparison_html, render_html
from textlift.report.labels import Place, Spot, place_names

NARROW, WIDE = 222.0, 560.0


def record(f1: float = 0.9, *, parameters: int = 1000, seconds: float | None = 9.0, **more: Any) -> dict[str, Any]:
    test = {"f1_macro": f1, "f1_macro_low": f1 - 0.01, "f1_macro_high": f1 + 0.01}
    facts = {"trained_parameters": parameters, "train_seconds": seconds, "peak_memory_bytes": 2**28 + parameters}
    return {"kind": "tuned", "test": test, **facts, "useful_tokens": 5000, "settings": {"max_seconds": None}, **more}


def plots(variants: dict[str, Any]) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(str(panel.plot)) for panel in frontier_panels(variants, key="k")]


def of_class(plot: ElementTree.Element, class_: str) -> list[ElementTree.Element]:
    return [element for element in plot.iter() if class_ in (element.get("class") or "").split()]


def several_tuned(n: int = 20) -> dict[str, Any]:
    """A run of n tuned variants, many of them as large and as good as their neighbours."""
    results = make_results()
    draw = random.Random(1)
    for number in range(n):
        scores = make_scores(0.8 + 0.01 * draw.randrange(12), 6, seed=number)
        facts = {"trained_parameters": draw.choice([2_310, 334_086, 334_086, 334_086, 22_700_000]), "test": scores}
        facts |= {"train_seconds": 40 + draw.random() * 60, "peak_memory_bytes": 2**30 + draw.randrange(2**28)}
        results["variants"][f"variant-{number}"] = {**results["variants"]["lora"], **facts}
    return results


def test_the_frontier_holds_what_no_other_beats() -> None:
    costs = {"cheap": (1, 0.7), "beaten": (3, 0.7), "better": (2, 0.8), "best": (9, 0.9), "as dear": (9, 0.85)}
    points = [Point(name, cost, score, low=score, high=score) for name, (cost, score) in costs.items()]
    assert [point.name for point in frontier(points)] == ["cheap", "better", "best"]


def test_two_that_are_equal_are_both_on_the_frontier() -> None:
    points = [Point(name, 1, 0.7, low=0.6, high=0.8) for name in ("a", "b")]
    assert frontier(points) == points


def test_there_is_a_panel_for_each_cost() -> None:
    panels = frontier_panels({"a": record(), "b": record(0.8, parameters=10**6)}, key="k")
    assert [panel.title for panel in panels] == ["Trained parameters", "Training time, seconds", "Peak memory, MiB"]


def test_a_cost_that_was_measured_of_one_variant_alone_has_no_panel() -> None:
    panels = frontier_panels({"a": record(), "b": record(seconds=None)}, key="k")
    assert [panel.title for panel in panels] == ["Trained parameters", "Peak memory, MiB"]


def test_one_variant_has_no_panel() -> None:
    assert frontier_panels({"a": record()}, key="k") == []


def test_each_variant_is_a_named_point_with_its_interval() -> None:
    plot = plots({"a": record(), "b": record(0.8, parameters=10**6)})[0]
    assert sorted(element.text or "" for element in of_class(plot, "spot-name")) == ["a", "b"]
    assert len(of_class(plot, "spot")) == len(of_class(plot, "range")) == 2
    assert [element.text for element in of_class(plot, "spot-name") if "front" in element.get("class", "")] == ["a"]


def test_ten_times_the_weights_are_the_same_step_wherever_they_begin() -> None:
    plot = plots({name: record(parameters=10**power) for name, power in (("a", 3), ("b", 4), ("c", 5))})[0]
    x = sorted(float(element.get("x1", "").rstrip("%")) for element in of_class(plot, "range"))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.02)


def test_the_description_tells_every_score_and_cost() -> None:
    plot = plots({"a": record(), "b": record(0.8, parameters=10**6)})[0]
    assert plot.findtext("desc") == (
        "a 90.0 % at 1,000 trained parameters, on the frontier; b 80.0 % at 1,000,000 trained parameters."
    )


@pytest.mark.parametrize("seed", range(12))
def test_no_name_covers_another_or_a_point_at_any_width(seed: int) -> None:
    draw = random.Random(seed)
    height = 202.0 + 12 * 15
    xs = [draw.choice([0.2, 0.5, 0.5, 0.51, 0.8, draw.uniform(0.05, 0.95)]) for _ in range(20)]
    ys = [draw.choice([60, 62, 64, draw.uniform(20, height - 10)]) for _ in range(20)]
    spots = [Spot(x, y, draw.randint(3, 14) * 6.7, y - 12, y + 12) for x, y in zip(xs, ys, strict=True)]
    places = place_names(spots, widths=(NARROW, WIDE), heights=(0, height), order=range(20))
    assert [covered(spots, places, width) for width in range(int(NARROW), int(WIDE) + 1, 2)] == [[]] * 170


def covered(spots: list[Spot], places: list[Place], width: float) -> list[tuple[int, int]]:
    """Pairs of names, or of a name and a point (numbered from 100), that cover each other; names outside the plot."""
    names = [(s.x * width + p.dx, s.y + p.dy, s.name_width / 2) for s, p in zip(spots, places, strict=True)]
    found = [(i, i) for i, (x, _, half) in enumerate(names) if x - half < -0.01 or x + half > width + 0.01]
    for i, (x, y, half) in enumerate(names):
        others = [(j, *names[j], 14.0) for j in range(i)]
        others += [(100 + j, spot.x * width, spot.y, 5.0, 12.0) for j, spot in enumerate(spots)]
        found += [(i, j) for j, ox, oy, reach, tall in others if abs(x - ox) < half + reach and abs(y - oy) < tall]
    return found


def test_a_name_wider_than_the_plot_is_drawn_all_the_same() -> None:
    spots = [Spot(0.5, 50, 900, 40, 60)]
    assert len(place_names(spots, widths=(NARROW, WIDE), heights=(0, 200), order=[0])) == 1


@pytest.mark.parametrize("n", [2, 20, 30])
def test_a_report_of_many_variants_closes_all_its_elements(n: int) -> None:
    page = render_html(several_tuned(n), {})
    assert Structure(page).open == []
    assert page.count('class="spot-name') == 3 * (n + 2)


def test_a_run_with_one_tuned_variant_has_no_such_section() -> None:
    results = make_results(variants=5)
    assert list(tuned(results["variants"])) == ["lora"]
    assert 'id="costs"' not in render_html(results, {})


@pytest.mark.parametrize("payload", PAYLOADS[::4], ids=label)
def test_hostile_names_add_no_element(payload: str) -> None:
    def page(text: str) -> Structure:
        results = make_results()
        results["variants"] = {f"{text}{name}": value for name, value in results["variants"].items()}
        results["examples"]["variant"] = f"{text}lora"
        results["comparisons"] = []
        return Structure(render_html(results, {}))

    kept = {"title", "desc", "text", "circle", "polyline", "script", "img", "style", "iframe", "h1", "section"}

    def counted(found: Structure) -> dict[str, int]:
        return {tag: sum(one == tag for one, _ in found.elements) for tag in kept}

    assert counted(page(payload)) == counted(page(HARMLESS))


def test_runs_on_the_same_rows_share_one_picture_and_others_get_their_own() -> None:
    first, second, third = make_results(), make_results(), make_results()
    for results, rows in ((first, "x"), (second, "x"), (third, "y")):
        results["task"]["test_fingerprint"] = rows
    third["name"] = "another"
    page = Structure(render_comparison_html([first, second, third]))
    ids = [value for name, value in page.values if name == "id"]
    assert [one for one in ids if one.startswith("costs-") and "-title" not in one and "-desc" not in one] == [
        "costs-1",
        "costs-2",
    ]
    assert len(ids) == len(set(ids))
    assert "lora 1" in page.text
    assert "full 2" in page.text
    assert page.open == []


def test_equal_tokens_are_told() -> None:
    same = {"a": record(), "b": record()}
    assert budget_note(same) == "Equal tokens: each was trained on 5,000 useful tokens."
    near = {"a": record(), "b": record(useful_tokens=5050)}
    assert budget_note(near) == "Equal tokens: each was trained on 5,000 to 5,050 useful tokens."


def test_equal_seconds_are_told_with_the_tokens_they_made() -> None:
    limited = {"settings": {"max_seconds": 30.0}, "seconds": 30.4}
    note = budget_note({"a": record(**limited), "b": record(useful_tokens=9000, **limited)})
    assert note == "Equal seconds: each was trained until 30 s of steps had passed, on 5,000 to 9,000 useful tokens."


def test_a_limit_of_seconds_that_one_did_not_reach_is_no_equal_budget() -> None:
    limited = {"settings": {"max_seconds": 30.0}}
    note = budget_note({"a": record(seconds=30.4, **limited), "b": record(useful_tokens=9000, seconds=12.0, **limited)})
    assert note == "No equal budget: they were trained on 5,000 to 9,000 useful tokens, in 12 s to 30 s."


def test_unequal_budgets_are_told() -> None:
    note = budget_note({"a": record(), "b": record(useful_tokens=9000, seconds=200.0)})
    assert note == "No equal budget: they were trained on 5,000 to 9,000 useful tokens, in 9.0 s to 3 min 20 s."


def test_runs_that_do_not_tell_their_tokens_have_no_note() -> None:
    old = record()
    del old["useful_tokens"]
    assert budget_note({"a": old, "b": record()}) == budget_note({"a": record()}) == ""


def test_the_note_stands_in_the_report() -> None:
    results = make_results()
    for variant in tuned(results["variants"]).values():
        variant["useful_tokens"] = 1000  # type: ignore[index]
    assert "Equal tokens: each was trained on 1,000 useful tokens." in Structure(render_html(results, {})).text
