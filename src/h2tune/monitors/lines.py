"""Events as lines of text, for the terminal and for notebooks."""

from __future__ import annotations

from typing import Any

from h2tune.errors import counted

LEAST_COVERED = 0.7
"""How much of a client's own texts the public ones covered at least where a teacher was measured."""

FEW = 20
"""Examples below which a score says little: at twenty, a 95 % interval is 40 points wide."""


def line_of(event: dict[str, Any]) -> str:
    """Return the line for an event; "" if none is printed for it."""
    kind, client = event["event"], event.get("client", "")
    if kind == "run_started":
        clients = ", ".join(
            f"{c['name']} ({c['family']}, rank {c['rank']}, {c['task']})" for c in event["clients"]
        )
        lines = [f"{event['name']}: {counted(event['rounds'], 'round')}, {clients}"]
        for c in event["clients"]:
            if unused := c.get("unused"):
                used = f"{c['examples']['train']:,} examples to train on (data.train)"
                lines.append(f"  {c['name']}: {used}; {unused:,} more are not used")
            if repeated := c.get("repeated"):
                lines.append(f"  {c['name']}: {repeated:,} examples repeat a prompt and do not count")
            if (few := c.get("examples", {}).get("test", FEW)) < FEW:
                lines.append(f"  {c['name']}: {counted(few, 'example')} to test: its score will say little")
        return "\n".join(lines)
    if kind == "basis_agreed":
        return f"  {client} · basis computed from public texts · {event['bytes_up']:,} bytes up, once"
    if kind == "lesson_prepared":
        return f"  {client} · {lesson_line(event)}"
    if kind == "evaluated":
        when = "before" if event["round"] < 0 else f"round {event['round'] + 1}"
        alone = " alone" if event["stage"] == "alone" else ""
        score = f"{event.get('measure', 'accuracy')} {event['accuracy']:.3f}"
        return f"  {client}{alone} · {when} · {score} · loss {event['loss']:.3f}"
    if kind == "aggregated" and event.get("stage") == "trained":
        noise = event.get("privacy")
        spent = f" · ε {noise['epsilon']:.3g} at δ {noise['delta']:g}" if noise else ""
        clients = counted(len(event["clients"]), "client")
        return f"round {event['round'] + 1} aggregated · {clients} · {event['seconds']:.1f} s{spent}"
    if kind == "client_failed":
        return f"  {client} failed in round {event['round'] + 1}: {event['reason']}"
    if kind == "warning":
        prefix = f"{client}, " if client else ""
        return f"  warning: {prefix}round {event['round'] + 1}: {event['message']}"
    return ""


def reading_line(client: str, total: int) -> str:
    """Return the line that says whose model reads the public texts."""
    return f"{client or 'the public encoder'} · reading {counted(total, 'public text')}"


def lesson_line(event: dict[str, Any]) -> str:
    """Return what the federation is worth to a client on its own labels, before it trains."""
    if not event["taken"] and (event.get("reason") or "own_right" not in event):
        fate = "has no labels and is not trained" if event.get("untrained") else "trains by itself"
        return f"{fate}: {event.get('reason') or 'it has no teacher'}"
    parts = ["takes a teacher" if event["taken"] else "declines the teacher, and trains by itself"]
    if "own_right" in event:
        right, own = event["peers_right"] * 100, event["own_right"] * 100
        parts.append(f"right on {right:.0f} % of its own labels, its own head on {own:.0f} %")
    if "covered" in event:
        far = ", less than was ever measured: see basis.texts" if event["covered"] < LEAST_COVERED else ""
        parts.append(f"public texts cover {event['covered']:.2f} of its texts{far}")
    return " · ".join(parts)
