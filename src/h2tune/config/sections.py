"""What a federation file may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from h2tune.config.adapter import AdapterConfig
from h2tune.config.privacy import PrivacyConfig
from h2tune.config.server import ServerConfig
from h2tune.config.types import FROM_LIST, ConfigSection, Positive, Rate, Weight
from h2tune.tasks.rows import FileTask


class BasisConfig(ConfigSection):
    """Where the shared middle matrices live."""

    kind: Literal["free", "anchored"] = "anchored"
    """Between the private A and B, equation (1); or between frames that mean the same on every model, equation (8)."""
    texts: Annotated[tuple[str, ...], FROM_LIST] = ("movie_reviews", "tweets", "bbc_topics")
    """Public texts on which the clients agree: text files (one text a line), or built-in tasks' training texts."""
    count: Annotated[int, Field(ge=8)] = 480
    scale: Rate = 1.0
    """s of equation (8)."""
    start: Literal["zero", "labels"] = "zero"
    """What T starts from: nothing, or the directions that tell a client's own labels apart, equation (9)."""
    start_norm: Rate = 2.0
    """c of equation (9)."""
    start_blocks: Positive = 1
    """Blocks, counted from the output, in which T starts from labels."""

    @model_validator(mode="after")
    def _starts_in_frames(self) -> BasisConfig:
        if self.start == "labels" and self.kind != "anchored":
            raise ValueError(
                'start = "labels" needs frames that mean the same on every model: kind = "anchored"'
            )
        return self


class TrainConfig(ConfigSection):
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
    shared_optimizer: Literal["same", "normalised"] = "same"
    """Δ by the optimiser of all else, or by gradients of a fixed norm, which keep their few directions."""
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
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of transformers.TrainingArguments, such as bf16 or activation_checkpointing."""

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of accumulation {self.accumulation}"
            )
        return self


class DataConfig(ConfigSection):
    """How many examples are used; a client's own table may say otherwise."""

    train: Positive = 128
    validation: Annotated[int, Field(ge=0)] = 0
    test: Positive = 200
    evaluate: Literal["test", "validation"] = "test"
    """The split that is scored."""
    evaluate_rounds: Literal["all", "last"] = "all"
    """"last" scores once, after the last round: for many runs where scoring takes longer than training."""
    evaluate_batch_size: Positive = 16


class ClientConfig(ConfigSection):
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
    dtype: Literal["float32", "bfloat16", "float16", "nf4"] = "float32"
    """Of the base model's weights; "nf4" keeps its linear layers in 4 bits (bitsandbytes), the rest in float32."""
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
    def _budget(self) -> ClientConfig:
        if self.rank == "auto" and self.uplink_bytes is None and self.memory_bytes is None:
            raise ValueError('rank = "auto" needs uplink_bytes or memory_bytes to choose by')
        return self


class FederationConfig(ConfigSection):
    """A federation file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0)] = 0
    server: ServerConfig = ServerConfig()
    adapter: AdapterConfig = AdapterConfig()
    basis: BasisConfig = BasisConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    client: Annotated[tuple[ClientConfig, ...], FROM_LIST, Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> FederationConfig:
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

    def sorted_clients(self) -> tuple[ClientConfig, ...]:
        """Return the clients by name: their order in the file means nothing."""
        return tuple(sorted(self.client, key=lambda client: client.name))
