"""How many planted label errors are found, and how much of what is found was planted.

    python benchmarks/label_errors.py DATA [--limit 6000] [--model embedded]

Labels of train are changed at random to another class; the probe's out-of-fold probabilities then judge them. Printed
for each share of changed labels and each bound on a label's probability: labels there, labels to be expected there if
all were right, the share of them that was changed, and the share of the changed ones that lie there.
"""

import argparse

import numpy as np

from textlift.evaluation.out_of_fold import out_of_fold
from textlift.progress import Progress
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.planning import Request, resolve
from textlift.workflow.preparation import prepare

BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--limit", type=int, default=6000)
    parser.add_argument("--model")
    options = parser.parse_args()
    values = {"data.limit": options.limit, "data.allow_leak": True, "data.drop_empty": True}
    job = prepare(resolve(Request(options.data, model=options.model, values=values)), Progress())
    frozen = FrozenPass(job, Progress())
    features, labels = frozen.features("train"), job.labels["train"]
    print("changed  bound  labels  expected  changed among them  of all changed")
    for noise in (0.0, 0.02, 0.05):
        draw = np.random.default_rng(1)
        is_changed = draw.random(len(labels)) < noise
        noisy = labels.copy()
        noisy[is_changed] += draw.integers(1, job.n_classes, is_changed.sum())
        noisy %= job.n_classes
        probabilities = out_of_fold(
            features,
            noisy,
            job.n_classes,
            groups=job.dataset.text_groups["train"],
            bias=frozen.result.head_has_bias,
            c=frozen.probe[1],
        )
        own = probabilities[np.arange(len(noisy)), noisy]
        for bound in BOUNDS:
            there = own <= bound
            planted = is_changed[there].sum()
            print(
                f"{noise:7.0%}  {bound:5.3f}  {there.sum():6d}  {probabilities[probabilities <= bound].sum():8.1f}  "
                f"{planted / max(1, there.sum()):18.0%}  {planted / max(1, is_changed.sum()):14.0%}"
            )


if __name__ == "__main__":
    main()
