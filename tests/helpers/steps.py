"""A monitor that counts the steps of a run."""

from __future__ import annotations

import h2tune


class Steps(h2tune.Monitor):
    """Counts steps; `totals` has each number that was announced, with the steps done by then."""

    def __init__(self):
        self.totals, self.done = [], 0

    def on_event(self, event):
        pass

    def on_total(self, steps):
        self.totals.append((steps, self.done))

    def on_step(self, client, step, phase, loss):
        self.done += 1
