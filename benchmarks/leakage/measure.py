"""Measure what an update reveals to a curious server: membership, labels and tokens, from ΔT and LoRA's ΔA and ΔB.

    python benchmarks/leakage/measure.py --seeds 0 1 2 3 4    # about a minute each on one free core

Adds to `results.csv` (every seed) and writes `results.md` (means and intervals) beside this file.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path

import torch
from attacks import auc, cosines, flat, interval, token_ranks
from torch import Tensor, nn
from torch.nn.functional import normalize
from victim import MODEL, Victim, World, victim

from h2tune.models import base_seed
from h2tune.seeds import generator
from h2tune.training.encode import Encoded

CANDIDATES, TRIALS, LONGEST = 24, 6, 24
"""Texts of which half are in a round, trials of one step with one text, and tokens of a text at most."""
SHORT, TEXTS = 12, 4
"""Tokens of a text in the token attack at most, and texts a seed."""
ROUND = {"local_steps": 8, "batch_size": 4}
HALF = CANDIDATES // 2
SGD = {"local_steps": 1, "batch_size": 1, "max_grad_norm": 0.0, "arguments": {"optim": "sgd"},
       "learning_rates": dict.fromkeys(("specific", "shared", "relation"), 1.0)}  # fmt: skip
HERE = Path(__file__).parent
Rows = dict[tuple[str, str, str, str, str], float]
"""(attack, setting, method, what the attacker knows, seed) → value."""


def main() -> None:
    """Measure, and write the two files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    torch.set_num_threads(1)
    began = time.perf_counter()
    world = World.load()
    world.texts = [text for text in world.texts if len(text.prompt) <= LONGEST]
    for seed in parser.parse_args().seeds:
        rows: Rows = {}
        order = torch.randperm(len(world.texts), generator=generator(seed, "leakage")).tolist()
        texts = [world.texts[i] for i in order]
        pool, own, other = (texts[i * CANDIDATES : (i + 1) * CANDIDATES] for i in range(3))
        short = [t for t in texts[3 * CANDIDATES :] if 6 <= len(t.prompt) <= SHORT][:TEXTS]
        for method in ("fedit", "h2tune"):
            for kind in ("SGD, no dropout", "as h2tune trains"):
                tokens(world, method, seed, short, own, kind, rows)
                write(rows)
            membership(world, method, seed, pool, own, other, rows)
            write(rows)
            print(f"seed {seed}, {method} after {time.perf_counter() - began:.0f} s", flush=True)


def membership(
    world: World,
    method: str,
    seed: int,
    pool: list[Encoded],
    own: list[Encoded],
    other: list[Encoded],
    rows: Rows,
) -> None:
    """One step of one text and of eight, a whole round, and the first round: who was in it, and with which label."""
    shadows = {"its seed; trains on other texts": seed, "nothing; another seed": seed + 1000}
    if method == "fedit":
        shadows = {"A, B; trains a head on other texts": seed}
    with victim(world, method, seed) as one:
        one.round(own, seed, ROUND)
        state, download = one.kept()
    views: dict[str, tuple[Tensor, Tensor]] = {}
    first: dict[str, tuple[Tensor, Tensor]] = {}
    for name, its_seed in shadows.items():
        with victim(world, method, its_seed) as shadow:
            shadow.round(other, its_seed, ROUND)
            kept, _ = shadow.kept()
        with victim(world, method, its_seed, state=kept, download=download) as shadow:
            views[name] = gradients(shadow, pool)
        if method == "h2tune":
            with victim(world, method, its_seed, state=kept) as shadow:
                first[name] = gradients(shadow, pool)
    with victim(world, method, seed, state=state, download=download) as one:
        views["A, B and head"] = gradients(one, pool)
        for setting, size, trials in (
            ("one step, 1 text", 1, TRIALS),
            ("one step, 8 texts", 8, 3),
            ("a round", HALF, 2),
        ):
            found = defaultdict(list)
            for trial in range(trials):
                inside = list(range(trial * size, (trial + 1) * size))
                numbers = ROUND if size == HALF else {"local_steps": 1, "batch_size": size}
                change = one.round([pool[i] for i in inside], seed + trial, numbers)
                one.reset()
                for name, view in views.items():
                    judge(change, view, inside, name, found)
            keep(found, setting, method, seed, rows)
    found = defaultdict(list)
    for trial in range(2):
        inside = list(range(trial * HALF, (trial + 1) * HALF))
        with victim(world, method, seed) as one:
            if method == "fedit":  # the start is in the seed: A, B = 0 and the head
                views = {"its seed": gradients(one, pool)}
            change = one.round([pool[i] for i in inside], seed + trial, ROUND)
            kept, _ = one.kept()
        if method == "h2tune":
            with victim(world, method, seed, state=kept) as one:
                views = first | {"A, B and head": gradients(one, pool)}
        for name, view in views.items():
            judge(change, view, inside, name, found)
    keep(found, "the first round", method, seed, rows)


