"""What a client's round of a tiny model costs beside its floor, and which part of the code takes how much of it.

    OMP_NUM_THREADS=1 python benchmarks/speed/client_round.py

Twelve clients of three families as in `growth.py`, one local step a round, which is two optimiser steps; the round
loop, the commits and the log are those of `h2tune run`. The floor is as many times forward, backward and AdamW on the
same models and batches, in a plain loop. Both are measured in turn, round by round, without the first round (joint).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from growth import FAMILIES
from parts import Parts
from timing import Spread, ratios, table

from h2tune.federation.attach import attach_adapter
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.rounds import Schedule, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.functional import losses
from h2tune.training.encode import collator, kept_logits
from h2tune.training.garbage import garbage_collection_frozen

PARTS = {
    "attach the adapter": ["federation.h2tune.strategy:H2Tune.attach"],
    "load the state from disk and into the model": [
        "federation.local_engine:LocalEngine.last_state",
        "federation.h2tune.adapted_model:H2TuneAdaptedModel.load_state",
    ],
    "device and arguments": [
        "federation.attach:training_device",
        "training.local:LocalRound._arguments",
    ],
    "Trainer object": ["training.trainer:AlternatingTrainer.__init__"],
    "Accelerator, optimiser, scheduler": ["training.trainer:AlternatingTrainer._prepare_for_training"],
    "epoch: steps and the loop around them": ["training.trainer:AlternatingTrainer._run_epoch"],
    "rest of local training": ["federation.client_round:ClientRound._train"],
    "update, state, facts": [
        f"federation.h2tune.adapted_model:H2TuneAdaptedModel.{name}"
        for name in ("send", "learned", "state", "facts")
    ],
    "take the adapter off": ["federation.h2tune.adapted_model:H2TuneAdaptedModel.detach"],
    "rest of the round: receive, snapshots, checks": ["federation.client_round:ClientRound.run"],
    "commit, with fsync": ["federation.run_store:RunStore.commit"],
    "remove old states": ["federation.local_engine:LocalEngine._remove_old_rounds"],
    "log, with fsync": ["federation.run_store:RunStore.record"],
}
"""Part → functions, for `Parts`."""


def planned(folder: Path, clients: int, rounds: int):
    """Return the plan of a federation of tiny models."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
    from helpers import federations

    from h2tune.config import load
    from h2tune.runs.plan import planned as plan_of

    content = federations.federation(
        folder,
        [(f"c{i:05d}", FAMILIES[i % 3], 8) for i in range(clients)],
        options={family: {"width": 128, "blocks": 4} for family in FAMILIES},
        server={"rounds": rounds, "min_clients": clients},
        train={"local_steps": 1, "batch_size": 8},
        data={"train": 16, "validation": 0, "test": 8},
        experimental={"evaluate_rounds": "last"},
    )
    return plan_of(load(federations.write(folder, content)))


def floor_of(engine: LocalEngine, client, steps: int) -> Callable[[], float]:
    """Return what measures the seconds of a client's optimiser steps in a plain loop."""
    base, tokenizer = engine.base_of(client)
    rows = client.encoded("train", tokenizer)[: client.training.batch_size]

    def measure() -> float:
        adapted = attach_adapter(base, client, engine.strategy, None)
        adapted.receive(engine.strategy.download(engine.strategy.start(), client.name, 0))
        parameters = [p for group in adapted.phases().values() for p in group.values()]
        optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        collate = collator(adapted.model, tokenizer, causal=client.causal)
        adapted.model.train()

        def step() -> None:
            batch = collate(rows)
            logits = kept_logits(adapted.model, batch, causal=client.causal)
            losses.task_loss(logits, batch["labels"], torch.tensor(len(rows))).backward()
            optimiser.step()
            optimiser.zero_grad()

        step()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        took = time.perf_counter() - start
        adapted.detach()
        return took

    return measure


def measure(clients: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return seconds per client and round of each turn, and those of each part on average."""
    found: dict[str, list[float]] = {"floor": [], "round": []}
    with tempfile.TemporaryDirectory() as name, garbage_collection_frozen():
        plan = planned(Path(name), clients, repeats + 1)
        store = RunStore(Path(name) / "run")
        dtypes = {client.name: "float32" for client in plan.clients}
        engine = LocalEngine(plan.clients, dtypes, plan.strategy, BaseModels(0), store)
        floors = [floor_of(engine, client, 2) for client in plan.clients]
        parts, began = Parts(PARTS, time.perf_counter), 0.0

        def choose(names: Sequence[str], number: int) -> Sequence[str]:
            """Measure the floor between two rounds."""
            nonlocal began
            if number > 1:
                found["round"].append((time.perf_counter() - began) / clients)
            parts.counting = False
            if number:
                found["floor"].append(sum(floor() for floor in floors) / clients)
            parts.counting, began = number > 0, time.perf_counter()
            return names

        run_rounds(plan.strategy, engine, store, Schedule(repeats + 1, clients, choose))
        found["round"].append((time.perf_counter() - began) / clients)
        store.close()
    return found, {part: seconds / clients / repeats for part, seconds in parts.seconds.items()}


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found, parts = measure(options.clients, options.repeats)
    rows = [[name, Spread.of([1000 * v for v in values]).text(1)] for name, values in found.items()]
    print(table(["per client and round", "ms"], [*rows, ["ratio", ratios(found, "round", "floor").text(2)]]))
    whole = sum(found["round"]) / len(found["round"])
    parts["between: loop, download, aggregate"] = whole - sum(parts.values())
    cells = [[part, f"{1000 * s:.1f}", f"{100 * s / whole:.0f} %"] for part, s in parts.items()]
    print(table(["part", "ms", "share"], cells))


if __name__ == "__main__":
    main()
