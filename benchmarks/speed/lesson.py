"""A client's part of the exchange as public texts, own labels or kinds of labels grow: seconds of a lesson.

    OMP_NUM_THREADS=1 python benchmarks/speed/lesson.py

From features that are read already: own head, label directions, the teacher of equation (14), and its comparison with
the client alone. Features are random, 384 wide; a common direction makes the labels. Processor time.
"""

from __future__ import annotations

import argparse
import time

import torch
from growth import exponent
from timing import Spread, in_turn, table

from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.federation.teaching.stacking import OwnScores
from h2tune.training.linear_head import extrapolate, head_scores

WIDTH, SIZE = 384, 64
USUAL = {"public texts": 480, "own labels": 32, "kinds of labels": 2}
POINTS = {"public texts": (120, 480, 1920), "own labels": (32, 128, 512), "kinds of labels": (2, 8, 32)}


def measure(texts: int, labels: int, kinds: int) -> float:
    """Return the processor seconds of one client's lesson."""
    draw = torch.Generator().manual_seed(0)
    rule = torch.randn(WIDTH, kinds, generator=draw)
    public = torch.randn(texts, WIDTH, generator=draw)
    own = torch.randn(max(labels, 4 * kinds), WIDTH, generator=draw)
    answers = (own @ rule).argmax(1)
    z = torch.linalg.qr(torch.randn(texts, SIZE, generator=draw)).Q * texts**0.5
    directions = KNOWLEDGE["directions"]
    start = time.process_time()
    scores = head_scores(own, answers, kinds, public)
    known = OwnScores(public, own, answers, scores, extrapolate(public, z, own), seed=0)
    sent = directions.upload(z, known)
    directions.teach(z, known, sent, {"peers": sent["direction"]})
    return time.process_time() - start


def main() -> None:
    """Measure each axis, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    measure(*USUAL.values())
    rows: list[tuple[str, ...]] = []
    for axis, points in POINTS.items():
        sizes = [{**USUAL, axis: point} for point in points]
        works = {str(size[axis]): lambda size=size: measure(*size.values()) for size in sizes}
        found = [Spread.of(values) for values in in_turn(works, options.repeats).values()]
        rows += [(axis, str(point), spread.text(2)) for point, spread in zip(points, found, strict=True)]
        slope = exponent(list(points), [spread.median for spread in found])
        rows.append((axis, "exponent", f"{slope:.2f}"))
    print(table(("axis", "size", "s"), rows))


if __name__ == "__main__":
    main()
