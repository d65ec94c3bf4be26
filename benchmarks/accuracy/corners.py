"""The four corners, what is compared in them, and the learning rates that every method may choose from."""

from __future__ import annotations

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
CORNERS = tuple(
    f"{models}-models-{tasks}-tasks" for models in ("same", "different") for tasks in ("same", "different")
)
METHODS = (
    "local",
    "fedit",
    "ffa-lora",
    "fedsa-lora",
    "hetlora",
    "flexlora",
    "flora",
    "fed-sb",
    "co-lora",
    "h2tune",
    "h2tune-alone",
)
ABLATIONS = ("h2tune-leading", "h2tune-depth", "h2tune-joint")
RATES = (3e-4, 1e-3)
"""Learning rates of decoders; an encoder takes ENCODER times as much."""
ENCODER = 3
ENCODERS = ("pypi:all-minilm-l6-v2",)


def file_of(corner: str) -> Path:
    """Return the federation file of a corner."""
    return HERE / f"{corner}.toml"


def with_rate(method: str, corner: str, rate: float) -> str:
    """Return a method with its learning rate, in the words of `h2tune compare`."""
    clients = tomllib.loads(file_of(corner).read_text())["client"]
    small = [c["name"] for c in clients if c["model"] in ENCODERS]
    if len(small) == len(clients):
        return f"{method}+train.learning_rate={ENCODER * rate:g}"
    settings = [f"train.learning_rate={rate:g}"]
    settings += [f"client.{name}.learning_rate={ENCODER * rate:g}" for name in small]
    return "+".join([method, *settings])
