import numpy as np

from textlift.data.surface import best_rule, out_of_half, rank_share, right_share, surface


def test_a_rule_of_two_things_is_found_where_one_tells_less() -> None:
    texts = ["aa # bb", "aa @ bb", "aa c bb", "aa d bb"] * 25
    rule, is_for, quality = best_rule(surface(texts), np.array([True, True, False, False] * 25))
    assert (rule.name, is_for, quality) == ("`#` or `@`", True, 1.0)


def test_of_equal_rules_the_one_of_a_single_thing_is_taken() -> None:
    rule, _, _ = best_rule(surface(["aa # bb", "aa c bb"] * 50), np.array([True, False] * 50))
    assert rule.name == "`#`"


def test_a_rule_can_speak_against_the_target() -> None:
    seen, target = surface(["aa # bb", "aa c bb"] * 50), np.array([False, True] * 50)
    rule, is_for, quality = best_rule(seen, target)
    assert (rule.name, is_for, quality) == ("`#`", False, 1.0)
    assert right_share(rule, seen.flags, target, is_for=False) == 1.0


def test_texts_drawn_alike_cannot_be_told_apart() -> None:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(["one", "Two", "three!", "#4"], 6)) for _ in range(2000)]
    target = draw.random(2000) < 0.5
    assert abs(rank_share(out_of_half(surface(texts), target), target) - 0.5) < 0.04


def test_the_rank_share_counts_ties_as_half() -> None:
    assert rank_share(np.array([0.5, 0.5, 0.1, 0.9]), np.array([True, False, False, True])) == 0.875
