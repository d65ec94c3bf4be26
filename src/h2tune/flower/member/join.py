"""A member under the coordinator's settings: its file, data, strategy and card. Knows no flwr."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.local_client import LocalClient
from h2tune.flower.card import Card, card_of
from h2tune.flower.files import MemberFile, Settings
from h2tune.flower.load import load_member_file
from h2tune.flower.member import ledger
from h2tune.flower.member.requests import Request
from h2tune.flower.policy import checksum
from h2tune.runs.build import h2tune_settings
from h2tune.runs.enrol import load_client
from h2tune.runs.model_info import ClientInfo, check_encoder, client_info, enrolment
from h2tune.runs.ranks import rank_of, trainable_in
from h2tune.training.arguments import check_arguments, try_arguments

EXPERIMENT = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Joined:
    """A member with its data in memory.

    Args:
        file: Its own file.
        info: Its model and task.
        client: Its client, with data.
        strategy: The strategy, with this client alone.
        card: The description that it sends.
    """

    file: MemberFile
    info: ClientInfo
    client: LocalClient
    strategy: H2Tune
    card: Card


def join(path: Path, settings: Settings) -> Joined:
    """Load a member's own file and data under the coordinator's settings; no weights are loaded.

    Raises:
        H2TuneError: The file, the model's description or the data cannot be used, or the settings do not fit them.
    """
    file = load_member_file(path)
    check_policy(file, settings)
    federation = file.joined(settings, path.resolve().parent)
    check_arguments(federation.train.arguments, federation.train.scheduler)
    try_arguments(federation.train.arguments)
    size, slots = federation.server.shared_rank, federation.server.slots
    if not isinstance(size, int) or not isinstance(slots, int):
        raise H2TuneError("the coordinator's settings lack R or D")
    check_encoder(federation.basis.encoder)
    info = client_info(federation.client[0])
    enrolled = enrolment(info, rank_of(info, federation, size, slots), 0)
    client = load_client(info, enrolled, federation)
    strategy = H2Tune([client.enrolment], h2tune_settings(federation, size, slots))
    parameters = trainable_in(federation, info, enrolled.rank, size, slots)
    card = card_of(
        info,
        client,
        parameters,
        file.describe,
        counted=not settings.server.secure_aggregation,
        measured=settings.privacy.metrics == "shared",
    )
    return Joined(file, info, client, strategy, card)


def check_policy(file: MemberFile, settings: Settings) -> None:
    """Refuse settings beyond the member's policy, where it is not known yet of which run they are.

    Raises:
        H2TuneError: Names the key of the policy.
    """
    spent = ledger.spent(Path(file.folder), unlike=checksum(settings, rounds=False))
    file.policy.check(settings, spent)


def join_for(path: Path, request: Request) -> Joined:
    """Return the member that a message is for, with its data.

    Raises:
        H2TuneError: As `join`, or the message is for another member, or its experiment has no valid name.
    """
    joined = join(path, request.settings)
    if joined.client.name != request.client:
        raise H2TuneError(f"the message is for '{request.client}', this is '{joined.client.name}'")
    spent = ledger.spent(Path(joined.file.folder), without=checked_experiment(request.experiment))
    joined.file.policy.check(request.settings, spent)
    return joined


def checked_experiment(name: str) -> str:
    """Return an experiment's name, which is used as that of a folder.

    Raises:
        H2TuneError: It is not 32 hexadecimal digits.
    """
    if not EXPERIMENT.fullmatch(name):
        raise H2TuneError("the experiment's name is not 32 hexadecimal digits")
    return name
