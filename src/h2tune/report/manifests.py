"""Tables of what went over the wire: view model → rows of text. Pure."""

from __future__ import annotations

from h2tune.report import formats
from h2tune.report.parts import Cell, Table
from h2tune.report.view import View, WireTensor

DIGITS = 12
"""Leading digits of a checksum that are shown; all 64 are in the events."""
MOST_CHECKSUMS = 12_000
"""More than this in all would make the report too large to open."""
SHARED = ("delta.", "mask.")
"""How the names of ΔT and Ω start in an h2tune message; P is "relation"."""


def what_is_sent(view: View) -> str:
    """Return in plain words what left the clients, and what did not; by the lists of what was sent alone."""
    names = sorted({t.name for c in view.clients for r in c.trained.values() for t in r.sent})
    other = [name for name in names if name != "relation" and not name.startswith(SHARED)]
    if not names:
        return "No client sent any tensor: nothing but its number of training examples and these metrics left it."
    if names == ["masked"]:
        return (
            "A client sends what it learned under masks (masked), which cancel in the sum over clients, its keys and "
            "shares for them, and these metrics. The server can unmask the sum alone. The lists below hold every "
            "tensor that was sent, with the checksums of masked values."
        )
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        return (
            f"With this strategy ({view.strategy or 'unknown'}) a client sends {', '.join(other[:3])}{more}, its "
            "number of training examples, and these metrics. The lists below hold every tensor that was sent. Data "
            "never leave a client."
        )
    return (
        "A client sends the increments ΔT (delta), the mask Ω (mask), the relation P (relation), its number of "
        "training examples, and these metrics. A, B, the mask scores, task heads and data never leave it: no tensor "
        "of theirs is in the lists below, which hold every tensor that was sent."
    )


def totals(view: View) -> Table:
    """Return what each client exchanged in all, and whether its model held what it had been sent."""
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        rounds = list(client.trained.values())
        if not rounds:
            continue
        up, down = sum(t.bytes_up for t in rounds), sum(t.bytes_down for t in rounds)
        checked = [t.received_matches for t in rounds if t.received_matches is not None]
        held = f"{sum(checked)} of {formats.plural(len(checked), 'round')}" if checked else formats.NONE
        rows.append(
            [client.name, str(len(rounds)), formats.size(up / len(rounds)), formats.size(up),
             formats.size(down), held]
        )  # fmt: skip
    head = [
        "client",
        "rounds",
        "sent per round",
        "sent in all",
        "received in all",
        "model held what was sent to it",
    ]
    return Table("Messages", head, rows)


def manifests(view: View) -> list[Table]:
    """Return each client's wire manifest: every tensor that left it or reached it, with checksums by round.

    Where there are very many, every tensor is still listed, but with its checksums of the first and last round alone.
    """
    tables = []
    every = not _many(view)
    for client in view.clients:
        if not client.trained:
            continue
        rounds = sorted(client.trained)
        shown = rounds if every or len(rounds) < 3 else [rounds[0], rounds[-1]]
        sent = _manifest("sent", {r: client.trained[r].sent for r in rounds}, shown)
        received = _manifest("received", {r: client.trained[r].received for r in rounds}, shown)
        head = ["tensor", "direction", "shape", "type", "bytes", *(f"SHA-256, round {r + 1}" for r in shown)]
        caption = f"{client.name}: {formats.plural(len(sent), 'tensor')} sent, {len(received)} received"
        tables.append(Table(caption, head, [*sent, *received], words=(1, 2, 3), folded=True))
    return tables


def _many(view: View) -> bool:
    trained = [t for client in view.clients for t in client.trained.values()]
    return sum(len(t.sent) + len(t.received) for t in trained) > MOST_CHECKSUMS


def _manifest(
    direction: str, by_round: dict[int, tuple[WireTensor, ...]], shown: list[int]
) -> list[list[Cell | str]]:
    sums: dict[tuple[str, tuple[int, ...], str, int], dict[int, str]] = {}
    for when, tensors in by_round.items():
        for t in tensors:
            sums.setdefault((t.name, t.shape, t.dtype, t.bytes), {})[when] = t.sha256[:DIGITS]
    return [
        [
            Cell(name, code=True),
            direction,
            formats.shape(shape),
            dtype,
            formats.count(size),
            *(Cell(known.get(when, formats.NONE), code=when in known) for when in shown),
        ]
        for (name, shape, dtype, size), known in sorted(sums.items())
    ]
