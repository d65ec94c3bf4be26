"""A federation file: what it may say, and one clear line for what it may not."""

from h2tune.config.privacy import Privacy
from h2tune.config.reading import absolute, absolute_texts, dump, load, load_resolved, parse
from h2tune.config.sections import Adapter, Basis, Client, Data, Federation, Train
from h2tune.config.server import Server

__all__ = [
    "Adapter",
    "Basis",
    "Client",
    "Data",
    "Federation",
    "Privacy",
    "Server",
    "Train",
    "absolute",
    "absolute_texts",
    "dump",
    "load",
    "load_resolved",
    "parse",
]
