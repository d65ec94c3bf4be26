"""A federation file: what it may say, and one clear line for what it may not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from h2tune.errors import H2TuneError, nearest
from h2tune.tasks.rows import FileTask

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Server(_Section):
    """How the federation is led."""

    rounds: Positive = 3
    strategy: str = "h2tune"
    min_clients: Positive = 1
    """Clients whose updates must arrive for a round to count."""
    participation: Fraction = 1.0
    """Fraction of the clients that take part in a round."""
    shared_rank: Positive | Literal["auto"] = "auto"
    """R; by default the largest rank of a client."""
    slots: Positive | Literal["auto"] = "auto"
    """D; by default the largest depth of a client."""
    learning_rate: Rate = 1.0
    """η of equation (5)."""
    weighting: Literal["examples", "uniform"] = "examples"
    wire_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    alone: bool = False
    """Also train every client alone, with the same steps, for comparison."""


class Adapter(_Section):
    """The adapter that every client wears."""

    alpha: Rate = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mask: Literal["entry", "block", "leading"] = "entry"
    alignment: Literal["learned", "depth"] = "learned"
    temperature: Rate = 1.0


class Basis(_Section):
    """Where the shared middle matrices live."""

    kind: Literal["free", "anchored"] = "free"
    """Between the private A and B, equation (1); or between frames that mean the same on every model, equation (8)."""
    texts: tuple[str, ...] = ("movie_reviews", "tweets", "bbc_topics")
    """Public texts on which the clients agree: text files (one text a line), or built-in tasks' training texts."""
    count: Annotated[int, Field(ge=8)] = 480
    scale: Rate = 1.0
    """s of equation (8)."""

    @field_validator("texts", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Train(_Section):
    """Local training."""

    local_steps: Positive = 12
    batch_size: Positive = 8
    accumulation: Positive = 1
    """Micro-batches in a local step; `batch_size` counts all of them."""
    alternation: Literal["step", "interleave", "joint"] = "step"
    learning_rate: Rate = 2e-4
    """Of A, B and heads."""
    shared_learning_rate: Rate | None = None
    """Of Δ and S; by default as `learning_rate`."""
    relation_learning_rate: Rate = 1e-2
    """Of Z."""
    weight_decay: Weight = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    scheduler: str = "constant"
    """A scheduler of Transformers; it spans all rounds."""
    max_grad_norm: Weight = 1.0
    size_weight: Weight = 1e-4
    """λ_reg of equation (6)."""
    drift_weight: Weight = 0.1
    """λ_kl of equation (6)."""
    distillation_weight: Weight = 0.1
    """λ_kd of equation (7)."""
    arguments: dict[str, Any] = {}
    """Further arguments of transformers.TrainingArguments, such as bf16 or gradient_checkpointing."""

    @model_validator(mode="after")
    def _divisible(self) -> Train:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of accumulation {self.accumulation}"
            )
        return self


class Data(_Section):
    """How many examples are used; a client's own table may say otherwise."""

    train: Positive = 128
    validation: Annotated[int, Field(ge=0)] = 0
    test: Positive = 200
    evaluate: Literal["test", "validation"] = "test"
    """The split that is scored."""
    evaluate_rounds: Literal["all", "last"] = "all"
    """"last" scores once, after the last round: for many runs where scoring takes longer than training."""
    evaluate_batch_size: Positive = 16


