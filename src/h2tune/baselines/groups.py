"""The strategy of every baseline: an aggregation rule, applied within groups of clients that can share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from h2tune.baselines.lora import LoraAdaptedModel
from h2tune.federation.messages import Download, Enrolment, Spec, Tensors, Update, digest
from h2tune.federation.strategy import Decoded, Strategy
from h2tune.models import base_seed

Group = Sequence[Enrolment]
"""Two or more clients that share, sorted by name."""


@dataclass(frozen=True)
class Contribution:
    """The update of one client of a group, with its weight; the weights of a group sum to one."""

    enrolment: Enrolment
    weight: float
    tensors: Tensors


def mean(state: Mapping[str, Tensor], contributions: Sequence[Contribution]) -> Tensors:
    """Return the weighted mean of the updates: FedAvg."""
    return {
        name: torch.stack([c.weight * c.tensors[name] for c in contributions]).sum(0)
        for name in contributions[0].tensors
    }


def whole(state: Mapping[str, Tensor], enrolment: Enrolment) -> Tensors:
    """Return all of the server's tensors of a group."""
    return dict(state)


def same_model(enrolment: Enrolment) -> Hashable:
    """Return a key that clients with the same base model and the same adapted modules have in common."""
    return enrolment.model, tuple(sorted(enrolment.modules.items()))


def same_model_and_rank(enrolment: Enrolment) -> Hashable:
    """Return a key that clients with the same base model, adapted modules and rank have in common."""
    return same_model(enrolment), enrolment.rank


@dataclass(frozen=True)
class GroupRule:
    """A method within one group.

    Args:
        name: Its name.
        together: Returns the key of a client; clients with the same key share.
        alone: Note in tables on a client that shares with no other.
        sends: Names, shapes and types of a client's update.
        start: The group and the run's seed → the server's tensors before the first round.
        adapted_model: Builds the client's model from a base model, an enrolment, α, dropout, heads and a seed.
        merge: The server's tensors and the updates → the server's tensors after the round.
        fit: The server's tensors and a client → the tensors that the client's model must have before it trains.
        news: The same → those of them that are sent to the client; by default all.
        receives: Names, shapes and types of the download after the first round; by default those of `sends`.
        alone_model: As `adapted_model`, for a client that is alone in its group.
    """

    name: str
    together: Callable[[Enrolment], Hashable]
    alone: str
    sends: Callable[[Enrolment], Spec]
    start: Callable[[Group, int], Tensors]
    adapted_model: Callable[..., LoraAdaptedModel]
    merge: Callable[[Mapping[str, Tensor], Sequence[Contribution]], Tensors] = mean
    fit: Callable[[Mapping[str, Tensor], Enrolment], Tensors] = whole
    news: Callable[[Mapping[str, Tensor], Enrolment], Tensors] | None = None
    receives: Callable[[Enrolment], Spec] | None = None
    alone_model: Callable[..., LoraAdaptedModel] = LoraAdaptedModel


class Grouped(Strategy[Tensors]):
    """A strategy that applies a method within groups; a client that is alone in its group trains as `local` does.

    Args:
        method: The method.
        enrolments: The clients.
        alpha: LoRA's α.
        dropout: Dropout on the adapters' inputs.
        weighting: Weight of a client in its group: `"examples"` or `"uniform"`.
        seed: The run's seed.
    """

    def __init__(
        self,
        method: GroupRule,
        enrolments: Sequence[Enrolment],
        *,
        alpha: float,
        dropout: float,
        weighting: str,
        seed: int,
    ) -> None:
        self.name, self.method, self.seed = method.name, method, seed
        self.alpha, self.dropout, self.weighting = alpha, dropout, weighting
        self.enrolments = {e.name: e for e in sorted(enrolments, key=lambda e: e.name)}
        by_key: dict[Hashable, list[Enrolment]] = {}
        for enrolment in self.enrolments.values():
            by_key.setdefault(method.together(enrolment), []).append(enrolment)
        self.groups: dict[str, Group] = {group[0].name: group for group in by_key.values() if len(group) > 1}
        """Groups of two or more clients, by the name of their first client."""
        self.group_of = {e.name: name for name, group in self.groups.items() for e in group}

    def note(self, client: str) -> str:
        """Return why a client shares nothing, or "" if it shares."""
        return "" if client in self.group_of else self.method.alone

    def start(self) -> Tensors:
        return {
            f"{name}/{key}": tensor
            for name, group in self.groups.items()
            for key, tensor in self.method.start(group, self.seed).items()
        }

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """Return what the client must load; in the first round nothing is sent, as all clients start alike."""
        if client not in self.group_of:
            return Download(round_number, {}, digest({}))
        part, enrolment = _part(state, self.group_of[client]), self.enrolments[client]
        held = self.method.fit(part, enrolment)
        sent = self.method.news(part, enrolment) if self.method.news else held
        sent = {name: tensor.contiguous() for name, tensor in sent.items()}
        return Download(round_number, sent if round_number else {}, digest(held))

    def download_spec(self, client: str, round_number: int) -> Spec:
        if round_number == 0 or client not in self.group_of:
            return {}
        return (self.method.receives or self.method.sends)(self.enrolments[client])

    def upload_spec(self, client: str, round_number: int) -> Spec:
        return self.method.sends(self.enrolments[client]) if client in self.group_of else {}

    def decode(self, update: Update) -> Tensors:
        return update.tensors

    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Decoded[Tensors]]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Merge the updates group by group, sorted by client; a group without updates is unchanged."""
        following = dict(state)
        for name in self.groups:
            sent = [u for u in sorted(updates, key=lambda u: u.client) if self.group_of.get(u.client) == name]
            by_examples = self.weighting == "examples" and any(u.examples for u in sent)
            weights = [float(u.examples) if by_examples else 1.0 for u in sent]
            contributions = [
                Contribution(self.enrolments[u.client], weight / sum(weights), u.content)
                for u, weight in zip(sent, weights, strict=True)
            ]
            if contributions:
                merged = self.method.merge(_part(state, name), contributions)
                following |= {f"{name}/{key}": tensor.contiguous() for key, tensor in merged.items()}
        return following, {
            **_movement(state, following),
            "groups": [[e.name for e in group] for group in self.groups.values()],
        }

    def attach(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> LoraAdaptedModel:
        shares = enrolment.name in self.group_of
        build = self.method.adapted_model if shares else self.method.alone_model
        return build(base, enrolment, alpha=self.alpha, dropout=self.dropout, heads=heads, seed=seed)


def model_seed(group: Group, seed: int) -> int:
    """Return the seed of the initial values of a group's model."""
    return base_seed(seed, group[0].model)


def _part(state: Mapping[str, Tensor], group: str) -> Tensors:
    return {k.removeprefix(f"{group}/"): t for k, t in state.items() if k.startswith(f"{group}/")}


def _movement(state: Mapping[str, Tensor], following: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the L2 norms of the change, in total and by kind of tensor, and of the server's new tensors."""
    squares: dict[str, float] = {}
    norm = 0.0
    for name, tensor in following.items():
        if tensor.is_floating_point():
            change = tensor.clone()
            if name in state:  # the part that was appended was zero before
                change[tuple(slice(size) for size in state[name].shape)] -= state[name]
            kind = name.rpartition(".")[2]
            squares[kind] = squares.get(kind, 0.0) + float(change.square().sum())
            norm += float(tensor.square().sum())
    by_kind = {kind: square**0.5 for kind, square in sorted(squares.items())}
    return {"change": sum(squares.values()) ** 0.5, "change_by_role": by_kind, "norm": norm**0.5}
