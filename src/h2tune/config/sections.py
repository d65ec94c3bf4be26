"""What a federation file may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from h2tune.federation.tolerance import (
    SECURE_CLIENTS,
    Increments,
    Rule,
    drawn_clients,
    threshold_needed,
    updates_needed,
)
from h2tune.tasks.rows import FileTask

FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""TOML has lists alone; in a frozen section they are tuples."""
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
    increments: Increments = "mean"
    """Whether G moves by the mean of the clients' increments, equation (5), or by their sum."""
    aggregation: Rule = "mean"
    """How clients' increments are brought together: equation (5), or a rule that bears hostile clients."""
    hostile: Annotated[int, Field(ge=0)] | None = None
    """f: the hostile clients that a robust rule must bear; by default 1."""
    clip_norm: Rate | Literal["median"] = "median"
    """With aggregation = "clip": the largest norm; by default the median of the clients' norms."""
    wire_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    secure_aggregation: bool = False
    """Whether the server gets the sum of what members learned alone; `min_clients` is then the threshold of shares."""
    alone: bool = False
    """Also train every client alone, with the same steps, for comparison."""

    @model_validator(mode="after")
    def _robust(self) -> Server:
        if self.aggregation == "mean" and self.hostile is not None:
            raise ValueError(
                'hostile is for a robust rule, and aggregation = "mean" bears none; set aggregation, or leave it out'
            )
        if self.aggregation != "mean" and self.increments == "sum":
            raise ValueError(
                f'increments = "sum" does not go with aggregation = "{self.aggregation}", a robust mean'
            )
        if self.aggregation != "clip" and self.clip_norm != "median":
            raise ValueError(f'clip_norm is for aggregation = "clip", not for "{self.aggregation}"')
        if self.aggregation != "mean" and self.strategy != "h2tune":
            raise ValueError(
                f'aggregation = "{self.aggregation}" is for h2tune, not for strategy "{self.strategy}"'
            )
        if self.secure_aggregation and (self.strategy, self.aggregation) != ("h2tune", "mean"):
            raise ValueError(
                'secure_aggregation is for strategy = "h2tune" with aggregation = "mean": a robust rule, or another '
                f'method, must see each update (here: "{self.strategy}", "{self.aggregation}")'
            )
        if self.secure_aggregation and self.weighting != "uniform":
            raise ValueError(
                'secure_aggregation needs weighting = "uniform": example counts would be a weight that nobody can check'
            )
        return self

    @property
    def assumed_hostile(self) -> int:
        """f: as stated; by default 1 for a robust rule, and 0 for the mean."""
        return self.hostile if self.hostile is not None else int(self.aggregation != "mean")

    def check_tolerance(self, clients: int) -> None:
        """Refuse a robust rule that so many clients, or a round of `min_clients`, cannot bear.

        Raises:
            ValueError: Says what the rule, or secure aggregation, needs.
        """
        if self.secure_aggregation:
            self._check_threshold(clients)
        needed = updates_needed(self.aggregation, self.assumed_hostile)
        rule = f'server.aggregation = "{self.aggregation}" with server.hostile = {self.assumed_hostile}'
        if clients < needed:
            raise ValueError(f"{rule} needs {needed} clients or more, but there are {clients}")
        if self.min_clients < needed:
            raise ValueError(
                f"{rule} needs {needed} updates in every round; set server.min_clients to {needed} or more "
                f"(it is {self.min_clients})"
            )

    def _check_threshold(self, clients: int) -> None:
        least, most = SECURE_CLIENTS
        if not least <= clients <= most:
            raise ValueError(
                f"server.secure_aggregation is for {least} to {most} clients, but there are {clients}: of two, each "
                "learns the other's part from the sum, and every pair of clients has a mask of its own"
            )
        drawn = drawn_clients(clients, self.participation, self.min_clients)
        needed = threshold_needed(drawn)
        if self.min_clients < needed:
            raise ValueError(
                f"server.secure_aggregation with {drawn} clients in a round needs server.min_clients (its threshold) "
                f"of {needed} or more (it is {self.min_clients}): two thirds, or two groups could unmask two sums"
            )

    def of_one(self) -> Server:
        """Return the same for a client by itself, where there is nobody to bear."""
        plain = {"aggregation": "mean", "hostile": None, "clip_norm": "median", "min_clients": 1}
        plain["secure_aggregation"] = False
        return self.model_copy(update=plain)


class Adapter(_Section):
    """The adapter that every client wears."""

    alpha: Rate = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mask: Literal["entry", "block", "leading"] = "entry"
    alignment: Literal["learned", "depth"] = "learned"
    temperature: Rate = 1.0


class Basis(_Section):
    """Where the shared middle matrices live."""

    kind: Literal["free", "anchored"] = "anchored"
    """Between the private A and B, equation (1); or between frames that mean the same on every model, equation (8)."""
    texts: Annotated[tuple[str, ...], FROM_LIST] = ("movie_reviews", "tweets", "bbc_topics")
    """Public texts on which the clients agree: text files (one text a line), or built-in tasks' training texts."""
    count: Annotated[int, Field(ge=8)] = 480
    scale: Rate = 1.0
    """s of equation (8)."""


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
    """Of Δ and S; by default 1e-2 in an anchored basis, and else as `learning_rate`."""
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


