"""How long it takes to start: the commands that a user types first, each in a process of its own.

    python benchmarks/speed/start.py [--repeats 7]

Every command runs once beforehand, so that its files are in memory. `import torch, transformers, peft` is what nothing
that looks at a model can do without.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
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
TARGETS = {"h2tune --help": "0.25", "h2tune inspect": "5"}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    for command in COMMANDS.values():
        start(command)
    values = in_turn({n: lambda c=c: seconds(lambda: start(c)) for n, c in COMMANDS.items()}, repeats)
    rows = [[f"`{name}`", Spread.of(v).text(2), TARGETS.get(name, "")] for name, v in values.items()]
    print(table(["command", "s", "target, s"], rows))


def start(command: list[str]) -> None:
    """Run a command to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