def gradients(one: Victim, pool: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Return every candidate's gradient (candidates, values), and under the other label for the first `TRIALS`."""
    own = torch.stack([flat(one.gradient(text, text.label or 0)) for text in pool])
    return own, torch.stack([flat(one.gradient(text, 1 - (text.label or 0))) for text in pool[:TRIALS]])


def judge(
    change: dict[str, Tensor],
    view: tuple[Tensor, Tensor],
    inside: list[int],
    name: str,
    found: dict,
) -> None:
    """Add an attacker's AUC, and of one text whether it finds the label when it knows the text."""
    own, other = (cosines(change, gradients) for gradients in view)
    outside = [i for i in range(len(own)) if i not in inside]
    found["membership", name].append(auc(own[inside], own[outside]))
    if len(inside) == 1:
        found["label", name].append(float(own[inside[0]] > other[inside[0]]))


def keep(found: dict, setting: str, method: str, seed: int, rows: Rows) -> None:
    """Keep the mean over a seed's trials."""
    for (attack, name), values in found.items():
        rows[attack, setting, method, name, str(seed)] = sum(values) / len(values)


def tokens(
    world: World, method: str, seed: int, short: list[Encoded], own: list[Encoded], kind: str, rows: Rows
) -> None:
    """One step on one short text: which of its tokens fit the span of the rows best, of the whole vocabulary."""
    with victim(world, method, seed) as one:
        one.round(own, seed, ROUND)
        state, download = one.kept()
    dropouts = [m for m in world.base.modules() if isinstance(m, nn.Dropout)]
    before = [m.p for m in dropouts]
    for module in dropouts:
        module.p = 0.0 if kind.startswith("SGD") else module.p
    with victim(world, method, seed, state=state, download=download) as one:
        layers = {
            n: one.adapted.base.get_submodule(n)
            for n in one.client.enrolment.modules
            if "layer.0.attention.self" in n
        }
        downs = (
            {name: layer.h2tune_down["default"].detach().clone() for name, layer in layers.items()}
            if method == "h2tune"
            else {}
        )
        changes = []
        for trial, text in enumerate(short):
            numbers = SGD if kind.startswith("SGD") else {"local_steps": 1, "batch_size": 1}
            changes.append(one.round([text], seed + trial, numbers))
            one.reset()
    for module, p in zip(dropouts, before, strict=True):
        module.p = p
    attackers = {"A and B": None}
    if method == "h2tune":
        attackers = {
            "A": downs,
            "its seed (A at the start)": starts(downs, seed),
            "another seed": starts(downs, seed + 1000),
        }
    right = {name: [0, 0] for name in attackers}
    embeddings = world.base.get_submodule("bert.embeddings")
    for position in range(1, SHORT - 1):
        inputs = embedded(embeddings, position)
        for name, frames in attackers.items():
            info = [normalize(i, dim=1) for i in in_coordinates(layers, inputs, frames)]
            for text, change in zip(short, changes, strict=True):
                if position < len(text.prompt) - 1:
                    rank = token_ranks(rows_of(change, layers), info, text.prompt[position], len(text.prompt))
                    right[name][0] += rank == 0
                    right[name][1] += 1
    for name, (hits, count) in right.items():
        rows["tokens", kind, method, name, str(seed)] = hits / count


def starts(downs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the modules' A as drawn from a seed."""
    from h2tune.baselines.lora import initial_down

    return {n: initial_down(base_seed(seed, MODEL), n, *down.shape) for n, down in downs.items()}


@torch.no_grad()
def embedded(embeddings: nn.Module, position: int) -> Tensor:
    """Return what the first block gets for every token at a position (vocabulary, width)."""
    words = embeddings.word_embeddings.weight
    return embeddings.LayerNorm(
        words + embeddings.position_embeddings.weight[position] + embeddings.token_type_embeddings.weight[0]
    )


def in_coordinates(
    layers: dict[str, nn.Module], inputs: Tensor, frames: dict[str, Tensor] | None
) -> list[Tensor]:
    """Return every token's input (vocabulary, width) as q, k and v have it: as it is, or A x (vocabulary, r)."""
    return [inputs if frames is None else inputs @ frames[name].T for name in layers]


def rows_of(change: dict[str, Tensor], layers: dict[str, nn.Module]) -> list[Tensor]:
    """Return the rows of ΔA or ΔT of q, k and v of the first block."""
    role = {"query": "delta.attn.q", "key": "delta.attn.k", "value": "delta.attn.v"}
    return [
        change[f"{n}.lora_A"] if f"{n}.lora_A" in change else change[role[n.rpartition(".")[2]]][0]
        for n in layers
    ]


def write(rows: Rows) -> None:
    """Add a seed's values to what is there, and write the table of means."""
    file, names = HERE / "results.csv", ("attack", "setting", "method", "attacker knows", "seed", "value")
    if file.exists():
        with file.open(newline="") as stream:
            rows = {
                tuple(list(row.values())[:5]): float(row["value"]) for row in csv.DictReader(stream)
            } | rows
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(names)
        table.writerows([*key, f"{value:.4f}"] for key, value in sorted(rows.items()))
    seeds = defaultdict(list)
    for key, value in sorted(rows.items()):
        seeds[key[:4]].append(value)
    lines = [
        "| attack | setting | what travels | attacker knows | result | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for (attack, setting, method, knows), values in seeds.items():
        mean, half = interval(values)
        shown = (
            f"{mean:.2f} ± {half:.2f}" if attack == "membership" else f"{100 * mean:.0f} ± {100 * half:.0f} %"
        )
        shown = shown.replace(" ± nan", "")  # of one seed there is no interval
        travels = {"fedit": "ΔA, ΔB", "h2tune": "ΔT"}[method]
        lines.append(f"| {attack} | {setting} | {travels} | {knows} | {shown} | {len(values)} |")
    (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
