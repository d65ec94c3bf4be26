"""What a federated method must say: the server's half and the client's half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.federation.messages import Download, Enrolment, Spec, Tensors, Update
from h2tune.training.encode import Encoded
from h2tune.training.schedule import Alternation
from h2tune.training.terms import Terms


class AdaptedModel(Protocol):
    """The client's half of a method: an adapter on a base model, and how it takes part in rounds.

    One round calls `load_state` (unless it is the client's first), `receive`, trains the parameters of `phases`, and
    calls `send` and `state`; the federation's first one calls `begin` before it trains.
    """

    model: nn.Module
    alternation: Alternation

    def phases(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Return the trained parameters by phase ("shared", "specific") and name."""

    def terms(self) -> Terms:
        """Return the loss terms beside the task loss."""

    def receive(self, download: Download) -> None:
        """Take over what the server sent."""

    def begin(
        self, rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, *, causal: bool, batch_size: int
    ) -> None:
        """Start from the client's own training examples, in the federation's first round; most methods do not."""

    def loaded_digest(self) -> str:
        """Return the checksum of what the model holds of the server's tensors, read from the model itself."""

    def send(self) -> Tensors:
        """Return what was learned since `receive`."""

    def learned(self) -> Tensors:
        """Return the same as `send`, but measured on the model itself, to prove `send` by; {} if nothing is shared."""

    def facts(self) -> dict[str, Any]:
        """Return what a report shows of this client besides numbers of training (relation, coverage)."""

    def set_frames(self, frames: Mapping[str, Tensor]) -> None:
        """Take over the frames of an anchored basis, before every round; other methods have none."""

    def state(self) -> Tensors:
        """Return all that the client must keep until its next round."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned; strict."""

    def detach(self) -> PreTrainedModel:
        """Take the adapter off and return the base model as it was."""


class Strategy(Protocol):
    """The server's half of a method; pure: it holds no state but what it was built from.

    A strategy may also have `read(update)`, which refuses an update whose values make no sense, `note(client)` (see
    `note_of`) and `release(client, tensors)` (see `released`).
    """

    @property
    def name(self) -> str: ...

    @property
    def enrolments(self) -> Mapping[str, Enrolment]: ...

    def start(self) -> Tensors:
        """Return the server's tensors before the first round."""

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """Return what a client gets at the start of a round."""

    def download_spec(self, client: str, round_number: int) -> Spec:
        """Return names, shapes and types of `download`, before there is anything to send."""

    def upload_spec(self, client: str, round_number: int) -> Spec:
        """Return names, shapes and types that a client's update must have."""

    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Update]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return the server's tensors after the round, and facts of the step (change by role, and the like)."""

    def participant(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> AdaptedModel:
        """Put the method's adapter on a base model.

        Args:
            base: The base model; shared with other clients, so it must come back unchanged.
            enrolment: The client.
            heads: Names of modules trained beside the adapter.
            seed: Seed of what is drawn at the start, common to all clients.
        """


def note_of(strategy: Strategy, client: str) -> str:
    """Return one line for a table on how a client takes part, such as why it shares nothing; mostly ""."""
    note = getattr(strategy, "note", None)
    return str(note(client)) if note is not None else ""


def released(strategy: Strategy, client: str, tensors: Tensors) -> Tensors:
    """Return what leaves a client of what it learned: mostly the same, or clipped and with noise."""
    release = getattr(strategy, "release", None)
    if release is None:
        return tensors
    noised: Tensors = release(client, tensors)
    return noised
