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
RATES = {"decoder": (3e-4, 1e-3), "encoder": (1e-3, 2e-3, 4e-3, 8e-3)}
"""Learning rates to choose from. A run takes the n-th of each kind; beside decoders an encoder has two."""
ENCODERS = ("pypi:all-minilm-l6-v2",)


def file_of(corner: str) -> Path:
    """Return the federation file of a corner."""
    return HERE / f"{corner}.toml"


def models_of(corner: str) -> dict[str, str]:
    """Return the clients of a corner and their models."""
    return {c["name"]: c["model"] for c in tomllib.loads(file_of(corner).read_text())["client"]}


def candidates(corner: str) -> list[dict[str, float]]:
    """Return the learning rates by client that every method is tuned over, one mapping a run."""
    kinds = {name: "encoder" if m in ENCODERS else "decoder" for name, m in models_of(corner).items()}
    count = min(len(RATES[kind]) for kind in kinds.values())
    return [{name: RATES[kind][n] for name, kind in kinds.items()} for n in range(count)]


def choose(corner: str, accuracies: list[dict[str, float]]) -> dict[str, float]:
    """Return the rates by client with the best validation accuracy, mean over clients; a tie goes to the smaller ones.

    Choosing per client was tried: with about a hundred examples each, ties and noise decide.

    Args:
        corner: The corner.
        accuracies: Accuracy by client of each of `candidates`.
    """
    best = max(range(len(accuracies)), key=lambda n: (sum(accuracies[n].values()), -n))
    return candidates(corner)[best]


def with_rates(method: str, rates: dict[str, float]) -> str:
    """Return a method with its clients' learning rates, in the words of `h2tune compare`."""
    if len(set(rates.values())) == 1:
        return f"{method}+train.learning_rate={next(iter(rates.values())):g}"
    return "+".join(
        [method, *(f"client.{name}.learning_rate={rate:g}" for name, rate in sorted(rates.items()))]
    )
