"""A federation file: its keys, what is derived from them, and one clear line for what is not allowed."""

from h2tune.config.adapter import AdapterConfig
from h2tune.config.experimental import ExperimentalConfig
from h2tune.config.inputs import check_inputs
from h2tune.config.privacy import PrivacyConfig
from h2tune.config.problems import problem
from h2tune.config.reading import (
    Stated,
    absolute,
    absolute_texts,
    dump,
    load,
    load_resolved,
    parse,
    read_toml,
)
from h2tune.config.resolve import resolve
from h2tune.config.sections import (
    BasisConfig,
    ClientConfig,
    DataConfig,
    FederationConfig,
    SharedConfig,
    TrainConfig,
)
from h2tune.config.server import ServerConfig

__all__ = [
    "AdapterConfig",
    "BasisConfig",
    "ClientConfig",
    "DataConfig",
    "ExperimentalConfig",
    "FederationConfig",
    "PrivacyConfig",
    "ServerConfig",
    "SharedConfig",
    "Stated",
    "TrainConfig",
    "absolute",
    "absolute_texts",
    "check_inputs",
    "dump",
    "load",
    "load_resolved",
    "parse",
    "problem",
    "read_toml",
    "resolve",
]
