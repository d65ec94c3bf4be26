"""The contracts of a federated method: its strategy on the server, and its adapter on a client's model."""

from __future__ import annotations

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
    """An update that was checked and read, once, as it arrived.

    Args:
        client: The client's name.
        round: Number of the round that it answers, from 0.
        examples: Number of examples behind it.
        content: What it holds, as its strategy reads it.
    """

    client: str
    round: int
    examples: int
    content: Content


class AdaptedModel(ABC):
    """A base model with a method's adapter on it, and its part in a client's round.

    A round calls `set_frames` (in an anchored basis), `load_state` (unless it is the client's first) and `receive`,
    trains the parameters of `phases`, and calls `send` and `state`. The federation's first round calls `prepare`
    before it trains. `detach` comes last.
    """

    model: Any
    """The PEFT model."""
    alternation: Alternation
    """How the phases take turns in this round."""

    @abstractmethod
    def phases(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Return the trained parameters by phase ("shared", "specific") and name."""

    @abstractmethod
    def receive(self, download: Download) -> None:
        """Load what the server sent."""

    @abstractmethod
    def loaded_digest(self) -> str:
        """Return the checksum of the server's tensors in the model, read from the model itself."""

    @abstractmethod
    def send(self) -> Tensors:
        """Return what was learned since `receive`."""

    @abstractmethod
    def learned(self) -> Tensors:
        """Return the same as `send`, measured on the model itself, as a check; {} if nothing is shared."""

    @abstractmethod
    def state(self) -> Tensors:
        """Return all that the client must keep until its next round."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state` returned; strict."""

    @abstractmethod
    def detach(self) -> PreTrainedModel:
        """Take the adapter off and return the base model as it was."""

    def terms(self) -> Terms:
        """Return the loss terms beside the task loss; by default none."""
        return Terms()

    def prepare(  # noqa: B027 - a default, not a contract
        self, rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, *, causal: bool, batch_size: int
    ) -> None:
        """Initialise from the client's own training examples, in the federation's first round; by default not."""

    def facts(self) -> dict[str, Any]:
        """Return what a report shows of this client besides its training (relation, coverage); by default nothing."""
        return {}

    def set_frames(self, frames: Mapping[str, Tensor]) -> None:
        """Load the frames of an anchored basis.

        Raises:
            H2TuneError: The method has no frames.
        """
        raise H2TuneError("this method has no anchored basis")

    def save_lora(self, folder: Path) -> None:
        """Write the adapter as plain LoRA; by default it is one already."""
        save_adapter(self.model, folder)


class Strategy(ABC, Generic[Content]):
    """A federated method. Holds no state but its settings and the clients it was built for."""

    name: str
    enrolments: Mapping[str, Enrolment]
    """The clients, by name."""
    roles: tuple[str, ...] = ()
    """Roles whose tensors are shared by name of the role; () for methods that share by module."""

    @abstractmethod
    def start(self) -> Tensors:
        """Return the server's tensors before the first round."""

    @abstractmethod
    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """Return what a client receives at the start of a round."""

    @abstractmethod
    def download_spec(self, client: str, round_number: int) -> Spec:
        """Return names, shapes and types of `download`, before there is anything to send."""

    @abstractmethod
    def upload_spec(self, client: str, round_number: int) -> Spec:
        """Return names, shapes and types that a client's update must have."""

    @abstractmethod
    def decode(self, update: Update) -> Content:
        """Return what an update holds; names, shapes and types were checked.

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
        """Put the method's adapter on a base model.

        Args:
            base: The base model; shared with other clients, so that it must come back unchanged.
            enrolment: The client.
            heads: Names of modules that are trained beside the adapter.
            seed: Seed of the initial values, common to all clients of one base model.
        """

    def release(self, client: str, tensors: Tensors) -> Tensors:
        """Return what leaves a client of what it learned: by default the same; or clipped, with noise, quantised."""
        return tensors

    def aggregate_sum(
        self, state: Mapping[str, Tensor], total: Tensor, clients: Sequence[str], round_number: int
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return what `aggregate` returns, from a sum over clients that secure aggregation gave.

        Raises:
            H2TuneError: The method needs each update.
        """
        raise H2TuneError(f"strategy '{self.name}' cannot aggregate a sum")

    def note(self, client: str) -> str:
        """Return one line for a table on how a client takes part, such as why it shares nothing; by default ""."""
        return ""

    def with_client(self, enrolment: Enrolment) -> Self:
        """Return this strategy with one more client, which joins between rounds.

        Raises:
            H2TuneError: The method must know all clients beforehand.
        """
        raise H2TuneError(f"strategy '{self.name}' must know all clients before the first round")


def decoded(strategy: Strategy[Content], update: Update) -> Decoded[Content]:
    """Return an update as its strategy reads it."""
    return Decoded(update.client, update.round, update.examples, strategy.decode(update))
