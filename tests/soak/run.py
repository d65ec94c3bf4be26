"""Runs a federation of real processes for many rounds, kills them at random, and counts what was lost: `make soak`.

Run it again to go on where it was stopped: state, counts and samples are in SOAK_FOLDER. Every round needs all members,
so that its G can be compared with that of an uninterrupted run on one machine.

| variable | default | meaning |
|---|---|---|
| MEMBERS, ROUNDS, KILLS | 24, 200, 20 | members, rounds of one step each, kills |
| DELAY, LOSS | 0.02, 0.005 | seconds of delay and share of frames lost on a member's wire, each way (root, Linux) |
| HOURS | – | hours after which a sitting stops; it prints the counts so far |
| QUICK | 1 | whether Flower's own pauses are shortened (`helpers/patched/quick.py`); 0: as members run it |
| SOAK_FOLDER, SEED | build/soak, 0 | where everything is; what the draws start from |
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from helpers import deployment, federations, network
from soak.counts import Samples, outcome

from h2tune.events import read_events

MEMBERS, ROUNDS, KILLS, SEED = (
    int(os.environ.get(name, default))
    for name, default in (("MEMBERS", 24), ("ROUNDS", 200), ("KILLS", 20), ("SEED", 0))
)
DELAY, LOSS = float(os.environ.get("DELAY", "0.02")), float(os.environ.get("LOSS", "0.005"))
FOLDER = Path(os.environ.get("SOAK_FOLDER", "build/soak")).resolve()
NAMES = [f"member-{i + 1:02d}" for i in range(MEMBERS)]
QUICK = deployment.PATCHED / "quick.py" if os.environ.get("QUICK", "1") != "0" else None
HOURS = float(os.environ.get("HOURS", "inf"))
VICTIMS = {"supernode": 3, "worker": 2, "superlink": 2, "coordinator": 3}
"""What is killed, and how often of ten."""
AWAY = 10.0
"""Most seconds until a killed process is started again."""
SAMPLES = 100
"""Samples of memory and disk in a soak."""
STALLED = 3600.0
"""Seconds without a finished round after which the soak ends with an error."""


class Soak:
    """One sitting of a soak.

    Args:
        parties: The deployment.
        counts: Counts so far, by name; changed in place and stored.
    """

    def __init__(self, parties: deployment.Deployment, counts: dict[str, Any]) -> None:
        self.parties, self.counts = parties, counts
        self.draw = random.Random(f"{SEED} {counts['kills']} {time.time_ns()}")
        self.samples = Samples(FOLDER / "samples.jsonl", parties)
        self.done = 0  # rounds, at the last look
        self.due: dict[str, float] = {}  # process → when it is started again
        self.next_kill: float | None = None
        self.began = self.moved = time.monotonic()
        self.end = self.began + 3600 * HOURS

    def finish(self) -> None:
        """Run until the last round is done, or the sitting's time is over."""
        before = self.done = self.rounds()
        while not self.finished() and time.monotonic() < self.end:
            self.revive()
            self.coordinate()
            if (done := self.rounds()) != before:
                if done * SAMPLES // ROUNDS > before * SAMPLES // ROUNDS:
                    self.samples.take(done)
                    print(f"round {done} of {ROUNDS}: {self.counts}", flush=True)
                before, self.moved = done, time.monotonic()
            if time.monotonic() - self.moved > STALLED:
                raise SystemExit(f"no round in {STALLED:.0f} s\n{self.parties.tails()}")
            self.kill(before)
            time.sleep(0.5)
            self.note()
        self.samples.take(self.rounds())

    def rounds(self) -> int:
        """Return the number of rounds done."""
        while (self.parties.home / f"run/server/round-{self.done + 1:04d}").exists():
            self.done += 1
        return self.done

    def finished(self) -> bool:
        log = self.parties.home / "run" / "events.jsonl"
        if self.done < ROUNDS or not log.exists():
            return False
        return any(e["event"] == "run_finished" for e in read_events(log))

    def revive(self) -> None:
        """Start what was killed and is due, and what ended by itself."""
        for name in ("superlink", *NAMES, *(f"{name}-worker" for name in NAMES)):
            process = self.parties.processes.get(name)
            if process is not None and process.poll() is not None:
                self.parties.kill(name)  # its children as well
                self.counts["ended by themselves"] += 1
                process = None
            if process is None and time.monotonic() >= self.due.get(name, 0.0):
                self.start(name)

    def start(self, name: str) -> None:
        if name == "superlink":
            self.parties.superlink(QUICK)
        elif name.endswith("-worker"):
            home = self.parties.folder / "members" / name.removesuffix("-worker")
            self.parties.start(name, ["h2tune", "deploy", "worker", "member.toml"], home)
        else:
            self.parties.supernode(name, patch=QUICK)

    def coordinate(self) -> None:
        """Start the coordinator's app where none runs."""
        superlink = self.parties.processes.get("superlink")
        if superlink is None or any("flwr-serverapp" in line for line in commands_below(superlink.pid)):
            return
        if time.monotonic() >= self.due.get("coordinator", 0.0) and not self.finished():
            self.parties.run()
            self.counts["starts of the coordinator"] += 1
            self.due["coordinator"] = time.monotonic() + 30.0  # until its process is there

    def kill(self, done: int) -> None:
        """Kill something at random, at a random moment of the round in which the next kill is due."""
        kills = sum(self.counts["killed"].values())
        if (
            kills >= KILLS
            or done >= ROUNDS
            or done < kills * ROUNDS // KILLS
            or not (self.parties.home / "run").exists()
        ):
            return
        if self.next_kill is None:
            self.next_kill = time.monotonic() + self.draw.uniform(0, 10)
        if time.monotonic() < self.next_kill:
            return
        (victim,) = self.draw.choices(list(VICTIMS), list(VICTIMS.values()))
        if victim == "coordinator":
            try:
                self.parties.kill_child("superlink", "flwr-serverapp")
            except (AssertionError, ProcessLookupError, KeyError):
                return  # there is none: another victim is drawn at the next look
        else:
            member = self.draw.choice(NAMES)
            name = {"supernode": member, "worker": f"{member}-worker", "superlink": "superlink"}[victim]
            if name not in self.parties.processes:
                return
            self.parties.kill(name)
            self.due[name] = time.monotonic() + self.draw.uniform(0, AWAY)
        self.next_kill = None
        self.counts["killed"][victim] += 1

    def note(self) -> None:
        self.counts["seconds"] += round(time.monotonic() - self.began, 1)
        self.began = time.monotonic()
        (FOLDER / "counts.json").write_text(json.dumps(self.counts))