class Client(_Section):
    """One member: its model, task and budget."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    model: str
    task: str | FileTask
    rank: Positive | Literal["auto"] = 8
    uplink_bytes: Positive | None = None
    """With rank = "auto": bytes the client may send in a round."""
    memory_bytes: Positive | None = None
    """With rank = "auto": bytes for adapter weights, gradients and optimiser states."""
    head: Literal["auto", "verbaliser", "classifier"] = "auto"
    """How labels are scored; by default decoders by their words, encoders by a head that stays private."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    roles: dict[str, str] | None = None
    """Module-name suffixes by role, for models that are not known."""
    part: tuple[int, int] | None = None
    """[k, n]: the k-th of n disjoint parts of the task's training pool."""
    local_steps: Positive | None = None
    learning_rate: Rate | None = None
    max_length: Positive | None = None
    """Tokens of a prompt that are kept; by default as the task says."""
    train: Positive | None = None
    validation: Annotated[int, Field(ge=0)] | None = None
    test: Positive | None = None

    @field_validator("part", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _budget(self) -> Client:
        if self.rank == "auto" and self.uplink_bytes is None and self.memory_bytes is None:
            raise ValueError('rank = "auto" needs uplink_bytes or memory_bytes to choose by')
        return self


class Federation(_Section):
    """A federation file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0)] = 0
    server: Server = Server()
    adapter: Adapter = Adapter()
    basis: Basis = Basis()
    train: Train = Train()
    data: Data = Data()
    client: Annotated[tuple[Client, ...], Field(min_length=1)]

    @field_validator("client", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> Federation:
        names = [client.name for client in self.client]
        if self.basis.kind == "anchored" and self.server.strategy != "h2tune":
            raise ValueError(
                f'basis.kind = "anchored" is for h2tune, not for strategy "{self.server.strategy}"'
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two clients are called '{twice[0]}'; every client needs a name of its own")
        if self.server.min_clients > len(names):
            raise ValueError(
                f"server.min_clients is {self.server.min_clients}, but there are {len(names)} clients"
            )
        if self.data.evaluate_rounds == "last" and self.server.participation < 1:
            raise ValueError(
                'data.evaluate_rounds = "last" needs server.participation = 1: who sits the last round out has no score'
            )
        if isinstance(self.server.shared_rank, int):
            for client in self.client:
                if isinstance(client.rank, int) and client.rank > self.server.shared_rank:
                    raise ValueError(
                        f"server.shared_rank {self.server.shared_rank} is below rank {client.rank} of client "
                        f"'{client.name}'; raise the one or lower the other"
                    )
        return self

    def sorted_clients(self) -> tuple[Client, ...]:
        """Return the clients by name: their order in the file means nothing."""
        return tuple(sorted(self.client, key=lambda client: client.name))


def load(path: Path, overrides: Sequence[str] = ()) -> Federation:
    """Read a federation file.

    Args:
        path: A TOML file.
        overrides: Changes such as `"train.learning_rate=1e-4"` or `"client.films.rank=4"`; the value is TOML, and what
            is no TOML is taken for a string.

    Raises:
        H2TuneError: The file is not there, is no TOML, or says something it may not; one line with the key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise H2TuneError(
            "no such file", where=str(path), remedy="Give the path of a federation file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise H2TuneError(f"cannot be read ({error})", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise H2TuneError(f"no valid TOML: {error}", where=str(path), remedy="See https://toml.io") from None
    for override in overrides:
        _apply(raw, override)
    return parse(raw, str(path), path.parent)


def parse(raw: Mapping[str, Any], where: str, folder: Path | None = None) -> Federation:
    """Validate the content of a federation file; relative paths in it start from `folder`."""
    try:
        federation = Federation.model_validate(raw)
    except ValidationError as error:
        raise H2TuneError(_first_problem(error, raw), where=where) from None
    return federation if folder is None else _absolute(federation, folder.resolve())


def dump(federation: Federation) -> dict[str, Any]:
    """Return the resolved file as plain values, without what is None: it reads back to the same federation."""
    plain: dict[str, Any] = json.loads(federation.model_dump_json(exclude_none=True))
    return plain


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise H2TuneError(f"'{override}' is no change", where="--set", remedy="Write --set section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    table: Any = raw
    for i, part in enumerate(path):
        if isinstance(table, list):
            named = [entry for entry in table if isinstance(entry, dict) and entry.get("name") == part]
            if not named:
                names = [str(entry.get("name")) for entry in table]
                raise H2TuneError(f"no client '{part}'{nearest(part, names)}", where=f"--set {key}")
            table = named[0]
        else:
            table = table.setdefault(part, {})
        if not isinstance(table, dict | list):
            raise H2TuneError(f"'{'.'.join(path[: i + 1])}' is no table", where=f"--set {key}")
    if isinstance(table, list):
        raise H2TuneError("name the client first, as in client.films.rank=4", where=f"--set {key}")
    table[last] = value


def _first_problem(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """Say the first problem in words, with the key and the nearest known one."""
    problems = error.errors()
    # A value that fits neither side of "text or table" is reported once for each; the table's report says more.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = _key(problem["loc"], raw)
    if problem["type"] == "extra_forbidden":
        known = list(_known(problem["loc"]))
        return f"unknown key '{key}'{nearest(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = f", not {problem['input']!r}" if isinstance(problem["input"], str | int | float | bool) else ""
    return f"{key + ': ' if key else ''}{message[:1].lower() + message[1:]}{given}"


def _key(location: Sequence[int | str], raw: Any) -> str:
    words: list[str] = []
    for i, part in enumerate(location):
        if isinstance(part, int) and isinstance(raw, list | tuple) and part < len(raw):
            raw = raw[part]
            words[-1:] = [f"{words[-1]}.{raw.get('name', part)}" if isinstance(raw, dict) else str(part)]
        elif isinstance(raw, Mapping) and isinstance(part, str) and (part in raw or i == len(location) - 1):
            raw = raw.get(part)
            words.append(part)
        # else: pydantic's own words, such as the branch of a union
    return ".".join(words)


def _known(location: Sequence[int | str]) -> Iterator[str]:
    model: type[BaseModel] = Federation
    sections: dict[str, type[BaseModel]] = {"server": Server, "adapter": Adapter, "basis": Basis}
    sections |= {"train": Train, "data": Data, "client": Client}
    for part in location[:-1]:
        if part in sections:
            model = sections[str(part)]
        elif part == "task":
            model = FileTask
    yield from model.model_fields


def _absolute(federation: Federation, folder: Path) -> Federation:
    """Make the paths in a file independent of where the program is started."""

    def absolute(path: str) -> str:
        return str(folder / Path(path).expanduser()) if not Path(path).expanduser().is_absolute() else path

    clients = []
    for client in federation.client:
        changes: dict[str, Any] = {}
        if client.model.startswith((".", "/", "~")) or (folder / client.model).is_dir():
            changes["model"] = absolute(str(Path(client.model).expanduser()))
        if isinstance(client.task, FileTask):
            files = {key: getattr(client.task, key) for key in ("file", "validation_file", "test_file")}
            changes["task"] = client.task.model_copy(update={k: absolute(v) for k, v in files.items() if v})
        clients.append(client.model_copy(update=changes))
    texts = tuple(
        absolute(t) if "/" in t or t.endswith((".txt", ".text")) else t for t in federation.basis.texts
    )
    basis = federation.basis.model_copy(update={"texts": texts})
    return federation.model_copy(update={"client": tuple(clients), "basis": basis})
