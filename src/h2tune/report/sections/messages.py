"""What left each client: every tensor of its messages with checksums, and bytes by round."""

from __future__ import annotations

from h2tune.report import formats
from h2tune.report.charts import axes
from h2tune.report.charts.bars import Stack, bars
from h2tune.report.charts.theme import SERIES, Look
from h2tune.report.sections.charted import charted
from h2tune.report.sections.parts import Cell, Figure, LegendEntry, Section, Table
from h2tune.report.view.model import ClientView, ReportView, TensorView

DIGITS = 12
"""Leading digits of a checksum that are shown; the events have all 64."""
MOST_CHECKSUMS = 12_000
"""With more checksums than this, the page would be too large to open."""
SHARED = ("delta.", "mask.")
"""How the names of ΔT and Ω start in an h2tune message; P is "relation"."""
BEFORE = -1
"""The number under which the messages before round 0 are listed."""
ONCE = {"view": "each client's view of the public texts", "direction": "its label directions"}
"""What is in the tensors that are sent before round 0."""


def tensors(view: ReportView) -> Section:
    """Return what left each client."""
    title = "What left each client"
    if not any(client.trained or client.sent_once for client in view.clients):
        return Section("wire", title, ["No message has been logged yet."])
    reading = (
        f"Checksums are the first {DIGITS} digits of SHA-256; events.jsonl has them in full. Training alone is not "
        "listed: it sends nothing to others."
    )
    listed = [_manifest(view, client) for client in view.clients if client.trained or client.sent_once]
    return Section("wire", title, [what_is_sent(view), reading], tables=[_totals(view), *listed])


def what_is_sent(view: ReportView) -> str:
    """Return in plain words what left the clients and what did not, according to the tensors that were sent."""
    names = sorted({t.name for c in view.clients for r in c.trained.values() for t in r.sent})
    other = [name for name in names if name != "relation" and not name.startswith(SHARED)]
    listed = "The lists below contain every tensor that was sent"
    if once := sorted({tensor.name for client in view.clients for tensor in client.sent_once}):
        said = ", ".join(f"{ONCE.get(name, 'what others learn from')} ({name})" for name in once)
        listed += f", including what is sent once before round 1: {said}"
    if not names:
        return f"No client sent a tensor in a round: only its number of training examples and these metrics. {listed}."
    if names == ["masked"]:
        return (
            "A client sends what it learned under masks (masked), which cancel in the sum over clients, the keys and "
            "key shares of these masks, and these metrics. The server can recover only the sum. "
            f"{listed}, with the checksums of masked values."
        )
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        return (
            f"With this strategy ({view.strategy or 'unknown'}) a client sends {', '.join(other[:3])}{more}, its "
            f"number of training examples, and these metrics. {listed}. Data never leave a client."
        )
    return (
        "A client sends the increments ΔT (delta), the mask Ω (mask), the relation P (relation), its number of "
        f"training examples, and these metrics. {listed}. A, B, the mask scores, task heads and data never leave it."
    )


def _by_round(client: ClientView) -> dict[int, tuple[tuple[TensorView, ...], tuple[TensorView, ...]]]:
    """Return what a client sent and received by round, in order."""
    found = {r: (t.sent, t.received) for r, t in sorted(client.trained.items())}
    once = (client.sent_once, client.received_once)
    return {BEFORE: once, **found} if any(once) else found


def _totals(view: ReportView) -> Table:
    """Return what each client exchanged in total, and whether its model held what it received."""
    rows: list[list[Cell | str]] = []
    once = any(any(client.traffic.before) for client in view.clients)
    for client in view.clients:
        traffic, rounds = client.traffic, list(client.trained.values())
        if not rounds and not client.sent_once:
            continue
        each = traffic.in_rounds[0] / len(traffic.rounds) if traffic.rounds else None
        checked = [t.received_matches for t in rounds if t.received_matches is not None]
        held = f"{sum(checked)} of {formats.plural(len(checked), 'round')}" if checked else formats.NONE
        rows.append(
            [client.name, str(len(rounds)), formats.size(each), *map(formats.size, traffic.total),
             *([formats.size(traffic.before[0])] if once else []), held]
        )  # fmt: skip
    head = ["client", "rounds", "sent per round", "total sent", "total received",
            *(["of that sent before round 1"] if once else []), "model held what it received"]  # fmt: skip
    return Table("Messages", head, rows)


def _manifest(view: ReportView, client: ClientView) -> Table:
    """Return every tensor that a client sent or received, with checksums by round.

    Where there are very many, every tensor is still listed, but only with the checksums of its first and last round.
    """
    rounds = _by_round(client)
    shown = list(rounds)
    if len(shown) > 2 and _many(view):
        shown = [shown[0], shown[-1]]
    sent, received = (
        _rows(name, {r: both[i] for r, both in rounds.items()}, shown)
        for i, name in enumerate(("sent", "received"))
    )
    columns = ["before round 1" if r == BEFORE else f"round {r + 1}" for r in shown]
    head = ["tensor", "direction", "shape", "type", "bytes", *(f"SHA-256, {column}" for column in columns)]
    caption = f"{client.name}: {formats.plural(len(sent), 'tensor')} sent, {len(received)} received"
    return Table(caption, head, [*sent, *received], words=(1, 2, 3), folded=True)


def _many(view: ReportView) -> bool:
    trained = [t for client in view.clients for t in client.trained.values()]
    return sum(len(t.sent) + len(t.received) for t in trained) > MOST_CHECKSUMS


def _rows(
    direction: str, by_round: dict[int, tuple[TensorView, ...]], shown: list[int]
) -> list[list[Cell | str]]:
    sums: dict[tuple[str, tuple[int, ...], str, int], dict[int, str]] = {}
    for when, some in by_round.items():
        for t in some:
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


def traffic(view: ReportView) -> Section:
    """Return the bytes that each client sent and received in each round."""
    clients = [c for c in view.clients if c.trained]
    if not clients:
        return Section("bytes", "Bytes by round", ["No message has been logged yet."])
    sums = {client.name: client.traffic.by_round() for client in clients}
    high = max(sum(pair) for by_round in sums.values() for pair in by_round.values())
    unit, word = next(
        ((u, w) for u, w in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if high >= u), (1.0, "bytes")
    )
    y = axes.linear(word, [0, high / unit or 1], ticks=4)
    figures, rounds = [], range(view.rounds)
    some, said = charted(clients)
    for i, client in enumerate(some):
        up, down = ([float(sums[client.name].get(r, (0, 0))[i]) for r in rounds] for i in (0, 1))
        note = f"sent {formats.size(sum(up))}, received {formats.size(sum(down))}"
        if any(once := client.traffic.before):
            note += f"; before round 1 {formats.size(once[0])} and {formats.size(once[1])}"
        stacks = [Stack("sent", SERIES[0], up), Stack("received", SERIES[1], down)]
        svg = bars(
            f"bytes-{i}", f"Bytes of {client.name} by round", note, stacks, y, unit=unit, form=formats.size
        )
        figures.append(Figure(client.name, svg, note))
    legend = [
        LegendEntry("sent", Look(SERIES[0]), bar=True),
        LegendEntry("received", Look(SERIES[1]), bar=True),
    ]
    text = [
        "Bytes of the tensors in a client's messages, with the keys and key shares of secure aggregation, on one scale "
        "for all clients. What is exchanged once, before round 1, is in the line below a chart.",
        *said,
    ]
    return Section("bytes", "Bytes by round", text, legend, figures)
