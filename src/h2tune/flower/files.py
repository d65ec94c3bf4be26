"""The two files of a federation across machines: the coordinator's, and one that each member keeps to itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from h2tune.adapter.roles import ROLES
from h2tune.config import (
    ClientConfig,
    FederationConfig,
    ServerConfig,
    SharedConfig,
    absolute,
    absolute_texts,
    parse,
    read_toml,
    resolve,
)
from h2tune.config import problem as problem_of
from h2tune.config.experimental import Part
from h2tune.config.types import FROM_LIST, ConfigSection, Name, Positive
from h2tune.errors import H2TuneError, nearest

Seconds = Annotated[float, Field(gt=0)]


class Settings(SharedConfig):
    """What all parties of a federation have in common; it travels with every message to a member."""

    server: ServerConfig

    @model_validator(mode="after")
    def _fixed(self) -> Settings:
        for key in ("shared_rank", "slots"):
            if not isinstance(getattr(self.server, key), int):
                raise ValueError(f"server.{key} must be a number: members join without knowing each other")
        if self.server.strategy != "h2tune":
            raise ValueError(
                f"server.strategy '{self.server.strategy}' runs on one machine; here it is h2tune"
            )
        if self.experimental.alone:
            raise ValueError("experimental.alone is for one machine; leave it out")
        if self.experimental.parts:
            raise ValueError("experimental.parts are for one machine; a member's file has its own part")
        if self.train.arguments:
            raise ValueError("train.arguments are each member's own; set them in its file")
        return self


class Admitted(ConfigSection):
    """One who may join."""

    name: Name
    key: str | None = None
    """Its public key, as in the file that ssh-keygen wrote; binds the name to the node that authenticated with it."""
    rank: Positive | None = None
    """The rank it must have; by default any up to R."""
    depth: Positive | None = None
    """The number of blocks it must have."""
    examples: Positive | None = None
    """The most examples it may claim, and so its greatest weight."""


class Coordinator(Settings):
    """The coordinator's file: rounds, strategy, R, D, roles and who may join; neither paths of members nor data."""

    folder: str
    """The run folder on the coordinator's machine."""
    roles: Annotated[tuple[str, ...], FROM_LIST]
    """Roles that are shared; a member may lack some, and may have no other."""
    deadline: Seconds = 3600.0
    """Seconds that a round may take; who has not answered by then is left out of it."""
    late: Literal["drop", "use"] = "drop"
    """Whether an update that comes after its round is over is left out, or counts in the next with a smaller weight."""
    patience: Seconds = 180.0
    """Seconds of a round that a member which is not connected, or was lost, is waited for; one that is silent is asked
    again no sooner, or after a quarter of the time there is where that is less."""
    gather: Seconds = 900.0
    """Seconds before the first round in which members may enrol; it starts as soon as all are there."""
    member: Annotated[tuple[Admitted, ...], FROM_LIST, Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Coordinator:
        protected = self.server.secure_aggregation or self.privacy.noise != "none"
        if self.late == "use" and (self.server.aggregation != "mean" or protected):
            raise ValueError(
                'late = "use" goes with server.aggregation = "mean" without noise or secure aggregation: '
                "a late update beside a new one would count a member twice"
            )
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown:
            raise ValueError(f"no role '{unknown[0]}'{nearest(unknown[0], ROLES)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those who may join, in the order of the file."""
        return tuple(member.name for member in self.member)

    @property
    def settings(self) -> Settings:
        """What members get to know of this file; public texts come with the messages that need them, not as paths."""
        found = Settings(**{key: getattr(self, key) for key in Settings.model_fields})
        return found.model_copy(update={"basis": self.basis.model_copy(update={"texts": ()})})

    @property
    def federation(self) -> FederationConfig:
        """The settings as what a strategy is built from; members' tables are not known here."""
        shared = {key: getattr(self, key) for key in Settings.model_fields}
        return FederationConfig.model_construct(**shared, client=())


class MemberFile(ConfigSection):
    """A member's file: its model, data, rank and folder; it never leaves the member's machine."""

    federation: Name
    """Name of the federation; messages of another one are refused."""
    folder: str
    """Where it keeps its private state, its log and its adapters."""
    client: ClientConfig
    """Its model, task, rank and the rest, as in a federation file."""
    part: Part | None = None
    """[k, n]: it draws from the k-th of n disjoint parts of its task's training data."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its own arguments of transformers.TrainingArguments, such as bf16."""
    secure_aggregation: bool = False
    """Whether it takes part with secure aggregation only, and refuses settings without."""
    describe: bool = True
    """Whether the name of its task, its labels and its majority accuracy are told, for the coordinator's report."""
    superlink: str | None = None
    """HOST:PORT it connects to."""
    root_certificates: str | None = None
    """The federation's CA certificate."""

    def joined(self, settings: Settings, folder: Path) -> FederationConfig:
        """Return a federation of this member alone, under the coordinator's settings.

        Args:
            settings: What the coordinator sent.
            folder: Where relative paths start.

        Raises:
            H2TuneError: The settings are of another federation, or do not go with this file.
        """
        if settings.name != self.federation:
            raise H2TuneError(f"the coordinator's federation is '{settings.name}', not '{self.federation}'")
        if self.secure_aggregation and not settings.server.secure_aggregation:
            raise H2TuneError("this member takes part with secure aggregation only, and it is off")
        raw = json.loads(settings.model_dump_json(exclude_none=True))
        # before what it is by default is gone
        # the others are not known here, and the default number of shares depends on them
        shares = settings.experimental.shares_of(settings.server.min_clients)
        alone = {"server": settings.server.of_one(), "experimental": settings.experimental.of_one()}
        raw |= {key: json.loads(section.model_dump_json(exclude_none=True)) for key, section in alone.items()}
        raw["experimental"]["noise_shares"] = shares
        if self.part:
            raw["experimental"]["parts"] = {self.client.name: list(self.part)}
        raw["train"]["arguments"] = self.arguments
        raw["client"] = [json.loads(self.client.model_dump_json(exclude_none=True))]
        return parse(raw, "member file", folder)


Content = TypeVar("Content", bound=BaseModel)


def load_coordinator(path: Path) -> Coordinator:
    """Read a coordinator's file; its run folder and text files are made absolute.

    Raises:
        H2TuneError: One line with file, key and what is wrong.
    """
    found = _load(path, Coordinator)
    texts = absolute_texts(found.basis.texts, path.resolve().parent)
    basis = found.basis.model_copy(update={"texts": texts})
    return found.model_copy(update={"folder": _absolute(found.folder, path), "basis": basis})


def load_member_file(path: Path) -> MemberFile:
    """Read a member's file; its folder and certificates are made absolute.

    Raises:
        H2TuneError: One line with file, key and what is wrong.
    """
    found = _load(path, MemberFile)
    changes = {"folder": _absolute(found.folder, path)}
    if found.root_certificates is not None:
        changes["root_certificates"] = _absolute(found.root_certificates, path)
    return found.model_copy(update=changes)


def member_client(file: MemberFile, path: Path) -> ClientConfig:
    """Return a member's table with paths that start from its file's folder."""
    raw = {"name": file.federation, "client": [json.loads(file.client.model_dump_json(exclude_none=True))]}
    return parse(raw, str(path), path.resolve().parent).client[0]


def _absolute(value: str, file: Path) -> str:
    return absolute(value, file.resolve().parent)


def _load(path: Path, model: type[Content]) -> Content:
    return validated(model, read_toml(path, "Make one with h2tune deploy init"), str(path))


def validated(model: type[Content], raw: object, where: str) -> Content:
    """Return content that its model allows, resolved if it has a federation's settings.

    Raises:
        H2TuneError: One line with what is wrong.
    """
    try:
        found = model.model_validate(raw)
    except ValidationError as error:
        raise problem_of(error, model, raw, where, values=False) from None
    return _resolved(found, where)


def read_settings(text: str) -> Settings:
    """Read settings that came over the wire.

    Raises:
        H2TuneError: They are not valid; the reason names the key and no value.
    """
    where = "the coordinator's settings"
    try:
        found = Settings.model_validate_json(text)
    except ValidationError as error:
        raise problem_of(error, Settings, None, where, values=False) from None
    return _resolved(found, where)


def _resolved(content: Content, where: str) -> Content:
    if not isinstance(content, SharedConfig):
        return content
    try:
        return resolve(content)
    except H2TuneError as error:
        place = ", ".join(p for p in (where, error.where) if p)
        raise H2TuneError(error.message, where=place, remedy=error.remedy) from None