def commands_below(pid: int) -> list[str]:
    """Return the command lines of the processes below a process."""
    return [deployment.arguments_of(child) for child in deployment.descendants(pid)]


def content() -> dict[str, Any]:
    """Return the federation file: tiny models, one step a round, and no round without all members."""
    clients = [(name, ("llama", "bert")[i % 2], 4) for i, name in enumerate(NAMES)]
    small = {"llama": {"blocks": 1}, "bert": {"blocks": 1}}
    return federations.federation(
        FOLDER, clients, options=small, server={"rounds": ROUNDS, "min_clients": MEMBERS},
        train={"local_steps": 1}, data={"train": 8, "test": 4}, experimental={"evaluate_rounds": "last"},
    )  # fmt: skip


def laid_out() -> dict[str, Any]:
    """Return the counts so far; write the parties' folders if this is the first sitting.

    Raises:
        SystemExit: The folder has a soak of another size.
    """
    file, size = FOLDER / "counts.json", [MEMBERS, ROUNDS]
    if file.exists():
        counts: dict[str, Any] = json.loads(file.read_text())
        if counts["size"] != size:
            raise SystemExit(
                f"{FOLDER} has a soak of another size, {counts['size']}: name another SOAK_FOLDER"
            )
        return counts
    FOLDER.mkdir(parents=True, exist_ok=True)
    counts = {
        "size": size,
        "port": deployment.free_port(),
        "network": networked(),
        "killed": dict.fromkeys(VICTIMS, 0),
    }
    counts |= {"kills": KILLS, "starts of the coordinator": 0, "ended by themselves": 0, "seconds": 0.0}
    seconds = {"deadline": 120.0, "patience": 20.0, "gather": 600.0}
    host = network.HUB if counts["network"] else "127.0.0.1"
    deployment.lay_out(FOLDER, content(), counts["port"], host=host, **seconds)
    file.write_text(json.dumps(counts))
    return counts


def networked() -> bool:
    """Return whether this machine can give each member a wire of its own."""
    try:
        with network.network(["trial"], delay=0.0, loss=0.0):
            return True
    except network.Unavailable as error:
        print(f"without delay and loss: {error}", flush=True)
        return False


def main() -> None:
    """Run, or go on, and print the counts; ends with 1 if anything was lost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # not without the processes that it started
    counts = laid_out()
    with contextlib.ExitStack() as stack:
        kind: type[deployment.Deployment] = deployment.Deployment
        if counts["network"]:
            kind = network.spread(stack.enter_context(network.network(NAMES, delay=DELAY, loss=LOSS)))
            kind.bind = "0.0.0.0"  # in a namespace of its own
        parties = stack.enter_context(deployment.deployment(FOLDER / "parties", counts["port"], kind=kind))
        soak = Soak(parties, counts)
        soak.finish()
    lines, lost = outcome(FOLDER, MEMBERS, soak.done, counts)
    print("\n".join(lines))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
