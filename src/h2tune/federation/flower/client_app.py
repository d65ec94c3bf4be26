"""The ClientApp: each message is one call of `member`; what goes wrong is a reason, never a traceback with paths."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from h2tune.errors import H2TuneError
from h2tune.federation.flower.anchors import give_view, take_frames, texts_of
from h2tune.federation.flower.files import read_settings
from h2tune.federation.flower.halves import Masks, answer
from h2tune.federation.flower.member import experiment_of, join, take_part
from h2tune.federation.flower.messages import pack, text, unpack

NODE_KEY = "h2tune"
"""Key of the node's configuration that holds the path of the member's file."""

app = ClientApp()


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """Tell who this is and what it has."""
    return _answer(message, lambda: _enrol(message, context))


@app.query("keys")
def keys(message: Message, context: Context) -> Message:
    """AdvertiseKeys of secure aggregation."""
    return _answer(message, lambda: _protocol("keys", message, context))


@app.query("shares")
def shares(message: Message, context: Context) -> Message:
    """ShareKeys."""
    return _answer(message, lambda: _protocol("shares", message, context))


@app.query("reveal")
def reveal(message: Message, context: Context) -> Message:
    """Unmasking."""
    return _answer(message, lambda: _protocol("reveal", message, context))


@app.query("view")
def view(message: Message, context: Context) -> Message:
    """How the model reads public texts, for an anchored basis."""
    return _answer(message, lambda: _view(message, context))


@app.query("frames")
def frames(message: Message, context: Context) -> Message:
    """The coordinates that all agreed on, of which the member makes its frames."""
    return _answer(message, lambda: _frames(message, context))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train and evaluate for a round."""
    return _answer(message, lambda: _train(message, context))


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    try:
        content = work()
    except Exception as error:  # Flower would send the exception's text, which may name paths or quote data
        traceback.print_exc(file=sys.stderr)
        content = pack({"reason": f"{_reason(error)}; the member's own log says more"})
    return Message(content, reply_to=message)


def _reason(error: Exception) -> str:
    """Return what an error comes to in words that name no path and quote no data."""
    if isinstance(error, H2TuneError) and not error.where:
        return error.message
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__} ({os.strerror(error.errno)})"  # such as a full disk
    return type(error).__name__


def _enrol(message: Message, context: Context) -> RecordDict:
    head, _ = unpack(message.content)
    settings = read_settings(text(head, "settings"))
    return pack({"card": join(_file(context), settings).card.model_dump_json()})


def _protocol(kind: str, message: Message, context: Context) -> RecordDict:
    head, _ = unpack(message.content)
    settings = read_settings(text(head, "settings"))
    return pack(answer(kind, _file(context), settings, experiment_of(text(head, "experiment")), head))


def _view(message: Message, context: Context) -> RecordDict:
    head, _ = unpack(message.content)
    settings, texts = read_settings(text(head, "settings")), texts_of(head)
    return pack(
        {}, give_view(_file(context), settings, text(head, "experiment"), text(head, "client"), texts)
    )


def _frames(message: Message, context: Context) -> RecordDict:
    head, down = unpack(message.content)
    if down is None:
        raise H2TuneError("the message holds no coordinates")
    settings, texts = read_settings(text(head, "settings")), texts_of(head)
    take_frames(_file(context), settings, text(head, "experiment"), text(head, "client"), texts, down.tensors)
    return pack({})


def _train(message: Message, context: Context) -> RecordDict:
    head, down = unpack(message.content)
    if down is None:
        raise H2TuneError("the message holds no tensors")
    reply = take_part(
        _file(context),
        read_settings(text(head, "settings")),
        text(head, "experiment"),
        down.client,
        down.round,
        text(head, "digest"),
        down.tensors,
        Masks.of(head),
    )
    if reply.update is None:
        return pack({"reason": reply.reason})
    return pack({"events": json.dumps(list(reply.events))}, reply.update)


def _file(context: Context) -> Path:
    path = context.node_config.get(NODE_KEY)
    if not isinstance(path, str):
        raise H2TuneError(f"this node was started without --node-config '{NODE_KEY}=\"…/member.toml\"'")
    return Path(path)
