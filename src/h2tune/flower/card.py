"""What a member tells of itself when it enrols: no path, no module name, no example."""

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
    """A member as the coordinator knows it.

    The first five fields are what aggregation needs; the rest is for the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    depth: Annotated[int, Field(ge=1, le=10_000)]
    rank: Annotated[int, Field(ge=1, le=100_000)]
    examples: Annotated[int, Field(ge=1, le=10**12)]
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
        """What a strategy works with; base model and module names are not known here."""
        roles = {role: tuple(blocks) for role, blocks in self.roles.items()}
        return Enrolment(self.name, "", self.depth, self.rank, self.examples, roles, {})

    @property
    def facts(self) -> dict[str, Any]:
        """The member's entry in `run_started`."""
        kept = ("name", "family", "task", "rank", "depth", "width", "labels")
        return {key: getattr(self, key) for key in kept} | {
            "model": self.family,
            "examples": {"train": self.examples, "validation": self.validation, "test": self.test},
            "trainable_parameters": self.trainable_parameters,
            "majority_accuracy": self.majority_accuracy,
        }


def card_of(
    seen: ClientInfo, member: LocalClient, trainable_parameters: int, describe: bool, *, counted: bool
) -> Card:
    """Return a member's card.

    Args:
        seen: What its model and task look like.
        member: It, with its data.
        trainable_parameters: What it trains.
        describe: Whether its task is named.
        counted: Whether the number of its training examples is told; with secure aggregation it is no weight.
    """
    enrolled, splits = member.enrolment, member.splits
    told: dict[str, Any] = {
        "task": member.task.name[:100],
        "labels": [label[:100] for label in member.task.labels],
        "majority_accuracy": majority(member.scored),
    }
    return Card(
        name=enrolled.name,
        depth=enrolled.depth,
        rank=enrolled.rank,
        examples=enrolled.examples if counted else 1,
        roles={role: list(blocks) for role, blocks in enrolled.roles.items()},
        family=seen.family,
        width=seen.width,
        trainable_parameters=trainable_parameters,
        validation=len(splits.validation),
        test=len(splits.test),
        **(told if describe else {}),
    )


def read_card(text: str) -> Card:
    """Read a card that came over the wire.

    Raises:
        H2TuneError: It is none.
    """
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        raise problem(error, Card, None, "enrolment", values=False) from None
    for role, blocks in card.roles.items():
        if blocks != sorted(set(blocks)) or not blocks or blocks[-1] >= card.depth:
            raise H2TuneError(
                f"role '{role}' has blocks that do not go with depth {card.depth}", where="enrolment"
            )
    return card
