"""A federation file: its sections, and the whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from h2tune.config.adapter import AdapterConfig
from h2tune.config.experimental import ExperimentalConfig
from h2tune.config.privacy import PrivacyConfig
from h2tune.config.server import ServerConfig
from h2tune.config.types import FROM_LIST, All, ConfigSection, Count, Name, Positive, Rate, Share, Weight
from h2tune.functional.quorum import Teaching
from h2tune.monitors.load import MonitorName
from h2tune.tasks.chat import ChatTask
from h2tune.tasks.own_task import OwnTask
from h2tune.tasks.rows import FileTask


class BasisConfig(ConfigSection):
    """The basis of the shared middle matrices."""

    kind: Literal["free", "anchored"] = Field(
        default="anchored",
        description="Where T stands: between the private A and B, equation (1), or between fixed frames that mean the "
        "same on every model, equation (8).",
    )
    texts: Annotated[tuple[str, ...], FROM_LIST] = Field(
        default=("movie_reviews", "tweets", "bbc_topics"),
        description="Public texts from which the frames are computed: text files (one text a line), or built-in tasks.",
    )
    count: Annotated[int, Field(ge=8)] = Field(
        default=480, description="Number of public texts that are read."
    )
    encoder: str = Field(
        default="",
        description="A public encoder (Hub id or `pypi:NAME`) that makes the common coordinates, so that no client "
        "sends a view; by default all clients' models make them.",
    )
    consensus: bool = Field(
        default=False,
        description="Whether clients with the same labels teach each other, equation (14); true where "
        "there are such clients, and neither noise nor secure aggregation.",
    )


class TrainConfig(ConfigSection):
    """Local training."""

    local_steps: Positive = Field(default=12, description="Batches that a client trains on in a round.")
    batch_size: Positive = Field(default=8, description="Examples in a batch.")
    accumulation: Positive = Field(default=1, description="Micro-batches that a batch is split into.")
    learning_rate: Rate = Field(default=2e-4, description="Learning rate of A, B and heads.")
    weight_decay: Weight = Field(default=0.0, description="Weight decay of A, B and heads.")
    warmup_steps: Count = Field(default=0, description="Warm-up steps at the start of the first round.")
    scheduler: str = Field(
        default="constant", description="Name of a scheduler of Transformers; it spans all rounds."
    )
    max_grad_norm: Weight = Field(
        default=1.0, description="Norm to which gradients are clipped; 0 for no clipping."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="More of `transformers.TrainingArguments`, such as `bf16` or `activation_checkpointing`.",
    )

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}; change one of "
                "them"
            )
        return self


class DataConfig(ConfigSection):
    """Number of examples, and how they are scored; a client's own table may say otherwise."""

    train: Positive | All = Field(
        default=128,
        description="Training examples of each client; all that are left by default for own files.",
    )
    validation: Count | Share | All = Field(
        default=0, description="Validation examples of each client, or their share of its rows."
    )
    test: Positive | Share | All = Field(
        default=200,
        description="Test examples of each client, or their share of its rows; a fifth by default for own files.",
    )
    evaluate: Literal["test", "validation"] = Field(default="test", description="The split that is scored.")
    evaluate_batch_size: Positive = Field(default=16, description="Examples in a batch when scoring.")


def _named_or_table(value: Any) -> Any:
    if not isinstance(value, str | dict | OwnTask):
        raise ValueError(
            "must be the name of a built-in task, or a table: "
            'task = { file = "rows.jsonl", prompt = "{question}", answer = "answer" }'
        )
    return value


def _branch(value: Any) -> str:
    if isinstance(value, str):
        return "<name>"
    chat = "messages" in value if isinstance(value, dict) else isinstance(value, ChatTask)
    return "<chat>" if chat else "<table>"


TaskOfClient = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[FileTask, Tag("<table>")] | Annotated[ChatTask, Tag("<chat>")],
    Discriminator(_branch),
    BeforeValidator(_named_or_table),
]
"""The name of a built-in task, or a table; which one it is decides, so that an error names the key that is wrong."""


