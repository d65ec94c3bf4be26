"""Valid updates, cards, events, settings and files, and altered updates: the inputs that the targets start from."""

from __future__ import annotations

import json
import math

import torch
from fuzz.draws import Draw, bytes_changed, pick, structure_changed
from helpers.strategies import h2tune

from h2tune.config.reading import FORMAT
from h2tune.federation.h2tune import wire
from h2tune.federation.messages import Enrolment, Tensors, Update, payload_bytes, to_bytes

ROUND = 2
ROLES = {"attn.q": [0, 1, 2], "mlp.up": [0, 1, 2]}
ENROLMENTS = [
    Enrolment(n, "", 3, r, 10, {k: tuple(v) for k, v in ROLES.items()}, {})
    for n, r in (("one", 2), ("two", 4))
]
STRATEGY = h2tune(ENROLMENTS, shared_rank=4, slots=3)
SPEC = STRATEGY.upload_spec("one", ROUND)
MOST = payload_bytes(SPEC)
CARD = {"name": "one", "depth": 3, "rank": 2, "examples": 10, "roles": ROLES, "labels": ["yes", "no"]}
EVENTS = [
    {"event": "evaluated", "client": "one", "round": ROUND, "stage": "trained", "accuracy": 0.5, "examples": 4},
    {"event": "client_trained", "client": "one", "round": ROUND, "losses": [{"phase": "joint", "loss": 0.5}],
     "relation": [[1.0]], "coverage": [[1.0]], "moved": {"delta": 0.1}, "sent": [{"name": "x", "shape": [1]}]},
    {"event": "warning", "client": "one", "round": ROUND, "code": "x", "message": "y"},
]  # fmt: skip
SETTINGS = {
    "name": "fuzz", "seed": 0, "server": {"rounds": 3, "min_clients": 1, "shared_rank": 4, "slots": 3},
    "train": {"local_steps": 2}, "data": {"train": 8},
}  # fmt: skip
MEMBER = {
    "federation": "fuzz", "folder": "private",
    "client": {"name": "one", "model": "/m", "rank": 2,
               "task": {"file": "/t.jsonl", "prompt": "{words}", "answer": "label", "labels": ["yes", "no"]}},
}  # fmt: skip
CONFIG = (
    f"format = {FORMAT}\n"
    + """\
name = "fuzz"
[server]
rounds = 3
[[client]]
name = "one"
model = "/m"
rank = 2
task = { file = "/t.jsonl", prompt = "{words}", answer = "label", labels = ["yes", "no"] }
"""
)


def good() -> Update:
    """Return an update that the gate accepts."""
    tensors: Tensors = {"relation": torch.eye(3)}
    for role in ROLES:
        tensors[f"delta.{role}"] = torch.arange(12.0).view(3, 2, 2) / 100
        tensors[f"mask.{role}"] = wire.pack_masks([torch.tensor([0, 3, 6, 13])] * 3, 4)
    return Update("one", ROUND, 10, tensors)


GOOD = to_bytes(good())
HEAD_LENGTH = int.from_bytes(GOOD[:8], "little")


def update_bytes(draw: Draw) -> bytes:
    kind = draw.integer(0, 2)
    if kind == 0:
        return bytes_changed(draw, GOOD)
    if kind == 1:
        return to_bytes(_update_changed(draw))
    head = structure_changed(draw, json.loads(GOOD[8 : 8 + HEAD_LENGTH]))
    data = json.dumps(head, ensure_ascii=bool(draw.integer(0, 1))).encode(errors="surrogatepass")
    body = bytes_changed(draw, GOOD[8 + HEAD_LENGTH :], 1)
    return len(data).to_bytes(8, "little") + data + body


def _update_changed(draw: Draw) -> Update:
    """Return the good update with other tensors, or of another client, round or count; it makes a sound file."""
    found = good()
    tensors = found.tensors
    for _ in range(draw.integer(0, 2)):
        name, kind = pick(draw, sorted(tensors)), draw.integer(0, 6)
        flat = tensors[name].flatten()
        if kind == 0:
            del tensors[name]
            tensors |= {"more": torch.zeros(1)} if not tensors else {}
        elif kind == 1:
            tensors[pick(draw, ("delta.attn.k", "../x", "relation", "mask.mlp.up"))] = tensors[name].clone()
        elif kind == 2:
            tensors[name] = tensors[name].to(
                pick(draw, (torch.float16, torch.float64, torch.int64, torch.uint8))
            )
        elif kind == 3:
            tensors[name] = tensors[name][: draw.integer(0, 2)].contiguous()
        elif kind == 4:
            tensors[name] = flat
        elif flat.numel() and tensors[name].is_floating_point():
            flat[draw.integer(0, flat.numel() - 1)] = pick(
                draw, (math.nan, math.inf, -1.0, 0.0, 0.5, 3e38, 1e15)
            )
        elif flat.numel():
            flat[draw.integer(0, flat.numel() - 1)] = draw.integer(0, 255 if flat.dtype == torch.uint8 else 9)
    client, number = pick(draw, ("one",) * 6 + ("two", "")), pick(draw, (ROUND,) * 6 + (0, -1, 10**18))
    return Update(client, number, pick(draw, (10,) * 6 + (0, 11, 10**30)), tensors)
