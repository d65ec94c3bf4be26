"""Made-up events of a run, as a run writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

ROLES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
SLOTS, SHARED_RANK = 30, 32
GAPS = ("difference", "difference_low", "difference_high", "bootstrap_low", "bootstrap_high", "p", "p_holm")
MEMBERS: tuple[dict[str, Any], ...] = (
    {"name": "films", "model": "pypi:smollm2-135m-instruct", "family": "llama", "task": "movie_reviews", "rank": 8,
     "depth": 30, "width": 576, "labels": ["negative", "positive"], "roles": ROLES, "majority": 0.52, "start": 0.55},
    {"name": "news", "model": "pypi:gemma-3-270m", "family": "gemma3_text", "task": "bbc_topics", "rank": 16,
     "depth": 18, "width": 640, "labels": ["business", "entertainment", "politics", "sport", "tech"], "roles": ROLES,
     "majority": 0.23, "start": 0.31},
    {"name": "feed", "model": "pypi:all-minilm-l6-v2", "family": "bert", "task": "tweets", "rank": 12, "depth": 6,
     "width": 384, "labels": ["negative", "positive"], "roles": ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.up",
     "mlp.down"), "majority": 0.68, "start": 0.66},
)  # fmt: skip


def make_events(
    *, rounds: int = 3, clients: int = 3, steps: int = 12, alone: bool = True, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the events of a finished run without problems; clients beyond three repeat the first three."""
    rng = np.random.default_rng(seed)
    members = [dict(MEMBERS[i % 3]) for i in range(clients)]
    for i, member in enumerate(members):
        member["name"] += f"-{i // 3 + 1}" if i >= 3 else ""
    events = [_started(members, rounds)]
    for where in range(rounds):
        for member in members:
            events += _client_round(rng, member, where, rounds, steps, "trained")
        events.append(_aggregated(rng, members, where, "trained"))
    for member in members if alone else ():
        for where in range(rounds):
            events += _client_round(rng, member, where, rounds, steps, "alone")
            events.append(_aggregated(rng, [member], where, "alone"))
    events.append(
        {"event": "run_finished", "rounds": rounds, "seconds": 512.25, "table": _table(events, members)}
    )
    for i, event in enumerate(events):
        event.setdefault("unit", event["event"])
        event["time"] = 1_790_000_000 + 7.5 * i
    return events


