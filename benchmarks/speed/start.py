"""How long it takes to start: the commands that a user types first, each in a process of its own.

    python benchmarks/speed/start.py [--repeats 7]

Every command runs once beforehand, so that its files are in memory. `import torch, transformers, peft` is what nothing
that looks at a model can do without. Of `h2tune run` the first line that it prints counts; then it is stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Spread, in_turn, seconds, table

ROOT = Path(__file__).parents[2]
H2TUNE = str(Path(sys.executable).parent / "h2tune")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import h2tune": [sys.executable, "-c", "import h2tune, sys; assert 'torch' not in sys.modules"],
    "h2tune --help": [H2TUNE, "--help"],
    "import torch, transformers, peft": [sys.executable, "-c", "import torch, transformers, peft"],
    "h2tune inspect": [H2TUNE, "inspect", str(ROOT / "examples" / "quickstart.toml")],
}
FIRST_LINE = "h2tune run, first line"
TARGETS = {"h2tune --help": "0.25", "h2tune inspect": "5", FIRST_LINE: "2"}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    for command in COMMANDS.values():
        start(command)
    works = {n: lambda c=c: seconds(lambda: start(c)) for n, c in COMMANDS.items()}
    values = in_turn({**works, FIRST_LINE: first_line}, repeats)
    rows = [[f"`{name}`", Spread.of(v).text(2), TARGETS.get(name, "")] for name, v in values.items()]
    print(table(["command", "s", "target, s"], rows))


def start(command: list[str]) -> None:
    """Run a command to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def first_line() -> float:
    """Return the seconds until a run says something."""
    with tempfile.TemporaryDirectory() as folder:
        command = [H2TUNE, "run", str(ROOT / "examples" / "quickstart.toml"), "--out", f"{folder}/run"]
        before = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout and process.stdout.readline()
        took = time.perf_counter() - before
        process.kill()
        process.communicate()
    return took


if __name__ == "__main__":
    main()
