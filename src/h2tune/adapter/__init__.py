"""The h2tune adapter: a PEFT method for any Transformers model, and its shared middle matrices."""

from h2tune.adapter.config import H2TuneConfig
from h2tune.adapter.layer import H2TuneLayer
from h2tune.adapter.model import H2TuneModel, register

register()

__all__ = ["H2TuneConfig", "H2TuneLayer", "H2TuneModel"]
