"""The adapter: a PEFT method that any Transformers model can wear, and what of it is shared."""

from h2tune.adapter.config import H2TuneConfig
from h2tune.adapter.layer import H2TuneLayer
from h2tune.adapter.model import H2TuneModel, register

register()

__all__ = ["H2TuneConfig", "H2TuneLayer", "H2TuneModel"]
