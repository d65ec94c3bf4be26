"""A member's description of itself when it enrols: no path, no module name, no example."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from h2tune.config import problem
from h2tune.config.types import Name
from h2tune.errors import H2TuneError
from h2tune.federation.local_client import LocalClient, majority
from h2tune.federation.messages import Enrolment
from h2tune.runs.model_info import ClientInfo

Count = Annotated[int, Field(ge=0, le=10**15)]
Word = Annotated[str, Field(max_length=100)]


class Card(BaseModel):
    """A member's description.

    The first five fields are needed for aggregation; the rest is for the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    depth: Annotated[int, Field(ge=1, le=10_000)]
    rank: Annotated[int, Field(ge=1, le=100_000)]
    examples: Annotated[int, Field(ge=0, le=10**12)]
    roles: Annotated[dict[Word, list[Count]], Field(min_length=1, max_length=64)]
    family: Word = ""
    width: Count = 0
    trainable_parameters: Count = 0
    validation: Count = 0
    test: Count = 0
    task: Word = ""
    labels: Annotated[list[Word], Field(max_length=1000)] = []
    majority_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def enrolment(self) -> Enrolment:
        """The enrolment that a strategy uses; base model and module names are not on the card."""
        roles = {role: tuple(blocks) for role, blocks in self.roles.items()}
        return Enrolment(self.name, "", self.depth, self.rank, self.examples, roles, {})

    @property
    def facts(self) -> dict[str, Any]:
        """The member's entry in `run_started`."""
        copied = ("name", "family", "task", "rank", "depth", "width", "labels")
        return {key: getattr(self, key) for key in copied} | {
            "model": self.family,
            "examples": {"train": self.examples, "validation": self.validation, "test": self.test},
            "trainable_parameters": self.trainable_parameters,
            "majority_accuracy": self.majority_accuracy,
        }


def card_of(
    info: ClientInfo,
    client: LocalClient,
    trainable_parameters: int,
    describe: bool,
    *,
    counted: bool,
    measured: bool,
) -> Card:
    """Return a member's card.

    Args:
        info: Its model and task.
        client: Its client, with data.
        trainable_parameters: Number of its trainable parameters.
        describe: Whether the card has its task, labels and majority accuracy.
        measured: Whether the card may have what is measured on its data, its majority accuracy.
        counted: Whether the card has the number of training examples; secure aggregation weights all the same.
    """
    enrolled, splits = client.enrolment, client.splits
    description: dict[str, Any] = {
        "task": client.task.name[:100],
        "labels": [label[:100] for label in client.task.labels],
    }
    if measured:
        description["majority_accuracy"] = majority(client.scored)
    return Card(
        name=enrolled.name,
        depth=enrolled.depth,
        rank=enrolled.rank,
        examples=enrolled.examples if counted else 1,
        roles={role: list(blocks) for role, blocks in enrolled.roles.items()},
        family=info.family,
        width=info.width,
        trainable_parameters=trainable_parameters,
        validation=len(splits.validation),
        test=len(splits.test),
        **(description if describe else {}),
    )


def read_card(text: str) -> Card:
    """Parse and validate a card from the wire.

    Raises:
        H2TuneError: It is not a valid card.
    """
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        raise problem(error, Card, None, "enrolment", values=False) from None
    for role, blocks in card.roles.items():
        if blocks != sorted(set(blocks)) or not blocks or blocks[-1] >= card.depth:
            raise H2TuneError(f"the blocks of role '{role}' do not fit depth {card.depth}", where="enrolment")
    return card
