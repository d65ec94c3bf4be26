"""Measure how the squared gradient of the joint objective falls with the number of rounds T.

    python benchmarks/convergence/measure.py

For every horizon T, h2tune runs T rounds with step size c / √T and plain SGD; before each round the full-batch gradient
of the objective to everything that is trained is taken. Writes `slope.csv` and `slope.svg` beside this file.
"""

from __future__ import annotations

import argparse
import csv
import gc
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from clients import build, squared_gradient
from picture import draw
from scipy import stats

from h2tune.federation.messages import Update
from h2tune.federation.strategy import decoded

HERE = Path(__file__).parent


def squared_gradients(case: tuple[int, int], scale: float, local_steps: int, batch: int) -> list[float]:
    """Run `case` = (seed, rounds) and return ‖∇F‖² at the start of each round."""
    seed, horizon = case
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # the Trainer collects garbage in every round; it need not walk through all libraries
    strategy, clients = build(seed)
    state, found = strategy.start(), []
    for t in range(horizon):
        found.append(squared_gradient(strategy, clients, state, t)[1])
        updates = []
        for client in clients:
            client.train(t, scale / horizon**0.5, local_steps, batch, seed)
            sent = client.adapted.send()
            update = Update(client.enrolment.name, t, client.enrolment.examples, sent)
            updates.append(decoded(strategy, update))
        state, _ = strategy.aggregate(state, updates)
    return found


def slope(horizons: list[int], means: list[float]) -> float:
    """Return the slope of log mean against log T by least squares."""
    return float(np.polyfit(np.log(horizons), np.log(means), 1)[0])


def main() -> None:
    """Measure, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--horizons", type=int, nargs="+", default=[12, 24, 48, 96, 192, 384])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.2, help="c: the step size is c / √T")
    parser.add_argument("--local-steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    began, table = time.perf_counter(), []
    cases = list(product(range(options.seeds), options.horizons))
    work = partial(
        squared_gradients, scale=options.scale, local_steps=options.local_steps, batch=options.batch
    )
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for (seed, horizon), norms in zip(cases, pool.map(work, cases), strict=True):
            last = fmean(norms[-max(1, horizon // 4) :])
            table.append((seed, horizon, fmean(norms), norms[0], last))
            print(
                f"seed {seed}, T {horizon}: mean ‖∇F‖² {table[-1][2]:.5f}, last quarter {last:.5f}",
                flush=True,
            )
    by_seed = [[row[2] for row in table if row[0] == seed] for seed in range(options.seeds)]
    means = [fmean(column) for column in zip(*by_seed, strict=True)]
    slopes = [slope(options.horizons, values) for values in by_seed]
    fitted = slope(options.horizons, means)
    with (options.out / "slope.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("seed", "horizon", "mean_squared_gradient", "first_round", "last_quarter"))
        writer.writerows(table)
    (options.out / "slope.svg").write_text(draw(options.horizons, by_seed, means, fitted), encoding="utf-8")
    decades = np.log10(options.horizons[-1] / options.horizons[0])
    print(
        f"slope {fitted:.3f} over {decades:.2f} decades of T; by seed {', '.join(f'{s:.3f}' for s in slopes)}"
    )
    if len(slopes) > 1:
        low, high = stats.t.interval(0.95, len(slopes) - 1, fmean(slopes), stats.sem(slopes))
        print(f"mean of the seeds {fmean(slopes):.3f}, 95 % t interval {low:.3f} to {high:.3f}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
