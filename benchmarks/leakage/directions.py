"""What label directions tell of a client's texts, and what noise on them costs: linear heads on frozen features.

    python benchmarks/leakage/directions.py --seeds 5 [--labels 32]

The eight clients of `benchmarks/federations/related.toml`. The attacker knows the public texts, their coordinates, the
client's base model and the label of the text that it asks about. It reads the message's scores of the public texts by
ridge regression on the model's features, as an honest client does. Prints, for each message,

* label: how often it names the label of a text to train on, beside that of a fresh text (in percent),
* membership: the AUC of telling texts to train on from fresh ones,
* accuracy: of the teacher that clients make of all messages, on test texts, in percent.

Noise has the deviation of one release at ε and δ = 1e-5, of a direction of norm one: on each message ("each"), or once
on the sum of all ("sum").
"""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from torch import Tensor

from h2tune.federation.dp import multiplier_for
from h2tune.federation.h2tune.model_reader import PLAIN
from h2tune.federation.teaching.stacking import OwnScores, on_own_texts, stacked
from h2tune.functional.directions import label_coordinates
from h2tune.functional.teacher import intercepts, teacher, unit_variance
from h2tune.models import load_model, load_tokenizer
from h2tune.quiet import quiet
from h2tune.tasks.load import load_task, unlabelled
from h2tune.training.linear_head import extrapolate, head_scores, standardise
from h2tune.training.readings import read_texts

HERE = Path(__file__).resolve().parent
FEDERATION = HERE.parent / "federations" / "related.toml"
ENCODER = "pypi:paraphrase-minilm-l3-v2"
COUNT, SIZE, DELTA = 800, 64, 1e-5
EPSILONS = (2.0, 8.0, 32.0)


class Reader:
    """Reads texts with frozen encoders; what was read is kept."""

    def __init__(self) -> None:
        self.models: dict[str, tuple[object, object]] = {}
        self.kept: dict[tuple[str, str], Tensor] = {}

    def __call__(self, model: str, texts: Sequence[str]) -> Tensor:
        """Return the features (n, width) of texts."""
        if model not in self.models:
            self.models[model] = load_model(model, "classifier", "float32", 0), load_tokenizer(model)
        missing = [text for text in dict.fromkeys(texts) if (model, text) not in self.kept]
        if missing:
            base, tokenizer = self.models[model]
            read = read_texts(base, tokenizer, PLAIN, missing, causal=False, batch_size=32)[0]
            self.kept |= {(model, text): row for text, row in zip(missing, read, strict=True)}
        return torch.stack([self.kept[model, text] for text in texts])


@dataclass(frozen=True)
class Client:
    """A client's features of the public texts, of those to train on, of fresh ones and of test texts, with labels."""

    public: Tensor
    own: Tensor
    labels: Tensor
    fresh: Tensor
    fresh_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def scores(self) -> Tensor:
        """Return what its own head says of the public texts (n, 2)."""
        return head_scores(self.own, self.labels, 2, self.public)


def read_clients(reader: Reader, public: Sequence[str], labels: int, seed: int) -> list[Client]:
    """Return the clients of the federation with the texts of a seed."""
    found = []
    for entry in tomllib.loads(FEDERATION.read_text())["client"]:
        _, splits = load_task(entry["task"], train=labels, validation=300, test=380, seed=seed)
        frozen = reader(entry["model"], public)
        parts = []
        for examples in (splits.train, splits.validation[:labels], splits.test):
            features = standardise(reader(entry["model"], [e.text for e in examples]), frozen)
            parts += [features, torch.tensor([e.label for e in examples])]
        found.append(Client(standardise(frozen, frozen), *parts))
    return found


def coordinates(features: Tensor) -> Tensor:
    """Return common coordinates (n, SIZE) of the public texts: principal directions, of unit variance."""
    centred = standardise(features, features)
    left = torch.linalg.svd(centred.double(), full_matrices=False)[0][:, :SIZE]
    return (left * math.sqrt(len(left))).float()


def attack(client: Client, scores: Tensor) -> tuple[float, float, float]:
    """Return the shares of labels named right, of texts to train on and of fresh ones, and the AUC of membership."""
    known, fresh = (extrapolate(client.public, scores, texts) for texts in (client.own, client.fresh))
    right = [
        float((answers.argmax(1) == labels).float().mean())
        for answers, labels in ((known, client.labels), (fresh, client.fresh_labels))
    ]
    margins = [
        (answers.gather(1, labels[:, None]) - answers.mean(1, keepdim=True)).flatten()
        for answers, labels in ((known, client.labels), (fresh, client.fresh_labels))
    ]
    member = [1] * len(margins[0]) + [0] * len(margins[1])
    return right[0], right[1], float(roc_auc_score(member, torch.cat(margins)))


