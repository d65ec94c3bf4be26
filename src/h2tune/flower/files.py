"""The two files of a federation across machines: the coordinator's, and each member's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from h2tune.config import ClientConfig, FederationConfig, ServerConfig, SharedConfig, parse
from h2tune.config.experimental import Part
from h2tune.config.types import FROM_LIST, ConfigSection, Count, Name, Positive
from h2tune.errors import H2TuneError, nearest
from h2tune.flower.address import Address
from h2tune.flower.policy import Policy
from h2tune.functional.quorum import SECURE_CLIENTS
from h2tune.functional.roles import ROLES
from h2tune.own_code import is_reference
from h2tune.tasks.hub import is_folder
from h2tune.tasks.own_task import OwnTask

Seconds = Annotated[float, Field(gt=0)]


class Settings(SharedConfig):
    """The settings that all parties of a federation share; every message to a member has them."""

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
        if is_reference(self.server.aggregation):
            raise ValueError("server.aggregation must not name code: all parties would run it")
        if self.experimental.alone:
            raise ValueError("experimental.alone is for one machine; leave it out")
        if self.experimental.parts:
            raise ValueError("experimental.parts are for one machine; a member's file has its own part")
        if self.basis.encoder.startswith(("/", ".", "~")):
            raise ValueError("basis.encoder must be a Hub id or pypi:NAME, which all members can load")
        if self.train.arguments:
            raise ValueError("train.arguments are each member's own; set them in its file")
        return self


class Admitted(ConfigSection):
    """A member that may join."""

    name: Name
    key: str | None = None
    """Its public key, as in the file that ssh-keygen wrote; binds the name to the node that authenticated with it."""
    rank: Positive | None = None
    """The rank it must have; by default any up to R."""
    depth: Positive | None = None
    """The number of blocks it must have."""
    examples: Count | None = None
    """The most examples it may claim, and so its greatest weight."""


class CoordinatorFile(Settings):
    """The coordinator's file: rounds, strategy, R, D, roles and who may join; no path or data of a member."""

    folder: str
    """The run folder on the coordinator's machine."""
    key: str | None = None
    """File of the private key that signs its audit log."""
    address: Address | None = None
    """Where members reach it; `h2tune deploy` needs it to start it, to add members and to renew certificates."""
    roles: Annotated[tuple[str, ...], FROM_LIST]
    """Roles that are shared; a member may lack some, and may have no other."""
    deadline: Seconds = 3600.0
    """Seconds for a round; a member that has not answered by then is left out of it."""
    late: Literal["drop", "use"] = "drop"
    """Whether an update that arrives after its round is dropped, or counts in the next with a smaller weight."""
    patience: Seconds = 180.0
    """Seconds of a round to wait for a member that is disconnected or whose message was lost. A silent member gets its
    message again after this time at the earliest, or after a quarter of the time available if that is less."""
    gather: Seconds = 900.0
    """Seconds before the first round in which members may enrol; it starts earlier once all have."""
    member: Annotated[tuple[Admitted, ...], FROM_LIST, Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> CoordinatorFile:
        protected = self.server.secure_aggregation or self.privacy.noise != "none"
        if self.late == "use" and (self.server.aggregation != "mean" or protected):
            raise ValueError(
                'late = "use" goes with server.aggregation = "mean" without noise or secure aggregation: '
                "a late update beside a new one would count a member twice"
            )
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown:
            raise ValueError(f"unknown role '{unknown[0]}'{nearest(unknown[0], ROLES)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members that may join, in the order of the file."""
        return tuple(member.name for member in self.member)

    @property
    def settings(self) -> Settings:
        """The part of this file that members receive; public texts are sent as text, so that paths are left out."""
        shared = Settings(**{key: getattr(self, key) for key in Settings.model_fields})
        return shared.model_copy(update={"basis": self.basis.model_copy(update={"texts": ()})})

    @property
    def federation(self) -> FederationConfig:
        """The settings from which a strategy is built; it has no clients, as their tables are not known here."""
        shared = {key: getattr(self, key) for key in Settings.model_fields}
        return FederationConfig.model_construct(**shared, client=())


class Peer(ConfigSection):
    """A member and its public key."""

    name: Name
    key: str
    """Its node's public key, as in the file that ssh-keygen wrote."""


class PeersFile(ConfigSection):
    """All members of a federation with secure aggregation and their public keys; the same file at each of them."""

    federation: Name
    """Name of the federation."""
    member: Annotated[tuple[Peer, ...], FROM_LIST]

    @model_validator(mode="after")
    def _number(self) -> PeersFile:
        least, most = SECURE_CLIENTS
        if not least <= len(self.member) <= most:
            raise ValueError(f"{len(self.member)} members: secure aggregation is for {least} to {most}")
        return self


class MemberFile(ConfigSection):
    """A member's file: its model, data, rank and folder; it never leaves the member's machine."""

    federation: Name
    """Name of the federation; messages of another one are refused."""
    folder: str
    """Folder of its private state, its log and its adapters."""
    client: ClientConfig
    """Its model, task, rank and the rest, as in a federation file."""
    part: Part | None = None
    """[k, n]: it draws from the k-th of n disjoint parts of its task's training data."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its own arguments of transformers.TrainingArguments, such as bf16."""
    secure_aggregation: bool = False
    """Whether it takes part with secure aggregation only, and refuses settings without."""
    describe: bool = True
    """Whether it sends the name of its task, its labels and its majority accuracy, for the coordinator's report."""
    policy: Policy = Policy()
    """What it agrees to; a run beyond it is refused on its machine."""
    key: str | None = None
    """File of its node's private key, with which it signs its answers and its audit log."""
    peers: str | None = None
    """File with all members' public keys, which secure aggregation needs: it checks the others' keys by them."""
    superlink: str | None = None
    """HOST:PORT it connects to."""
    root_certificates: str | None = None
    """The federation's CA certificate."""

    @model_validator(mode="after")
    def _same_rows(self) -> MemberFile:
        task = self.client.task
        if isinstance(task, OwnTask) and task.dataset and not is_folder(task.dataset) and not task.revision:
            raise ValueError(
                "client.task.revision is missing: a member reads its data in every round; name a commit of the data set"
            )
        return self

    def joined(self, settings: Settings, folder: Path) -> FederationConfig:
        """Return a federation of this member alone, under the coordinator's settings.

        Args:
            settings: The coordinator's settings.
            folder: Where relative paths start.

        Raises:
            H2TuneError: The settings are of another federation, or do not fit this file.
        """
        if settings.name != self.federation:
            raise H2TuneError(f"the coordinator's federation is '{settings.name}', not '{self.federation}'")
        if self.secure_aggregation and not settings.server.secure_aggregation:
            raise H2TuneError("this member takes part with secure aggregation only, and it is off")
        if settings.server.secure_aggregation and (self.key is None or self.peers is None):
            raise H2TuneError("secure aggregation needs `key` and `peers` in the member's file")
        raw = _dumped(settings)
        # derived from all clients' number, which a federation of one does not have
        shares = settings.experimental.shares_of(settings.server.min_clients)
        raw |= {
            "server": _dumped(settings.server.of_one()),
            "experimental": _dumped(settings.experimental.of_one()),
        }
        raw["experimental"]["noise_shares"] = shares
        if self.part:
            raw["experimental"]["parts"] = {self.client.name: list(self.part)}
        raw["train"]["arguments"] = self.arguments
        raw["client"] = [_dumped(self.client)]
        return parse(raw, "member file", folder)


def _dumped(section: ConfigSection) -> dict[str, Any]:
    """Return a section as it would be read from a file."""
    content: dict[str, Any] = json.loads(section.model_dump_json(exclude_none=True))
    return content
