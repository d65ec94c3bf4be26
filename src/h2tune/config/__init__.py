"""A federation file: what it may say, and one clear line for what it may not."""

from h2tune.config.adapter import AdapterConfig
from h2tune.config.privacy import PrivacyConfig
from h2tune.config.reading import absolute, absolute_texts, dump, load, load_resolved, parse
from h2tune.config.sections import (
    BasisConfig,
    ClientConfig,
    DataConfig,
    FederationConfig,
    TrainConfig,
)
from h2tune.config.server import ServerConfig

__all__ = [
    "AdapterConfig",
    "BasisConfig",
    "ClientConfig",
    "DataConfig",
    "FederationConfig",
    "PrivacyConfig",
    "ServerConfig",
    "TrainConfig",
    "absolute",
    "absolute_texts",
    "dump",
    "load",
    "load_resolved",
    "parse",
]
