"""Seconds of parts of the code, from functions that are replaced by timed ones: measuring costs next to nothing."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence


class Parts:
    """Seconds of each part; the time of a function that another one calls counts for its own part alone.

    Args:
        places: Part → functions, as `module:name` below `h2tune`.
        clock: Returns the time in seconds.
    """

    def __init__(self, places: Mapping[str, Sequence[str]], clock: Callable[[], float]) -> None:
        self.seconds = dict.fromkeys(places, 0.0)
        self.counting, self.clock = True, clock
        self._inner = [0.0]
        for part, functions in places.items():
            for place in functions:
                module, _, path = place.partition(":")
                owner = importlib.import_module(f"h2tune.{module}")
                *outer, name = path.split(".")
                for step in outer:
                    owner = getattr(owner, step)
                setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable, part: str) -> Callable:
        @functools.wraps(function)
        def call(*arguments, **named):
            if not self.counting:
                return function(*arguments, **named)
            self._inner.append(0.0)
            start = self.clock()
            try:
                return function(*arguments, **named)
            finally:
                took = self.clock() - start
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took

        return call
