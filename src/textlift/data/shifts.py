"""Whether splits are alike: shares of classes, the surface of texts, and rules that tell classes in one split alone."""

from collections import Counter
from dataclasses import replace

import numpy as np

from textlift.data.dataset import Dataset, Rows
from textlift.data.findings import Finding, percent, rows_finding
from textlift.data.problems import quoted
from textlift.data.surface import Flags, Rule, Surface, best_rule, out_of_half, rank_share, right_share, surface

_SAMPLE = 10_000  # rows of a split whose surface is looked at
_LEAST_ROWS = 100  # of a split, below which chance looks like a rule
_LEAST_EFFECT, _LEAST_P = 0.2, 0.001  # Cohen's w between small (0.1) and medium (0.3); p of the chi-squared test
_LEAST_AUC = 0.6  # lower bound of the 95 % interval from which on two splits are told apart
_UNLIKE = 0.9  # probability of being of the other split from which on a row is listed
_SHORTCUT, _LESS = 0.8, 0.15  # balanced accuracy of a rule; how much less it tells in train
_TELLS = 0.9  # balanced accuracy of a rule that tells a class in train
_MOST_CLASSES = 50


def prior_findings(dataset: Dataset) -> list[Finding]:
    """Splits whose classes have other shares than those of train.

    Source: effect size w of Cohen (1988), Statistical Power Analysis, section 7.2: 0.1 small, 0.3 medium, 0.5 large.
    """
    from scipy.special import chdtrc

    findings = []
    train = Counter(dataset.splits["train"].labels) if "train" in dataset.splits else Counter()
    for split, rows in dataset.splits.items():
        here = Counter(rows.labels)
        if split == "train" or not train.keys() >= here.keys() or len(train) < 2:
            continue
        names = list(train)
        table = np.array([[train[name] for name in names], [here[name] for name in names]], dtype=float)
        shares = table / table.sum(axis=1, keepdims=True)
        effect = float(np.sqrt(np.square(shares[1] - shares[0]) @ (1 / shares[0])))
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        statistic = float((np.square(table - expected) / expected).sum())
        p_value = float(chdtrc(len(names) - 1, statistic))
        if effect < _LEAST_EFFECT or p_value > _LEAST_P:
            continue
        most = sorted(range(len(names)), key=lambda c: -abs(shares[1, c] - shares[0, c]))[:3]
        told = ", ".join(
            f"{quoted(dataset.name_of(names[c]), 30)} is {percent(shares[0, c])} of train and {percent(shares[1, c])} "
            f"of {split}"
            for c in most[: 1 if len(names) == 2 else 3]
        )
        message = f"{split}: classes have other shares than in train: {told} (Cohen's w {effect:.2f}, p {_p(p_value)})."
        moved = float(np.abs(shares[1] - shares[0]).sum() / 2)
        details = {"effect": effect, "p_value": p_value, "chi_squared": statistic, "share_moved": moved}
        findings.append(Finding("prior_shift", "warning", message, split, len(names), (), details))
    return findings


def shift_findings(dataset: Dataset) -> list[Finding]:
    """Splits that the surface of their texts tells from train, with the rule that tells most, and the oddest rows.

    Source: AUC and its interval of Hanley and McNeil (1982).
    """
    findings = []
    sampled = {split: _sample(rows) for split, rows in dataset.splits.items() if len(rows) >= _LEAST_ROWS}
    for split, places in sampled.items():
        if split == "train" or "train" not in sampled:
            continue
        first, second = dataset.splits["train"], dataset.splits[split]
        texts = [first.texts[place] for place in sampled["train"]] + [second.texts[place] for place in places]
        target = np.arange(len(texts)) >= len(sampled["train"])
        seen = surface(texts)
        probabilities = out_of_half(seen, target)
        area = rank_share(probabilities, target)
        low = area - 1.96 * _error_of(area, int(target.sum()), int((~target).sum()))
        if low < _LEAST_AUC:
            continue
        rule, _, quality = best_rule(seen, target)
        holds = rule.holds(seen.flags)
        here, there = float(holds[target].mean()), float(holds[~target].mean())
        odd = np.flatnonzero(probabilities[target] >= _UNLIKE)
        details = {"auc": area, "auc_low": low, "rule_accuracy": quality, f"{split}_share": here, "train_share": there}
        found = (
            f"the surface of texts tells {split} from train (AUC {area:.2f}; 0.5 is alike): a text has {rule.name} in "
            f"{percent(here)} of {split} and in {percent(there)} of train."
        )
        message = f"{found} {len(odd):,} rows of {split} do not look like train." if len(odd) else found
        if len(odd):
            order = odd[np.argsort(-probabilities[target][odd], kind="stable")]
            oddest = [places[place] for place in order.tolist()]
            columns = {f"probability_of_{split}": [round(float(p), 4) for p in probabilities[target][order]]}
            listed = rows_finding(
                "split_shift", "warning", (split, second, oddest), found=found, advice="", columns=columns
            )
            findings.append(replace(listed, message=message, details=details))
        else:
            findings.append(Finding("split_shift", "warning", message, split, 0, (), details))
    return findings