class ClientConfig(ConfigSection):
    """One client: its model, task and budget."""

    name: Name = Field(description="Name of the client: letters, digits, `_`, `.` and `-`.")
    model: str = Field(description="A Hub id, a local folder, or `pypi:NAME` (see `h2tune assets list`).")
    task: TaskOfClient = Field(
        description="Name of a built-in task, or a table with `file`, `prompt` and `answer`."
    )
    rank: Positive | Literal["auto"] = Field(
        default=8, description="Rank r of its adapter; `auto` is the largest that its budget allows."
    )
    uplink_bytes: Positive | None = Field(
        default=None, description='With `rank = "auto"`: bytes that the client may send in a round.'
    )
    memory_bytes: Positive | None = Field(
        default=None,
        description='With `rank = "auto"`: bytes for the adapter\'s weights, gradients and optimiser states.',
    )
    head: Literal["auto", "verbaliser", "classifier"] = Field(
        default="auto",
        description="How labels are scored: by words of the language model, or by a private classification head; "
        "`auto` takes words for decoders and a head for encoders.",
    )
    dtype: Literal["float32", "bfloat16", "float16", "nf4"] = Field(
        default="float32",
        description="Number format of the base model's weights; `nf4` needs `h2tune[quantized]` and cannot be merged.",
    )
    roles: dict[str, str] | None = Field(
        default=None,
        description='Role → suffix of module names, for unknown models: `{ "attn.q" = "my_query" }`.',
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Whether Python files in the model's folder may run; they can do anything that you can.",
    )
    local_steps: Positive | None = Field(default=None, description="This client's own `train.local_steps`.")
    learning_rate: Rate | None = Field(default=None, description="This client's own `train.learning_rate`.")
    max_length: Positive | None = Field(
        default=None, description="Most tokens of a prompt; the task's own number if left out."
    )
    train: Count | All | None = Field(
        default=None,
        description="This client's own `data.train`; 0 for a client without labels, which is not trained without "
        "`basis.consensus` or a baseline that teaches.",
    )
    validation: Count | Share | All | None = Field(
        default=None, description="This client's own `data.validation`."
    )
    test: Positive | Share | All | None = Field(default=None, description="This client's own `data.test`.")

    def examples(self, data: DataConfig) -> int | None:
        """Return the number of its training examples; None for all that there are."""
        wanted = data.train if self.train is None else self.train
        return None if wanted == "all" else wanted

    @model_validator(mode="after")
    def _budget(self) -> ClientConfig:
        if self.rank == "auto" and self.uplink_bytes is None and self.memory_bytes is None:
            raise ValueError('rank = "auto" needs a budget; set uplink_bytes or memory_bytes')
        return self


TEACHING: dict[str, Teaching] = {
    "self-training": "own",
    "pooled": "own",
    "fedmd": "predictions",
    "afl": "moments",
}
"""Baseline → what its clients exchange about the public texts."""


class SharedConfig(ConfigSection):
    """What all parties of a federation have in common, on one machine and across machines."""

    name: Name = Field(description="Name of the federation, and of its run folder `runs/NAME`.")
    seed: Count = Field(default=0, description="Seed of all random draws.")
    server: ServerConfig = ServerConfig()
    adapter: AdapterConfig = AdapterConfig()
    basis: BasisConfig = BasisConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    experimental: ExperimentalConfig = ExperimentalConfig()

    @property
    def anchored(self) -> bool:
        """Whether the clients agree on a basis before the first round; only h2tune has one."""
        return self.basis.kind == "anchored" and self.server.strategy == "h2tune"

    @property
    def teaching(self) -> Teaching:
        """What clients exchange about the public texts before the first round: see `teaching.knowledge`."""
        if self.server.strategy == "h2tune":
            return "directions" if self.basis.consensus else "none"
        return TEACHING.get(self.server.strategy, "none")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those who take part; empty where they are not known."""
        return ()


class FederationConfig(SharedConfig):
    """A federation file. `reading.parse` returns a resolved one: other code reads resolved values only."""

    monitors: Annotated[tuple[MonitorName, ...], FROM_LIST] = Field(
        default=(),
        description="What watches the run: `tensorboard`, `wandb`, or `module:object` with a monitor of your own.",
    )
    client: Annotated[tuple[ClientConfig, ...], FROM_LIST, Field(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clients, in the order of the file."""
        return tuple(client.name for client in self.client)

    def sorted_clients(self) -> tuple[ClientConfig, ...]:
        """Return the clients by name: their order in the file has no meaning."""
        return tuple(sorted(self.client, key=lambda client: client.name))

    @property
    def trusted(self) -> tuple[str, ...]:
        """Models whose own Python files may run."""
        return tuple(client.model for client in self.client if client.trust_remote_code)

    def of_one(self) -> FederationConfig:
        """Return the settings for a client that trains alone: nothing leaves it, so it needs no protection."""
        changes = {
            "server": self.server.of_one(),
            "experimental": self.experimental.of_one(),
            "privacy": PrivacyConfig(),
        }
        return self.model_copy(update=changes)