def with_problems(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of a run in which client "news" failed in round 2 and others gave warnings."""
    kept = [
        e for e in events
        if not (e.get("client") == "news" and e.get("round") == 1 and e.get("stage") == "trained")
    ]  # fmt: skip
    place = next(i for i, e in enumerate(kept) if e["event"] == "aggregated" and e["round"] == 1)
    kept[place:place] = [
        {"event": "client_failed", "client": "news", "round": 1, "unit": "server/1/news",
         "reason": "the loss became nan in step 7 (specific phase)"},
        _warning("films", 0, "did_not_move", "no scores parameter changed in this round"),
        _warning("films", 1, "did_not_move", "no scores parameter changed in this round"),
        _warning("", 1, "aggregate_unchanged", "what is shared did not change in this round"),
    ]  # fmt: skip
    return kept


def with_comparison(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events with a table of `compare`: three methods against h2tune on every client, five seeds."""
    rng = np.random.default_rng(5)
    rows = []
    for client in ("", *(member["name"] for member in MEMBERS)):
        for i, method in enumerate(("h2tune", "local", "fedavg_lora", "hetlora_truncated_mean")):
            mean, half = 0.8 - 0.02 * i + 0.01 * rng.normal(), 0.03
            row = {
                "method": method, "client": client, "mean": mean, "low": mean - half, "high": mean + half,
                **dict.fromkeys(GAPS), "bytes_up": 40_000.0 * (i + 1) if i != 1 else 0.0, "bytes_down": 90_000.0,
                "seconds": 210.5 + i, "seeds": 5, "note": "",
            }  # fmt: skip
            if i:
                gap = 0.025 * i - 0.03 + 0.01 * rng.normal()
                values = (
                    gap,
                    gap - 0.02,
                    gap + 0.025,
                    gap - 0.015,
                    gap + 0.018,
                    0.031,
                    0.0004 if i == 3 else 0.124,
                )
                row |= dict(zip(GAPS, values, strict=True))
            rows.append(row)
    event = {
        "event": "compared", "name": "quickstart", "version": "0.1.0", "split": "test", "reference": "h2tune",
        "seeds": [0, 1, 2, 3, 4], "settings": {}, "notes": [], "remarks": ["fedavg_lora, feed: shares nothing"],
        "problems": [], "recovered": [], "rows": rows, "seconds": 4000.5, "time": 1_790_009_999,
    }  # fmt: skip
    return [*events, event]


def write_events(folder: Path, events: list[dict[str, Any]], *, tail: str = "") -> Path:
    """Write `events.jsonl` in `folder` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + tail)
    return folder


def _started(members: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    return {
        "event": "run_started", "name": "quickstart", "version": "0.1.0", "seed": 0, "strategy": "h2tune",
        "rounds": rounds, "shared_rank": SHARED_RANK, "slots": SLOTS, "roles": list(ROLES), "alternation": "step",
        "mask": "entry", "wire_dtype": "float16",
        "clients": [
            {
                **{key: m[key] for key in ("name", "model", "family", "task", "rank", "depth", "width", "labels")},
                "examples": {"train": 96, "validation": 0, "test": 200},
                "trainable_parameters": 4 * m["depth"] * m["width"] * m["rank"], "majority_accuracy": m["majority"],
            }
            for m in members
        ],
    }  # fmt: skip


def _client_round(
    rng: np.random.Generator, member: dict[str, Any], where: int, rounds: int, steps: int, stage: str
) -> list[dict[str, Any]]:
    name = member["name"]
    unit = f"server/{where}/{name}" if stage == "trained" else f"clients/{name}/alone/server/{where}/{name}"
    events = []
    if where == 0:
        events.append(_evaluated(name, -1, "before", member["start"]))
    progress = 1 - np.exp(-1.3 * (where + 1))
    gained = (0.3 if stage == "trained" else 0.27) * progress + 0.015 * rng.normal()
    trained = {
        "event": "client_trained", "client": name, "round": where, "stage": stage,
        "losses": _losses(rng, where, steps), "received_matches": True, "without_gradient": [],
        "seconds": {"load": 1.2, "train": 31.4 + rng.random(), "evaluate": 6.2, "save": 0.35},
        "sent": _sent(member, where), "received": _received(member, where),
        "moved": {"delta": 0.4 / (where + 1), "scores": 0.03, "relation": 0.0 if where == 0 else 0.008,
                  "down": 1.9 / (where + 1), "up": 2.4 / (where + 1)},
        "relation": _relation(rng, member["depth"], where), "coverage": _coverage(rng, member["rank"]),
    }  # fmt: skip
    trained["steps"] = len(trained["losses"])
    trained["bytes_up"] = sum(t["bytes"] for t in trained["sent"])
    trained["bytes_down"] = sum(t["bytes"] for t in trained["received"])
    events += [trained, _evaluated(name, where, stage, min(member["start"] + gained, 1.0))]
    return [{**event, "unit": unit} for event in events]


def _evaluated(client: str, where: int, stage: str, accuracy: float) -> dict[str, Any]:
    return {
        "event": "evaluated", "client": client, "round": where, "stage": stage, "split": "test",
        "accuracy": round(accuracy * 200) / 200, "loss": 0.6, "examples": 200, "seconds": 6.2,
    }  # fmt: skip


def _losses(rng: np.random.Generator, where: int, steps: int) -> list[dict[str, Any]]:
    phases = ["joint"] * steps if where == 0 else ["shared", "specific"] * steps
    start = 2.3 * np.exp(-0.8 * where)
    return [
        {
            "step": i + 1,
            "phase": phase,
            "loss": float(start * np.exp(-0.6 * i / len(phases)) + 0.08 * rng.random()),
        }
        for i, phase in enumerate(phases)
    ]


def _tensor(name: str, shape: list[int], dtype: str, size: int, salt: object) -> dict[str, Any]:
    total = int(np.prod(shape)) * size
    checksum = hashlib.sha256(f"{name} {salt}".encode()).hexdigest()
    return {"name": name, "shape": shape, "dtype": dtype, "bytes": total, "sha256": checksum}


def _sent(member: dict[str, Any], where: int) -> list[dict[str, Any]]:
    rank, depth, salt = member["rank"], member["depth"], (member["name"], where)
    deltas = [_tensor(f"delta.{role}", [depth, rank, rank], "float16", 2, salt) for role in member["roles"]]
    masks = [
        _tensor(f"mask.{role}", [depth, SHARED_RANK**2 // 8], "uint8", 1, salt) for role in member["roles"]
    ]
    return [*deltas, *masks, _tensor("relation", [SLOTS, depth], "float32", 4, salt)]


def _received(member: dict[str, Any], where: int) -> list[dict[str, Any]]:
    shape = [SLOTS, SHARED_RANK, SHARED_RANK]
    return [_tensor(f"shared.{role}", shape, "float16", 2, where) for role in member["roles"] if where]


def _relation(rng: np.random.Generator, depth: int, where: int) -> list[list[float]]:
    place = np.arange(depth) * (SLOTS - 1) / max(depth - 1, 1)
    logits = -1.4 * np.abs(np.arange(SLOTS)[:, None] - place[None, :]) + 0.15 * where * rng.normal(
        size=(SLOTS, depth)
    )
    weights = np.exp(logits)
    return np.round(weights / weights.sum(axis=0), 4).tolist()


def _coverage(rng: np.random.Generator, rank: int) -> list[list[float]]:
    return np.round(
        np.clip(rank**2 / SHARED_RANK**2 * (1 + 0.25 * rng.normal(size=(16, 16))), 0, 1), 4
    ).tolist()


def _aggregated(
    rng: np.random.Generator, members: list[dict[str, Any]], where: int, stage: str
) -> dict[str, Any]:
    by_role = {role: float((0.2 + 0.1 * rng.random()) / (where + 1)) for role in ROLES}
    return {
        "event": "aggregated", "round": where, "stage": stage, "clients": sorted(m["name"] for m in members),
        "change": float(np.sqrt(sum(v**2 for v in by_role.values()))), "change_by_role": by_role,
        "norm": 0.5 + 0.2 * where, "seconds": 0.18, "sha256": hashlib.sha256(str(where).encode()).hexdigest(),
    }  # fmt: skip


def _warning(client: str, where: int, code: str, message: str) -> dict[str, Any]:
    return {"event": "warning", "client": client, "round": where, "code": code, "message": message}


def _table(events: list[dict[str, Any]], members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = {(e["client"], e["stage"]): e["accuracy"] for e in events if e["event"] == "evaluated"}
    return [
        {"client": m["name"], "majority": m["majority"], "before": last.get((m["name"], "before")),
         "alone": last.get((m["name"], "alone")), "federated": last.get((m["name"], "trained"))}
        for m in members
    ]  # fmt: skip
