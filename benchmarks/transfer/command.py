"""What the commands for real pairs have in common: options, and the table at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from table import read_rows, summary


def parser(about: str | None, splits: Sequence[str], scale: float) -> argparse.ArgumentParser:
    """Return the options; the first split is the one to choose by, `scale` the default of s."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    found.add_argument("--split", default=splits[0], choices=splits)
    found.add_argument("--runs", type=int, default=5)
    found.add_argument("--scales", type=float, nargs="+", default=[scale])
    found.add_argument("-k", type=int, default=64)
    found.add_argument("--cache", type=Path, default=Path("transfer-cache"))
    found.add_argument("--out", type=Path, default=Path(__file__).parent)
    return found


def begin(found: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, use one thread and make the folders."""
    args = found.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def conclude(args: argparse.Namespace, name: str, kind: str) -> None:
    """Write and print the table of the rows in OUT/NAME.csv; `kind` heads its column of T's kind."""
    table = summary(read_rows(args.out / f"{name}.csv"), args.split, kind)
    print(table or "One run each: no interval, so no table is written; the rows are in the CSV file.")
    if table:
        (args.out / f"{name}-{args.split}.md").write_text(table, encoding="utf-8")
