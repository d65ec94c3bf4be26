"""The interface of a federated method: its strategy on the server, and its adapter on a client's model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.adapter.export import save_adapter
from h2tune.errors import H2TuneError
from h2tune.federation.messages import Download, Enrolment, Spec, Tensors, Update
from h2tune.training.encode import Encoded
from h2tune.training.schedule import Alternation
from h2tune.training.terms import Terms

Content = TypeVar("Content")


@dataclass(frozen=True)
class Decoded(Generic[Content]):
    """An update, validated and decoded once on arrival.

    Args:
        client: The client's name.
        round: Number of the round in which it was trained, from 0.
        examples: Number of training examples.
        content: Its content, as decoded by the strategy.
    """

    client: str
    round: int
    examples: int
    content: Content


class AdaptedModel(ABC):
    """A base model with a method's adapter, and its steps in a client's round.

    A round calls `set_frames` (in an anchored basis), `load_state` (unless it is the client's first) and `receive`,
    trains the parameters of `phases`, and calls `send` and `state`. The federation's first round calls `prepare`
    before it trains. `detach` comes last.
    """

    model: Any
    """The PEFT model."""
    alternation: Alternation
    """How the phases alternate in this round."""

    @abstractmethod
    def phases(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Return the trained parameters by phase ("shared", "specific") and name."""

    @abstractmethod
    def receive(self, download: Download) -> None:
        """Load what the server sent."""

    @abstractmethod
    def loaded_digest(self) -> str:
        """Return the checksum of the server's tensors in the model, read from the model itself."""

    def set_aside(self) -> None:  # noqa: B027 - optional to override
        """Leave out what was received, for a client that trains by itself; by default it is kept."""

    @abstractmethod
    def send(self) -> Tensors:
        """Return the tensors of the update: what was learned since `receive`."""

    @abstractmethod
    def learned(self) -> Tensors:
        """Return the same as `send`, measured on the model itself, as a check; {} if nothing is shared."""

    @abstractmethod
    def state(self) -> Tensors:
        """Return the private state that the client needs in its next round."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state` returned; names and shapes must match."""

    @abstractmethod
    def detach(self) -> PreTrainedModel:
        """Remove the adapter and return the base model, restored; the adapter must not be used afterwards."""

    def terms(self) -> Terms:
        """Return the loss terms besides the task loss; by default none."""
        return Terms()

    def prepare(  # noqa: B027 - optional to override
        self, rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, *, causal: bool, batch_size: int
    ) -> None:
        """Initialise from the client's training examples, in the federation's first round; by default nothing."""

    def facts(self) -> dict[str, Any]:
        """Return facts for the report besides training (relation, coverage); by default none."""
        return {}

    def idle(self) -> frozenset[str]:
        """Return the names of trained parameters that cannot have a gradient on this model; by default none."""
        return frozenset()

    def set_frames(self, frames: Mapping[str, Tensor]) -> None:
        """Load the frames of an anchored basis.

        Raises:
            H2TuneError: The method has no frames.
        """
        raise H2TuneError("this method has no anchored basis")

    def save_lora(self, folder: Path) -> None:
        """Write the adapter as plain LoRA; by default, in PEFT's format as it is."""
        save_adapter(self.model, folder)


class Strategy(ABC, Generic[Content]):
    """A federated method; its only state is its settings and its clients."""

    name: str
    enrolments: Mapping[str, Enrolment]
    """The clients, by name."""
    roles: tuple[str, ...] = ()
    """Shared roles, for methods that share tensors by role; () for methods that share by module."""
    largest: float = math.inf
    """A round that brings a value of the server's tensors beyond this is not stored."""

    @abstractmethod
    def start(self) -> Tensors:
        """Return the server's tensors before the first round."""

    @abstractmethod
    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """Return the message to a client at the start of a round."""

    @abstractmethod
    def download_spec(self, client: str, round_number: int) -> Spec:
        """Return names, shapes and types of the tensors of `download`, without computing them."""

    @abstractmethod
    def upload_spec(self, client: str, round_number: int) -> Spec:
        """Return the names, shapes and types of a client's update."""

    @abstractmethod
    def decode(self, update: Update) -> Content:
        """Return an update's content; names, shapes and types were validated before.

        Raises:
            H2TuneError: Its values are not valid.
        """

    @abstractmethod
    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Decoded[Content]]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return the server's tensors after the round, and facts of the step (change by role, and so on)."""

    @abstractmethod
    def attach(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> AdaptedModel:
        """Attach the method's adapter to a base model.

        Args:
            base: The base model; shared by clients, so `detach` must restore it.
            enrolment: The client.
            heads: Names of modules that are trained besides the adapter.
            seed: Seed of the initial values, common to all clients of one base model.
        """

    def release(self, client: str, tensors: Tensors) -> Tensors:
        """Return the tensors that a client sends: by default `tensors`; a method may clip them or add noise."""
        return tensors

    def aggregate_sum(
        self, state: Mapping[str, Tensor], total: Tensor, clients: Sequence[str], round_number: int
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return what `aggregate` returns, from the sum over clients of secure aggregation.

        Raises:
            H2TuneError: The method needs individual updates.
        """
        raise H2TuneError(f"strategy '{self.name}' cannot aggregate a sum")

    def size_of(self, update: Decoded[Content]) -> float | None:
        """Return the norm of what a client learned, which is compared with the others'; by default None, unknown."""
        return None

    def note(self, client: str) -> str:
        """Return a note on a client for the table of clients, such as why it shares nothing; by default ""."""
        return ""

    def with_client(self, enrolment: Enrolment) -> Self:
        """Return this strategy with one more client, which joined between rounds.

        Raises:
            H2TuneError: The method must know all clients before the first round.
        """
        raise H2TuneError(f"strategy '{self.name}' must know all clients before the first round")


def decoded(strategy: Strategy[Content], update: Update) -> Decoded[Content]:
    """Return an update with its content decoded by the strategy."""
    return Decoded(update.client, update.round, update.examples, strategy.decode(update))