def shrunk(peers: Tensor, variance: float) -> Tensor:
    """Return a noisy sum, scaled by the share of its size that is no noise (James and Stein 1961)."""
    noise = variance * peers.numel() / 2  # two labels: half of the noise is common to both, and means nothing
    total = float((peers - peers.mean(1, keepdim=True)).square().sum())
    return peers * max(0.0, 1 - noise / max(total, 1e-12))


def taught(client: Client, z: Tensor, own: Tensor, peers: Tensor) -> float:
    """Return the accuracy on test texts of a client's teacher, or of its own head where the peers say nothing."""
    if not bool(peers.any()):
        scores, mine = unit_variance(own), extrapolate(client.public, unit_variance(own), client.own)
    else:
        knows = OwnScores(client.public, client.own, client.labels, own, torch.empty(0), 0)
        found = stacked(knows, z, peers, on_own_texts(knows, z, peers))
        scores, mine = found.public, found.own
    answers = teacher(extrapolate(client.public, scores, client.test), intercepts(mine, client.labels))
    return float((answers.argmax(1) == client.test_labels).float().mean())


def trial(clients: Sequence[Client], z: Tensor, seed: int) -> dict[str, list[float]]:
    """Return message → its four numbers, means over the clients."""
    draw = torch.Generator().manual_seed(seed)
    own = [client.scores() for client in clients]
    directions = torch.stack([label_coordinates(z, scores) for scores in own])
    everyone = directions.sum(0)

    def row(messages: Sequence[Tensor], peers: Sequence[Tensor]) -> list[float]:
        """Return the numbers of the scores that each client's message gives, and of what its peers say."""
        attacks = [attack(c, unit_variance(m)) for c, m in zip(clients, messages, strict=True)]
        right = [taught(c, z, s, p) for c, s, p in zip(clients, own, peers, strict=True)]
        return [*(fmean(column) for column in zip(*attacks, strict=True)), fmean(right)]

    nobody = [torch.zeros_like(everyone)] * len(clients)
    others = [everyone - mine for mine in directions]
    found = {
        "predictions of the public texts (FedMD)": row(own, others),
        "direction": row([z @ mine for mine in directions], others),
        "sum of all directions": row([z @ everyone] * len(clients), others),
    }
    for epsilon in EPSILONS:
        deviation = multiplier_for(epsilon, 1, DELTA)
        noise = torch.randn(directions.shape, generator=draw) * deviation
        each = directions + noise
        found[f"direction, noise on each, ε = {epsilon:g}"] = row(
            [z @ mine for mine in each],
            [shrunk(each.sum(0) - mine, (len(clients) - 1) * deviation**2) for mine in each],
        )
        noisy = everyone + noise[0]
        found[f"sum, noise on the sum, ε = {epsilon:g}"] = row(
            [z @ noisy] * len(clients), [shrunk(noisy - mine, deviation**2) for mine in directions]
        )
    alone = row([torch.zeros_like(scores) for scores in own], nobody)
    return {"nothing": [math.nan, math.nan, 0.5, alone[3]], **found}


def interval(values: Sequence[float], scale: float, digits: int) -> str:
    """Return the mean of values over seeds with the half-width of its 95 % t interval."""
    if any(math.isnan(value) for value in values):
        return "–"
    if len(values) < 2:
        return f"{scale * values[0]:.{digits}f}"
    width = student.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return f"{scale * fmean(values):.{digits}f} ± {scale * width:.{digits}f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=32)
    options = parser.parse_args()
    texts = tomllib.loads(FEDERATION.read_text())["basis"]["texts"]
    runs: dict[str, list[list[float]]] = {}
    with quiet():
        reader = Reader()
        public = [
            text for source in texts for text in unlabelled(source, COUNT // len(texts), seed=99, test=380)
        ]
        z = coordinates(reader(ENCODER, public))
        for seed in range(600, 600 + options.seeds):
            for message, row in trial(read_clients(reader, public, options.labels, seed), z, seed).items():
                runs.setdefault(message, []).append(row)
    print("| message | label, own text | label, fresh text | membership | accuracy |\n|---|---|---|---|---|")
    for message, rows in runs.items():
        columns = list(zip(*rows, strict=True))
        shown = [
            interval(column, scale, digits)
            for column, (scale, digits) in zip(columns, ((100, 1), (100, 1), (1, 2), (100, 1)), strict=True)
        ]
        print(f"| {message} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
