"""Fuzzes one target with atheris (libFuzzer, guided by coverage): python tests/fuzz/run.py TARGET SECONDS.

Tells every 1,000 executions how many inputs were accepted, and ends with libFuzzer's "Done N runs in S second(s)". What
breaks a target is written to crash-…; give that file as a third argument to run it alone.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
with atheris.instrument_imports(include=["h2tune"]):
    from fuzz.targets import TARGETS

SHOWN_EVERY = 1000


class Provided:
    """Choices drawn by libFuzzer."""

    def __init__(self, data: bytes) -> None:
        self.provider = atheris.FuzzedDataProvider(data)

    def integer(self, low: int, high: int) -> int:
        return self.provider.ConsumeIntInRange(low, high)

    def binary(self, most: int) -> bytes:
        return self.provider.ConsumeBytes(most)


def main() -> None:
    """Fuzz the target that the command line names."""
    name, seconds, *alone = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target, seen = TARGETS[name], Counter[bool]()

    def once(data: bytes) -> None:
        seen[target(Provided(data))] += 1
        if seen.total() % SHOWN_EVERY == 0:
            print(f"{name}: {seen[True]} accepted, {seen[False]} refused", flush=True)

    limits = ["-max_len=2048", "-len_control=20", "-timeout=60", "-rss_limit_mb=3000"]
    atheris.Setup([name, f"-max_total_time={seconds}", "-print_final_stats=1", *limits, *alone], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
