import math
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from textlift.report.plots import (
    Bar,
    ClassBar,
    class_bars,
    confusion_matrix,
    difference_strip,
    learning_curves,
    most_confused,
    score_bars,
    thin,
    ticks,
)

BARS = [Bar("tfidf", 0.872, low=0.86, high=0.88), Bar("lora", 0.931, low=0.92, high=0.94, tone="tuned")]
COUNTS = [[90, 10, 0], [3, 80, 2], [0, 10, 5]]
LABELS = ["joy", "anger", "fear"]


def parse(plot: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(plot))


def texts(plot: Markup) -> list[str]:
    return ["".join(element.itertext()) for element in parse(plot).iter("text")]


PLOTS = {
    "scores": score_bars(BARS, key="k", title="Accuracy"),
    "classes": class_bars([ClassBar("joy", 0.9, 0.8), ClassBar("fear", 0.5)], key="k", title="F1"),
    "matrix": confusion_matrix(COUNTS, LABELS, key="k", title="Confusion"),
    "curves": learning_curves({"lora": [(1, 2.0), (9, 0.5)]}, key="k", title="Loss"),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_every_plot_is_named_and_described_for_screen_readers(plot: Markup) -> None:
    figure = parse(plot)
    title, description = figure.find("title"), figure.find("desc")
    assert figure.get("role") == "img"
    assert title is not None
    assert description is not None
    assert figure.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text
    assert description.text


def test_bars_are_as_long_as_their_share() -> None:
    bars = [rect for rect in parse(PLOTS["scores"]).iter("rect") if "bar" in rect.get("class", "")]
    assert [(bar.get("class"), bar.get("width")) for bar in bars] == [("bar baseline", "87.2%"), ("bar tuned", "93.1%")]


def test_bars_tell_value_and_interval() -> None:
    assert texts(PLOTS["scores"]) == ["tfidf", "86.0 to 88.0  87.2 %", "lora", "92.0 to 94.0  93.1 %"]


def test_bar_without_interval_has_no_whisker() -> None:
    plot = score_bars([Bar("x", 0.5)], key="k", title="t")
    assert parse(plot).find(".//line") is None


@pytest.mark.parametrize("value", [math.nan, -0.5, 7.0])
def test_bars_stay_inside_their_box(value: float) -> None:
    for rect in parse(score_bars([Bar("x", value)], key="k", title="t")).iter("rect"):
        assert 0 <= float(rect.get("width", "").rstrip("%")) <= 100


def test_class_bars_tell_the_gain_in_points() -> None:
    assert texts(PLOTS["classes"]) == ["joy", "+10.0  90.0 %", "fear", "50.0 %"]


def test_matrix_shades_each_cell_by_its_share_of_the_row() -> None:
    styles = [rect.get("style") for rect in parse(PLOTS["matrix"]).iter("rect")]
    assert styles[:3] == ["--share:0.900", "--share:0.100", "--share:0.000"]


def test_matrix_of_a_class_without_rows_is_drawn() -> None:
    assert "--share:0.000" in confusion_matrix([[0, 0], [1, 4]], ["a", "b"], key="k", title="t")


def test_most_confused_pairs_come_by_count_then_share() -> None:
    pairs = most_confused(COUNTS, LABELS, limit=3)
    assert [(pair.true, pair.predicted, pair.count) for pair in pairs] == [
        ("fear", "anger", 10), ("joy", "anger", 10), ("anger", "joy", 3)]  # fmt: skip


def test_matrix_without_an_error_says_so() -> None:
    description = parse(confusion_matrix([[2, 0], [0, 3]], ["a", "b"], key="k", title="t")).findtext("desc")
    assert description == "5 of 5 rows on the diagonal. No class is taken for another."


def test_strip_points_beyond_its_axis() -> None:
    inside = parse(difference_strip(0.01, -0.01, high=0.03, extent=0.1))
    beyond = parse(difference_strip(0.6, 0.5, high=0.7, extent=0.1))
    assert inside.find("circle") is not None
    assert beyond.find("circle") is None
    assert beyond.find("text") is not None


def test_long_curves_are_thinned_to_means() -> None:
    curve = [(float(step), float(step % 2)) for step in range(1, 1001)]
    assert len(thin(curve)) <= 120
    assert {value for _, value in thin([*curve, (1001, math.nan)])} <= {4 / 9, 5 / 9, 0.0}


def test_curves_without_a_point_are_left_out() -> None:
    assert learning_curves({}, key="k", title="t") == ""
    assert learning_curves({"lora": [(1, math.inf)]}, key="k", title="t") == ""


def test_curve_of_one_point_is_a_dot() -> None:
    line = parse(learning_curves({"lora": [(1, 0.5)]}, key="k", title="t")).find(".//polyline")
    assert line is not None
    assert len(set(line.get("points", "").split())) == 1


def test_best_point_of_the_marked_curve_carries_its_value() -> None:
    curves = {"lora": [(1, 0.7), (2, 0.931), (3, 0.92)]}
    assert "93.1 %" in texts(learning_curves(curves, key="k", title="t", as_percent=True, marked="lora"))


def test_a_point_that_was_kept_is_marked_in_place_of_the_best() -> None:
    curves = {"lora": [(1, 0.7), (2, 0.931), (3, 0.92), (3, 0.917)]}
    shown = texts(learning_curves(curves, key="k", title="t", as_percent=True, marked="lora", kept=(3, 0.917)))
    assert "91.7 %" in shown
    assert "93.1 %" not in shown


@pytest.mark.parametrize(("low", "high"), [(0.71, 0.93), (0.0, 0.0), (1e-7, 3e-7), (0.93, 0.93), (2, 9_000), (-1, 1)])
def test_ticks_span_the_values_in_few_round_steps(low: float, high: float) -> None:
    levels = ticks(low, high)
    assert levels[0] <= low + 1e-9
    assert levels[-1] >= high - 1e-9
    assert 2 <= len(levels) <= 7


def test_names_are_escaped_and_cut() -> None:
    plot = score_bars([Bar('</text><script>"\u202e\x00' + "w" * 500, 0.5)], key="k", title="<b>")
    assert [element.tag for element in parse(plot).iter() if element.tag in {"script", "b"}] == []
    assert texts(plot)[0].startswith('</text><script>"\\u202e')
    assert texts(plot)[0].endswith("…")
