"""Errors that the user can fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class H2TuneError(Exception):
    """A problem that the user can fix: what is wrong, where, and what to do.

    The command line prints the message as one line and exits with status 2; no traceback.

    Args:
        message: The problem, in one sentence, without a final full stop.
        where: The file, key, line or client that it concerns.
        remedy: What to do about it.
    """

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message, self.where, self.remedy = message, where, remedy
        super().__init__(": ".join(p for p in (where, message) if p) + (f". {remedy}" if remedy else ""))


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Put a place, such as a client, before that of an error that is raised in the block.

    Raises:
        H2TuneError: The same, with both places.
    """
    try:
        yield
    except H2TuneError as error:
        places = ", ".join(place for place in (where, error.where) if place)
        raise H2TuneError(error.message, where=places, remedy=error.remedy) from None


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 round" or "3 rounds"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return `" (did you mean 'x'?)"` for the known word nearest to `word`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
