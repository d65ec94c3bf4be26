"""The configuration of an h2tune adapter, as a `PeftConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from peft import PeftConfig

from h2tune.functional.masks import Mask

PEFT_TYPE = "H2TUNE"
Basis = Literal["free", "anchored"]


@dataclass
class H2TuneConfig(PeftConfig):
    """Configuration of an h2tune adapter (arXiv 2507.22633): y = W x + (α / r) · B (I + T) A x, equation (1).

    With `r == shared_rank` and nothing received it trains as plain LoRA with one more (r, r) matrix between its two.
    It can always be exported, exactly, as a plain LoRA adapter (`h2tune.adapter.export.to_lora`).

    Args:
        r: The client's rank r.
        shared_rank: The federation's common rank R ≥ r. Defaults to `r`.
        alpha: LoRA's α; the update is scaled by α / r.
        dropout: Dropout on the adapter's input.
        mask: Which r² of the R² entries of the shared middle matrices are kept: `"entry"`, `"block"`, `"leading"`.
        basis: `"free"`: T between the private A and B, equation (1). `"anchored"`: T between frozen frames that span
            the same directions on every model, beside the private A and B, equation (8); set them with
            `H2TuneLayer.set_frames`.
        basis_scale: s of equation (8).
        target_modules: Full module names or suffixes. By default every linear layer of every block that has a known
            role (attention and MLP projections), never an embedding or a head.
        roles: Module-name suffixes by role, for unknown families, as in `{"attn.q": "my_query"}`.
        modules_to_save: Modules besides the adapter that are trained and saved, such as a classification head.
        init_seed: Seed from which A and S are drawn, by module name: the same model gets the same start.
    """

    r: int = field(default=8, metadata={"help": "The client's rank."})
    shared_rank: int | None = field(default=None, metadata={"help": "The federation's common rank R."})
    alpha: float = field(default=16.0, metadata={"help": "LoRA's alpha."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapter's input."})
    mask: Mask = field(default="entry", metadata={"help": "'entry', 'block' or 'leading'."})
    basis: Basis = field(default="free", metadata={"help": "'free' or 'anchored'."})
    basis_scale: float = field(default=1.0, metadata={"help": "Scale of the anchored part."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Default: every role."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules left alone."})
    roles: dict[str, str] | None = field(default=None, metadata={"help": "Role to module-name suffix."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Heads trained beside it."})
    init_seed: int = field(default=0, metadata={"help": "Seed of A and S."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if self.shared_rank is None:
            self.shared_rank = self.r
        if self.r < 1:
            raise ValueError(f"`r` must be at least 1, not {self.r}")
        if self.shared_rank < self.r:
            raise ValueError(f"`shared_rank` ({self.shared_rank}) must be at least `r` ({self.r})")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), not {self.dropout}")