class Privacy(_Section):
    """Noise on what is shared, and how much it may tell of one client: docs/privacy.md."""

    noise: Literal["none", "server", "member"] = "none"
    """Who adds it."""
    clip: Rate = 1.0
    """Most L2 norm of one client's N of equation (4)."""
    multiplier: Rate = 1.0
    """σ: standard deviation of the sum's noise in units of `clip`."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    target_epsilon: Rate | None = None
    """ε that all rounds together must not exceed."""
    shares: Positive | None = None
    """With noise = "member": members whose shares make up the whole noise; see `shares_of`."""
    structure: Literal["fixed", "public"] = "fixed"
    """Whether masks and relations are fixed, or learned from data and sent without protection."""
    metrics: Literal["told", "kept"] = "told"
    """Whether a member on its own machine tells the coordinator numbers of its training, which have no noise."""

    def shares_of(self, min_clients: int) -> int:
        """Return the shares of the members' noise: by default one less than all, for each knows its own."""
        return self.shares or max(1, min_clients - 1)

    def problem(self, server: Server, adapter: Adapter) -> str:
        """Return why it does not go with the other sections; "" if it does."""
        if self.noise == "none":
            asked = self.target_epsilon is not None
            return 'privacy.target_epsilon needs privacy.noise = "server" or "member"' if asked else ""
        if server.strategy != "h2tune":
            return f'privacy.noise is for h2tune, not for strategy "{server.strategy}"'
        if server.aggregation != "mean":
            return f'privacy.noise is for server.aggregation = "mean": what "{server.aggregation}" tells is not bounded'
        if self.noise == "member" and server.wire_dtype == "int8":
            return (
                'privacy.noise = "member" does not go with server.wire_dtype = "int8": what rounding leaves out would '
                "be sent later, without noise of its own"
            )
        if server.weighting != "uniform":
            return (
                'privacy.noise needs server.weighting = "uniform": example counts are claims, and a weight would raise '
                "what one client can change"
            )
        if self.noise == "server" and server.secure_aggregation:
            return (
                'privacy.noise = "server" must see each update to clip it; with server.secure_aggregation members '
                'add it: privacy.noise = "member"'
            )
        fixed = adapter.mask == "leading" and adapter.alignment == "depth"
        if not fixed and (self.structure == "fixed" or self.noise == "member"):
            way = ', or privacy.structure = "public" to send them' if self.noise == "server" else ""
            return (
                "masks and relations are learned from data and sent without protection; set adapter.mask = "
                f'"leading" and adapter.alignment = "depth"{way}'
            )
        return ""


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
    part: Annotated[tuple[int, int] | None, FROM_LIST] = None
    """[k, n]: the k-th of n disjoint parts of the task's training pool."""
    local_steps: Positive | None = None
    learning_rate: Rate | None = None
    max_length: Positive | None = None
    """Tokens of a prompt that are kept; by default as the task says."""
    train: Positive | None = None
    validation: Annotated[int, Field(ge=0)] | None = None
    test: Positive | None = None

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
    privacy: Privacy = Privacy()
    client: Annotated[tuple[Client, ...], FROM_LIST, Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Federation:
        names = [client.name for client in self.client]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two clients are called '{twice[0]}'; every client needs a name of its own")
        if self.server.min_clients > len(names):
            raise ValueError(
                f"server.min_clients is {self.server.min_clients}, but there are {len(names)} clients"
            )
        self.server.check_tolerance(len(names))
        if problem := self.privacy.problem(self.server, self.adapter):
            raise ValueError(problem)
        if self.data.evaluate_rounds == "last" and self.server.participation < 1:
            raise ValueError(
                'data.evaluate_rounds = "last" needs server.participation = 1: who sits the last round out has no score'
            )
        for client in self.client:
            if self.train.alternation == "interleave" and (client.local_steps or self.train.local_steps) < 2:
                raise ValueError(
                    f"client '{client.name}': alternation = \"interleave\" gives every phase a step of its own, so "
                    "local_steps must be 2 or more"
                )
        if isinstance(self.server.shared_rank, int):
            for client in self.client:
                if isinstance(client.rank, int) and client.rank > self.server.shared_rank:
                    raise ValueError(
                        f"server.shared_rank {self.server.shared_rank} is below rank {client.rank} of client "
                        f"'{client.name}'; raise the one or lower the other"
                    )
        return self

    @property
    def anchored(self) -> bool:
        """Whether the clients agree on a basis before the first round; only h2tune has one."""
        return self.basis.kind == "anchored" and self.server.strategy == "h2tune"

    def sorted_clients(self) -> tuple[Client, ...]:
        """Return the clients by name: their order in the file means nothing."""
        return tuple(sorted(self.client, key=lambda client: client.name))