def shortcut_findings(dataset: Dataset) -> list[Finding]:
    """Splits in which a rule of the surface tells a class, though no word was read.

    A rule that tells it in a split but not in train is a warning: scores there measure the rule. One that tells it in
    train is information: it may be how the texts are, or how they were gathered.
    """
    sampled = {split: _sample(rows) for split, rows in dataset.splits.items() if len(rows) >= _LEAST_ROWS}
    if not sampled:
        return []
    seen = surface([dataset.splits[split].texts[place] for split, places in sampled.items() for place in places])
    ends = np.cumsum([len(places) for places in sampled.values()])
    flags = dict(zip(sampled, np.split(seen.flags, ends[:-1]), strict=True))
    findings = []
    for split, places in sampled.items():
        best = _best_of_classes(dataset, split, places, seen=Surface(seen.names, flags[split]))
        if best is None or best[0] < (_TELLS if split == "train" else _SHORTCUT):
            continue
        quality, label, rule, is_for = best
        target = _is_of(dataset.splits[split], places, label)
        right = right_share(rule, flags[split], target, is_for=is_for)
        details = {"accuracy": right, "balanced_accuracy": quality}
        name = quoted(dataset.name_of(label), 30)
        claim = f"a text with {rule.name} is {'' if is_for else 'not '}{name}"
        told = f"{split}: {claim}: right in {percent(right)} of {split}"
        if split == "train" or "train" not in sampled:
            message = f"{told}, without reading a word."
            findings.append(Finding("surface_tells_label", "info", message, split, 1, (), details))
            continue
        there = _is_of(dataset.splits["train"], sampled["train"], label)
        in_train = right_share(rule, flags["train"], there, is_for=is_for)
        balanced = _balanced(rule.holds(flags["train"]), there if is_for else ~there)
        details |= {"accuracy_in_train": in_train, "balanced_accuracy_in_train": balanced}
        if quality - balanced >= _LESS:
            message = f"{told}, and in {percent(in_train)} of train."
            findings.append(Finding("shortcut", "warning", message, split, 1, (), details))
    return findings


def _best_of_classes(
    dataset: Dataset, split: str, places: list[int], *, seen: Surface
) -> tuple[float, str, Rule, bool] | None:
    sizes = Counter(dataset.splits[split].labels[place] for place in places)
    classes = [label for label, size in sizes.most_common(_MOST_CLASSES) if 20 <= size <= len(places) - 20]
    found = []
    for label in classes[: 1 if len(sizes) == 2 else None]:
        rule, is_for, quality = best_rule(seen, _is_of(dataset.splits[split], places, label))
        found.append((quality, label, rule, is_for))
    return max(found, key=lambda one: one[0], default=None)


def _sample(rows: Rows) -> list[int]:
    if len(rows) <= _SAMPLE:
        return list(range(len(rows)))
    chosen = np.random.default_rng(0).choice(len(rows), _SAMPLE, replace=False)
    return sorted(chosen.tolist())


def _is_of(rows: Rows, places: list[int], label: str) -> Flags:
    return np.fromiter((rows.labels[place] == label for place in places), dtype=bool, count=len(places))


def _balanced(said: Flags, target: Flags) -> float:
    """Mean share of texts told rightly of those that are of the target and those that are not."""
    if not target.any() or target.all():
        return 0.5
    return float((said[target].mean() + (~said[~target]).mean()) / 2)


def _error_of(area: float, n: int, m: int) -> float:
    """Standard error of an AUC from n and m texts."""
    both, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n - 1) * (both - area**2) + (m - 1) * (two - area**2)
    return float(np.sqrt(variance / (n * m)))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
