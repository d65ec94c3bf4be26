"""Methods by name: strategies and ablations of h2tune, each with optional overrides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from h2tune import own_code
from h2tune.baselines import MODULES
from h2tune.errors import H2TuneError, nearest

ABLATIONS: dict[str, tuple[str, ...]] = {
    "h2tune-leading": ("experimental.mask=leading",),
    "h2tune-depth": ("experimental.alignment=depth",),
    "h2tune-joint": ("experimental.alternation=joint",),
    "h2tune-alone": (),
}
"""Ablation of h2tune → its override. `h2tune-alone` has none: its results are those of the stage "alone"."""

CHANGE = re.compile(r"\+(?=[A-Za-z_][\w.-]*=)")
"""Separates a name from its overrides, and these from each other; does not match the + of 1e+3."""


@dataclass(frozen=True)
class Method:
    """A method of a comparison.

    Args:
        label: Its name in tables.
        text: The method as the user wrote it.
        strategy: `server.strategy` of its runs.
        changes: Overrides of the federation file, as after --set.
        stage: The stage of its runs that holds its results: "trained" or "alone".
        runs_as: Name of the method whose runs it uses; "" for its own.
    """

    label: str
    text: str
    strategy: str
    changes: tuple[str, ...]
    stage: Literal["trained", "alone"] = "trained"
    runs_as: str = ""

    @property
    def name(self) -> str:
        """Its name without overrides."""
        return CHANGE.split(self.text)[0]

    @property
    def folder(self) -> str:
        """Name of the folder of its runs; h2tune and h2tune-alone have the same, so that nothing is trained twice."""
        _, *changes = CHANGE.split(self.text)
        runs_as = "h2tune" if self.stage == "alone" else self.runs_as
        name = "+".join([runs_as, *changes]) if runs_as else self.text
        safe = re.sub(r"[^A-Za-z0-9._+=-]", "_", name)
        if safe == name and len(name) <= 100:
            return name
        return f"{safe[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def parse_methods(texts: Sequence[str]) -> list[Method]:
    """Parse methods such as `local`, `h2tune-joint`, `fedit+train.learning_rate=3e-4` or `module:object`.

    A method's label is the whole text, so that no table leaves out what was changed.

    Raises:
        H2TuneError: No method has that name, or a method is listed twice.
    """
    methods = [_parse(text.strip()) for text in texts if text.strip()]
    if not methods:
        raise H2TuneError("no methods", where="--methods", remedy="Name some, such as local,h2tune")
    written = [method.text for method in methods]
    for text in written:
        if written.count(text) > 1:
            raise H2TuneError(f"'{text}' is listed twice", where="--methods")
    return methods


def reference_of(methods: Sequence[Method], against: str | None) -> Method:
    """Return the method to which differences are taken: the one called `against`, or local, or the first.

    Raises:
        H2TuneError: No method of the comparison has that name.
    """
    name = against or "local"
    for method in (*(m for m in methods if m.label == name), *(m for m in methods if m.name == name)):
        return method
    if against is None:
        return methods[0]
    labels = [method.label for method in methods]
    raise H2TuneError(
        f"'{against}' is not one of the methods{nearest(against, labels)}",
        where="--against",
        remedy="Name one of --methods",
    )


def as_local(method: Method) -> Method:
    """Return a method that uses the runs of `local`, for a federation in which none of its clients can share."""
    return replace(method, strategy="local", runs_as="local")


def _parse(text: str) -> Method:
    name, *changes = CHANGE.split(text)
    if own_code.is_reference(name):
        return Method("+".join([own_code.short(name), *changes]), text, name, tuple(changes))
    known = ["h2tune", *ABLATIONS, *MODULES]
    if name not in known:
        raise H2TuneError(
            f"no method is called '{name}'{nearest(name, known)}",
            where="--methods",
            remedy=f"Known: {', '.join(known)}; with overrides as in h2tune+train.learning_rate=3e-4",
        )
    strategy = "h2tune" if name in ABLATIONS else name
    stage: Literal["trained", "alone"] = "alone" if name == "h2tune-alone" else "trained"
    return Method(text, text, strategy, (*ABLATIONS.get(name, ()), *changes), stage)
