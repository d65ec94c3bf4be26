"""Charts of what is shared: relation, mask coverage, change of G; view model → figures. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from h2tune.report import formats
from h2tune.report.heat import HeatMap, heat_maps
from h2tune.report.parts import Figure, figure
from h2tune.report.plots import Series, lines
from h2tune.report.svg import Axis, count_axis, linear_axis
from h2tune.report.view import View


def relation(view: View) -> list[Figure]:
    """Return each client's relation matrix P after its first and its last round."""
    found = []
    for i, client in enumerate(view.clients):
        matrices = {r: t.relation for r, t in sorted(client.trained.items()) if t.relation}
        maps = _first_and_last(matrices)
        if not maps:
            continue
        first, last = maps[0].values, maps[-1].values
        rows, columns = len(last), len(last[0])
        change, row, column = max(
            (abs(last[g][b] - first[g][b]), g, b) for g in range(rows) for b in range(columns)
        )
        note = f"{formats.plural(columns, 'block')} look at {formats.plural(rows, 'slot')}"
        if len(maps) == 2:
            note += f"; largest change of an entry {formats.number(change, 2)}, at slot {row}, block {column}"
        title = f"Relation of {client.name}'s blocks to shared slots"
        svg = heat_maps(
            f"relation-{i}", title, note, maps, count_axis("slot", 0, rows - 1, room=7),
            count_axis("block", 0, columns - 1, room=5), high=1, form=lambda v: formats.number(v, 1),
            cell_height=max(150 / rows, 5),
        )  # fmt: skip
        found.append(figure(client.name, svg, note))
    return found


def coverage(view: View) -> list[Figure]:
    """Return which entries of the common grid each client's masks keep, in its first and its last round."""
    found = []
    for i, client in enumerate(view.clients):
        maps = _first_and_last({r: t.coverage for r, t in sorted(client.trained.items()) if t.coverage})
        if not maps:
            continue
        cells, size, rank = len(maps[0].values), view.shared_rank, client.rank
        note = ""
        if size and rank:
            note = f"rank {rank} of R = {size}: {formats.count(rank**2)} of {formats.count(size**2)} entries"
            note += f" ({formats.percent(rank**2 / size**2)})"
        every = max(1, -(-cells // 4))
        ticks = tuple((float(c), str(c * (size or cells) // cells)) for c in range(0, cells, every))
        high = max(value for shown in maps for row in shown.values for value in row) or 1
        title = f"Entries that {client.name}'s masks keep"
        svg = heat_maps(
            f"coverage-{i}", title, note, maps, Axis("row of the grid", 0, cells - 1, ticks),
            Axis("column of the grid", 0, cells - 1, ticks), high=high, form=lambda v: formats.percent(v, 0),
        )  # fmt: skip
        found.append(figure(client.name, svg, note))
    return found


def _first_and_last(matrices: Mapping[int, Sequence[Sequence[float]] | None]) -> list[HeatMap]:
    """Return the maps of the first and the last round, or one if there is one or their shapes differ."""
    known = [(r, values) for r, values in matrices.items() if values]
    ends = [known[0], known[-1]] if len(known) > 1 else known
    if len(ends) == 2 and [len(row) for row in ends[0][1]] != [len(row) for row in ends[1][1]]:
        ends = ends[1:]
    return [HeatMap(f"round {r + 1}", values) for r, values in ends]


def shared_change(view: View) -> list[Figure]:
    """Return how far what the server holds moved in each round, by role (or kind of tensor) and as a whole."""
    return [*_change_by_role(view), *_change_as_a_whole(view), *_relevance(view)]


def _change_by_role(view: View) -> list[Figure]:
    steps = dict(sorted(view.aggregates.items()))
    names = [r for r in view.roles if any(r in a.change_by_role for a in steps.values())]
    names += sorted({r for a in steps.values() for r in a.change_by_role} - set(names))
    if not names:
        return []
    values = [[a.change_by_role.get(name, 0.0) for a in steps.values()] for name in names]
    high = max(max(row) for row in values) or 1
    rows = tuple((float(i), name if len(name) < 13 else name[:12] + "…") for i, name in enumerate(names))
    every = max(1, -(-len(steps) // 8))
    columns = tuple((float(i), str(r + 1)) for i, r in enumerate(steps) if i % every == 0)
    told = "; ".join(
        f"{name}: " + ", ".join(map(formats.number, row)) for name, row in zip(names, values, strict=True)
    )
    word = "role" if view.shares_middles else "kind of tensor"
    svg = heat_maps(
        "shared-roles", f"Change of {view.held} by {word} and round", told,
        [HeatMap("L2 norm of the change", values)], Axis(word, 0, len(names) - 1, rows),
        Axis("round", 0, len(steps) - 1, columns), high=high, form=formats.short, left=86,
        cell_height=max(21, 105 / len(names)),
    )  # fmt: skip
    return [figure(f"By {word}", svg)]


def _relevance(view: View) -> list[Figure]:
    """Return how relevant clients were to each other in the first and the last round; nothing where all have one G."""
    found = {r: a.relevance for r, a in sorted(view.aggregates.items()) if a.relevance}
    clients = [f.clients for f in found.values() if len(f.clients) > 1][-1:]
    if not clients:
        return []
    names = clients[0]
    maps = _first_and_last({r: f.weights for r, f in found.items() if f.clients == names})
    ticks = tuple((float(i), name if len(name) < 9 else name[:8] + "…") for i, name in enumerate(names))
    pairs = itertools.permutations(range(len(ticks)), 2)
    most, i, j = max(((maps[0].values[i][j], i, j) for i, j in pairs), default=(0.0, 0, 0))
    most_relevant = f"most relevant is {names[j]} to {names[i]}, {formats.number(most, 2)}"
    note = f"{maps[0].caption}: {most_relevant if most > 0 else 'nobody is relevant to another'}"
    svg = heat_maps(
        "relevance", "How relevant what a client learned is to another", note, maps,
        Axis("to", 0, len(ticks) - 1, ticks), Axis("of what each learned, in the same order", 0, len(ticks) - 1, ()),
        high=1, form=lambda v: formats.number(v, 1), left=86, cell_height=max(26, 105 / len(ticks)),
    )  # fmt: skip
    return [figure("Relevance", svg, note)]


def _change_as_a_whole(view: View) -> list[Figure]:
    series, rounds = [], view.rounds
    for name, look, attribute, mark in (
        ("change in the round", "s0", "change", 0),
        (f"norm of {view.held}", "s2", "norm", 2),
    ):
        by_round = {r: getattr(view.aggregates.get(r), attribute, None) for r in range(rounds)}
        if any(value is not None for value in by_round.values()):
            notes = {r + 1.0: f"{name}, round {r + 1}: {formats.number(v)}" for r, v in by_round.items()}
            series.append(Series(name, look, [(r + 1.0, v) for r, v in by_round.items()], mark, notes=notes))
    if not series:
        return []
    y = linear_axis("L2 norm", [0.0, *(v for s in series for _, v in s.points if v is not None)])
    told = "; ".join(f"{s.name}: " + ", ".join(formats.number(v) for _, v in s.points) for s in series)
    title = f"Change and norm of {view.held} by round"
    svg = lines("shared-whole", title, told, series, count_axis("round", 1, rounds), y)
    return [figure("As a whole", svg)]
