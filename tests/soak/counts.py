"""What a soak counts: memory and disk by round, and at the end what was lost and whether it was resumed to the bit."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch
from helpers import deployment
from safetensors.torch import load_file

import h2tune
from h2tune.events import read_events

PAGE = os.sysconf("SC_PAGE_SIZE")


class Samples:
    """Memory and disk of a deployment, one JSON line a round.

    Args:
        file: Where they are kept.
        parties: The deployment.
    """

    def __init__(self, file: Path, parties: deployment.Deployment) -> None:
        self.file, self.parties = file, parties

    def take(self, done: int) -> None:
        """Append a sample after a number of rounds: MB of memory of a process by kind, and of disk by place."""
        memory: dict[str, list[float]] = {}
        for name, process in self.parties.processes.items():
            if process.poll() is not None:
                continue
            kind = (
                "worker" if name.endswith("-worker") else "superlink" if name == "superlink" else "supernode"
            )
            memory.setdefault(kind, []).append(megabytes(process.pid))
            for child in deployment.descendants(process.pid):
                if "flwr-serverapp" in deployment.arguments_of(child):
                    memory.setdefault("coordinator", []).append(megabytes(child))
        home = self.parties.home
        disk = {
            "database": size(home / "flwr"),
            "coordinator, without G of each round": size(home / "run", without="round-"),
            "a member": median(size(m / "private") for m in (self.parties.folder / "members").iterdir()),
            "logs": size(self.parties.folder / "logs"),
        }
        line = {"rounds": done, "memory": {k: median(v) for k, v in memory.items()}, "disk": disk}
        with self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def megabytes(pid: int) -> float:
    """Return the resident memory of a process; 0 if it has ended."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    return 0.0


def size(folder: Path, without: str = "\0") -> float:
    """Return the MB of the files below a folder, but of folders whose name begins with `without`."""
    total = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(without)]
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total / 1e6


def outcome(folder: Path, members: int, rounds: int, counts: dict[str, Any]) -> tuple[list[str], bool]:
    """Return lines of text with all counts, and whether anything was lost or differs.

    Args:
        folder: The soak's folder.
        members: Number of members.
        rounds: Number of rounds that are done.
        counts: Counts of all sittings.
    """
    run, whole = folder / "parties" / "coordinator" / "run", folder / "whole"
    overrides = [f"server.rounds={rounds}"]
    h2tune.run(folder / "federation.toml", overrides=overrides, out=whole, resume=whole.exists())
    events = [e for e in read_events(run / "events.jsonl") if e.get("round", 0) < rounds]
    used = sum(len(e["clients"]) for e in events if e["event"] == "aggregated")
    failed = Counter(e["reason"][:60] for e in events if e["event"] == "client_failed")
    again = sum(e.get("code") == "sent_again" for e in events)
    equal, apart = 0, 0.0
    for number in range(1, rounds + 1):
        one, two = (
            load_file(r / f"server/round-{number:04d}/state.safetensors")["shared"] for r in (run, whole)
        )
        equal += torch.equal(one, two)
        apart = max(apart, float((one - two).abs().max()))
    trained = Counter()
    for log in (folder / "parties" / "members").glob("*/private/*/events.jsonl"):
        trains = [e["round"] for e in read_events(log) if e["event"] == "client_trained"]
        rounds_of = [number for number in trains if number < rounds]  # not one that was begun
        trained["once"] += len(set(rounds_of))
        trained["again"] += len(rounds_of) - len(set(rounds_of))
    lost = members * rounds - used
    lines = [
        f"{rounds} rounds of {members} members in {counts['seconds'] / 3600:.2f} h; "
        f"{'delays and losses on each wire' if counts['network'] else 'no delays or losses'}",
        f"killed: {counts['killed']}; starts of the coordinator: {counts['starts of the coordinator']}; "
        f"processes that ended by themselves: {counts['ended by themselves']}",
        f"updates used: {used} of {members * rounds}; lost: {lost}; messages sent again: {again}",
        f"failures, each made good: {dict(failed)}",
        f"rounds of members logged once: {trained['once']}, more than once: {trained['again']}",
        f"rounds equal to an uninterrupted run on one machine: {equal} of {rounds}; largest difference {apart:.1e}",
        *growth(folder / "samples.jsonl"),
    ]
    return lines, bool(lost or trained["again"] or trained["once"] != members * rounds or equal != rounds)


def growth(file: Path) -> list[str]:
    """Return a table of memory and disk at four moments of a soak."""
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    shown = [samples[i * (len(samples) - 1) // 4] for i in range(1, 5)]
    heads = " | ".join(f"round {sample['rounds']}" for sample in shown)
    head = [f"| MB | {heads} |", "|---|" + "---|" * len(shown)]
    rows = []
    for part in ("memory", "disk"):
        for name in sorted({key for sample in shown for key in sample[part]}):
            cells = (f"{s[part][name]:.1f}" if name in s[part] else "–" for s in shown)
            rows.append(f"| {part}: {name} | {' | '.join(cells)} |")
    return head + rows
