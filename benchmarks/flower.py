"""Measure the cost of a round on Flower without training: seconds, and bytes on the wire against the payload.

    python benchmarks/flower.py --members 3 10

Real SuperLink and SuperNode processes on the loopback interface, without TLS, through a proxy that counts bytes.
Training and scoring are stubbed to nothing (flower_stub.py). Prints one row of a table for each number of clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from helpers import deployment, federations  # noqa: E402

from h2tune.events import read_events  # noqa: E402

STEPS = ("start", "import", "work", "return")


class Relay:
    """Passes connections on to a port of the loopback interface and counts bytes in both directions."""

    def __init__(self, port: int, target: int) -> None:
        self.target, self.bytes = target, 0
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(port, ready)), daemon=True).start()
        ready.wait()

    async def _serve(self, port: int, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                self.bytes += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()


def content(folder: Path, members: int, rounds: int, rank: int) -> dict[str, Any]:
    """Return a federation of equal tiny clients with updates of some megabytes."""
    clients = [(f"m{i:02d}", "llama", rank) for i in range(members)]
    options = {"llama": {"blocks": 4, "width": 2 * rank}}
    server = {"rounds": rounds, "min_clients": members}
    return federations.federation(
        folder,
        clients,
        options=options,
        server=server,
        train={"local_steps": 1},
        data={"train": 8, "test": 4},
    )


def measure(members: int, rounds: int, rank: int, idle: float, warm: bool) -> dict[str, float]:
    """Run a federation and return the means of rounds 2 … (the first has no download)."""
    with tempfile.TemporaryDirectory() as name:
        folder, times = Path(name), Path(name) / "times.jsonl"
        os.environ["TIMES"] = str(times)
        port, public = deployment.free_port(), deployment.free_port()
        laid = deployment.lay_out(
            folder, content(folder, members, rounds, rank), port, gather=3600.0, patience=60.0
        )
        log, counted = laid / "coordinator" / "run" / "events.jsonl", {}
        with deployment.deployment(laid, port, public=public) as parties:
            parties.superlink(HERE / "flower_stub.py")
            relay = Relay(public, port)
            for i in range(members):
                parties.supernode(f"m{i:02d}", patch=HERE / "flower_stub.py", forked=False)
            for i in range(members if warm else 0):
                parties.worker(f"m{i:02d}", HERE / "flower_stub.py")
            parties.until(
                lambda: all("SuperNode ID" in parties.log(f"m{i:02d}") for i in range(members)), 600
            )
            before = relay.bytes
            time.sleep(idle)
            polling = (relay.bytes - before) / idle / members
            parties.run()
            while len(counted) < rounds:
                assert "raised an exception" not in parties.run_log(), parties.tails()
                done = log.read_text().count('"aggregated"') if log.exists() else 0
                counted.setdefault(done, relay.bytes)
                counted.pop(0, None)
                time.sleep(0.1)
        events = read_events(log)
        return summary(
            events, counted, polling, [json.loads(line) for line in times.read_text().splitlines()]
        )


def summary(
    events: list[dict[str, Any]], counted: Mapping[int, int], polling: float, notes: list[dict[str, Any]]
) -> dict[str, float]:
    """Return means over rounds and clients."""
    ends = [e["time"] for e in events if e["event"] == "aggregated"]
    rounds = len(ends)
    trained = [e for e in events if e["event"] == "client_trained" and e["round"]]
    payload = sum(e["bytes_up"] + e["bytes_down"] for e in trained)
    wire = counted[rounds] - counted[1]
    found: dict[tuple[str, int], dict[str, Any]] = defaultdict(dict)
    for line in notes:
        found[line["client"], line["round"]][line["what"]] = line
    steps: dict[str, list[float]] = {step: [] for step in STEPS}
    for (_, number), by in found.items():
        if number:
            started = by["imported"]["started"]
            marks = [by["sent"]["time"], started, *(by[w]["time"] for w in ("imported", "ready", "answered"))]
            for step, one, two in zip(STEPS, marks, marks[1:], strict=False):
                steps[step].append(two - one)
    return {
        "seconds": (ends[-1] - ends[0]) / (rounds - 1),
        **{step: median(values) for step, values in steps.items()},
        "again": sum(e.get("code") == "sent_again" for e in events),
        "processor": median(by["ready"]["processor"] for (_, number), by in found.items() if number),
        "payload": payload / (rounds - 1) / 1e6,
        "wire": wire / (rounds - 1) / 1e6,
        "ratio": wire / payload,
        "polling": polling,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rank", type=int, default=96, help="r of all members, and so R")
    parser.add_argument("--worker", action="store_true", help="a worker beside each SuperNode")
    parser.add_argument(
        "--idle", type=float, default=20.0, help="seconds that polling is counted for beforehand"
    )
    arguments = parser.parse_args()
    print(
        "| members | s per round | sent → process | → imported | → answer ready | → taken in | CPU s per member",
        end=" ",
    )
    print(
        "| payload, MB per round | on the wire, MB | ratio | polling, B/s per member | sent again |",
        flush=True,
    )
    for members in arguments.members:
        m = measure(members, arguments.rounds, arguments.rank, arguments.idle, arguments.worker)
        steps = " | ".join(f"{m[step]:.1f}" for step in STEPS)
        steps += f" | {m['processor']:.1f}"
        wire = f"{m['payload']:.2f} | {m['wire']:.2f} | {m['ratio']:.3f} | {m['polling']:.0f}"
        print(f"| {members} | {m['seconds']:.1f} | {steps} | {wire} | {m['again']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
