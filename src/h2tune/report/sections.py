"""The report's sections: what is said about each table and chart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from h2tune.report import charts, costs, formats, manifests, matrices, protection, tables
from h2tune.report.parts import Section, legend_entry
from h2tune.report.svg import CROSS
from h2tune.report.view import View


def sections(view: View) -> list[Section]:
    """Return the sections in their order; those that the run has nothing for say so, optional ones are left out."""
    if view.comparison:
        return [compare(view)]
    found = [results(view)]
    if view.compared:
        found.append(compare(view))
    middles = [
        section for section in (relation(view), coverage(view)) if section.figures or view.shares_middles
    ]
    return [
        *found, accuracy(view), loss(view), wire(view), movement(view), *middles,
        shared(view), *protection.sections(view), traffic(view), timing(view), setup(view),
    ]  # fmt: skip


def results(view: View) -> Section:
    """Return the table of accuracies and how to read it."""
    told = summary(view)
    alone = ", after training alone" if any(client.alone for client in view.clients) else ""
    reading = (
        f"Accuracy on the same examples before training{alone} and after training in the federation. Below each "
        f"accuracy stands Wilson's {formats.LEVEL} interval; below the difference, Newcombe's, which takes the two as "
        "independent and is wider than it need be where both are scored on the same examples. These intervals say "
        "what a test set of this size can tell. They say nothing of other seeds: h2tune compare does."
    )
    return Section("results", "Results", [*([told] if told else []), reading], tables=[tables.results(view)])


def summary(view: View) -> str:
    """Return in one sentence what federation added; empty as long as nothing can be said."""
    gains = tables.gains(view)
    if not gains:
        return ""
    base = "training alone" if any(c.alone for c in view.clients) else "no training"
    means = [gap for gap, _ in gains]
    told = f"Federation against {base}: {formats.points(fmean(means))} points"
    if len(gains) > 1:
        told += f" on average over {len(gains)} clients ({formats.points(min(means))} to {formats.points(max(means))})"
    known = [interval for _, interval in gains if interval]
    clear = sum(low > 0 or high < 0 for low, high in known)
    if known:
        told += f"; the {formats.LEVEL} interval leaves out zero for {clear} of {formats.plural(len(known), 'client')}"
    return told + "."


def compare(view: View) -> Section:
    """Return the table of `compare` and the picture of its differences."""
    against = f" to {view.reference}" if view.reference else ""
    text = [
        f"Methods that ran on the same seeds, compared by their differences{against}, paired by seed: above zero, the "
        f"method of the row is better. Lines are {formats.LEVEL} Student t intervals over seeds; an arrow is an end "
        "that is not known. The bootstrap interval is the percentile one, too narrow with few seeds. p is of the "
        "paired t test; p (Holm) is corrected for all methods on the mean over clients, and for all methods and "
        "clients in the rows by client.",
        *view.remarks,
    ]
    legend = [
        legend_entry("interval leaves out zero", "clear", 0),
        legend_entry("interval holds zero", "unclear", 0),
    ]
    figures = charts.comparison(view.compared, view.reference)
    return Section(
        "compare", "Comparison of methods", text, legend if figures else (), figures, [tables.compared(view)]
    )


def accuracy(view: View) -> Section:
    """Return accuracy by client and round."""
    figures = charts.accuracy(view)
    if not figures:
        return _none("accuracy", "Accuracy by round", "No evaluation is in the events yet.")
    legend = [legend_entry(f"federated, with {formats.LEVEL} interval", "federated", 0)]
    if any(client.alone for client in view.clients):
        legend.append(legend_entry("alone", "alone", 1))
    if any(client.majority for client in view.clients):
        legend.append(legend_entry("always the most frequent label", "majority"))
    if any(not failure.alone for failure in view.failures):
        legend.append(legend_entry("failed", "failed", CROSS))
    text = [
        "All clients share one vertical scale. A gap in a line is a round in which the client did not finish."
    ]
    return Section("accuracy", "Accuracy by round", text, legend, figures, [tables.by_round(view)])


def loss(view: View) -> Section:
    """Return training losses by client."""
    figures = charts.loss(view)
    if not figures:
        return _none("loss", "Training loss", "No training is in the events yet.")
    phases = dict.fromkeys(phase for c in view.clients for t in c.trained.values() for phase, _ in t.losses)
    known = {
        "joint": "joint step",
        "shared": "shared phase (Δ, S, Z)",
        "specific": "specific phase (A, B, head)",
    }
    legend = [legend_entry(known.get(p, p), charts.phase_look(p, i)[0]) for i, p in enumerate(phases)]
    if any(v is None for c in view.clients for t in c.trained.values() for _, v in t.losses):
        legend.append(legend_entry("not finite", "failed", CROSS))
    text = [
        "Loss of each optimiser step in the federated rounds, one after the other; vertical lines part the rounds."
    ]
    return Section("loss", "Training loss", text, legend, figures)


def wire(view: View) -> Section:
    """Return what left each client."""
    title = "What left each client"
    if not any(client.trained for client in view.clients):
        return _none("wire", title, "No message is in the events yet.")
    reading = (
        f"Checksums are the first {manifests.DIGITS} digits of SHA-256; events.jsonl has all of them in full. "
        "Training alone is left out: it sends nothing to others."
    )
    return Section(
        "wire",
        title,
        [manifests.what_is_sent(view), reading],
        tables=[manifests.totals(view), *manifests.manifests(view)],
    )


def movement(view: View) -> Section:
    """Return how far parameters moved."""
    figures, title = charts.movement(view), "Movement of parameters"
    if not figures:
        return _none("movement", title, "No movement is in the events yet.")
    kinds = charts.kinds(view)
    legend = [legend_entry(*look) for look in kinds.values()]
    text = [
        "L2 norm of the change of each kind of parameter in a round, on a logarithmic scale; zero lies on the "
        "horizontal axis. A part that should learn and stays there does not learn."
    ]
    if "relation" in kinds:
        text[0] += (
            " In the first round G is zero, so that the relation has nothing to mix and stays as it is."
        )
    table = tables.moves(view)
    text += [] if table.rows else ["Every trained parameter got a gradient in every round."]
    return Section("movement", title, text, legend, figures, [table] if table.rows else ())


def relation(view: View) -> Section:
    """Return relation matrices."""
    figures, title = matrices.relation(view), "Relation of blocks to shared slots"
    if not figures:
        return _none("relation", title, "This run has no relation matrices.")
    text = [
        "P: how much block b of a client's model (column) looks at shared slot g (row), in its first and last round. "
        "A column sums to 1. Blocks and slots count from 0, from the input to the output of the model."
    ]
    return Section("relation", title, text, figures=figures)


def coverage(view: View) -> Section:
    """Return mask coverage."""
    figures, title = matrices.coverage(view), "Mask coverage"
    if not figures:
        return _none("coverage", title, "This run has no masks.")
    text = [
        "Fraction of a client's modules whose mask Ω keeps an entry of the common R × R grid, in its first and last "
        "round. Each client has its own scale. Entries that several clients keep are learned together."
    ]
    return Section("coverage", title, text, figures=figures)


def shared(view: View) -> Section:
    """Return the change of what the server holds."""
    figures, title = matrices.shared_change(view), "Change of what is shared"
    if not figures:
        return _none("shared", title, "No step of the server that changes something is in the events yet.")
    text = [
        "What the server holds for all clients and changes in every round. What moves here reaches clients."
    ]
    if view.shares_middles:
        text = [
            "G, the shared middle matrices, is all that is learned together. What moves here reaches clients."
        ]
    if any(step.relevance for step in view.aggregates.values()):
        text = [
            *text,
            "Each client has a G of its own here, which moves by its own step and by those of others in the "
            "measure of their relevance: 1 where they point the same way, 0 where they have nothing in common. The "
            "change shown is that of the mean, with which a client that comes later begins.",
        ]
    legend = [legend_entry("change in the round", "s0", 0), legend_entry(f"norm of {view.held}", "s2", 2)]
    return Section("shared", title, text, legend, figures, [tables.steps(view)])


def traffic(view: View) -> Section:
    """Return the bytes of messages."""
    figures, title = costs.traffic(view), "Bytes by round"
    if not figures:
        return _none("bytes", title, "No message is in the events yet.")
    legend = [legend_entry("sent", "s0", bar=True), legend_entry("received", "s1", bar=True)]
    text = ["Bytes of the tensors in a client's messages, on one scale for all clients."]
    return Section("bytes", title, text, legend, figures)


def timing(view: View) -> Section:
    """Return where the time went."""
    figures, title = costs.timing(view), "Time by round"
    if not figures:
        return _none("time", title, "No finished training is in the events yet.")
    names = {name for c in view.clients for t in c.trained.values() for name in t.seconds} | {"aggregate"}
    legend = [legend_entry(n, f"t{i}", bar=True) for i, n in enumerate(costs.TIMES) if n in names]
    text = [
        "Time is measured on the machine that did the work. The clients' times add up to the length of a run only "
        "where they take turns on one machine."
    ]
    return Section("time", title, text, legend, figures, [tables.times(view)])


def setup(view: View) -> Section:
    """Return what ran."""
    return Section("setup", "What ran", facts(view), tables=[tables.clients(view)])


def facts(view: View) -> Sequence[str]:
    """Return the settings of the run as sentences."""
    known = [
        ("strategy", view.strategy), ("seed", formats.count(view.seed)),
        ("common rank R", formats.count(view.shared_rank)), ("slots D", formats.count(view.slots)),
        ("mask", view.mask), ("alternation", view.alternation), ("type on the wire", view.wire_dtype),
        ("roles", ", ".join(view.roles)),
    ]  # fmt: skip
    told = " · ".join(f"{name} {value}" for name, value in known if value not in ("", formats.NONE))
    return [told] if told else []


def _none(key: str, title: str, reason: str) -> Section:
    return Section(key, title, [reason])
