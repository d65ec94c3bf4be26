"""What to do with a finished run: score its adapters again, export them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from h2tune import files
from h2tune.config import FederationConfig, load_resolved
from h2tune.errors import H2TuneError, nearest
from h2tune.evaluation.evaluate import evaluate
from h2tune.evaluation.result import Score
from h2tune.models import load_model, load_tokenizer
from h2tune.runs.enrol import load_data
from h2tune.runs.model_info import see


def read_run(folder: Path) -> FederationConfig:
    """Return the resolved federation file of a run.

    Raises:
        H2TuneError: The folder is no run folder.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise H2TuneError(
            "no run folder: it has no config.toml", where=str(folder), remedy="Give a folder of h2tune run"
        )
    return load_resolved(path)


def adapter_folder(folder: Path, federation: FederationConfig, client: str, name: str) -> Path:
    """Return the folder of a client's adapter.

    Raises:
        H2TuneError: No client has that name, or it has no adapter yet.
    """
    names = [c.name for c in federation.client]
    if client not in names:
        raise H2TuneError(f"no client '{client}'{nearest(client, names)}", where=str(folder))
    path = folder / "clients" / client / name
    if not path.is_dir():
        raise H2TuneError(
            f"client '{client}' has no adapter yet",
            where=str(folder),
            remedy="Finish the run with h2tune run --resume",
        )
    return path


def evaluate_run(folder: Path, clients: Sequence[str], split: str) -> Iterator[tuple[str, Score]]:
    """Score the saved adapters, loaded as anyone would load them, and yield name and score.

    Raises:
        H2TuneError: No such run, client, or split.
    """
    from peft import PeftModel

    import h2tune.adapter  # noqa: F401 - enters the adapter in PEFT's tables

    if split not in ("test", "validation"):
        raise H2TuneError(f"no split '{split}'", where="--split", remedy="Use test or validation")
    federation = read_run(folder)
    for client in federation.sorted_clients():
        if clients and client.name not in clients:
            continue
        path = adapter_folder(folder, federation, client.name, "adapter")
        seen, data = see(client), federation.data
        task, splits = load_data(client, data, federation.seed, federation.experimental.part_of(client.name))
        model = load_model(client.model, seen.kind, client.dtype, federation.seed)
        if seen.kind == "classifier":
            from h2tune.models import set_head

            set_head(model, len(task.labels), federation.seed)
        adapted = PeftModel.from_pretrained(model, path)
        yield (
            client.name,
            evaluate(
                adapted,
                task,
                getattr(splits, split),
                load_tokenizer(client.model),
                causal=seen.kind == "causal",
                batch_size=data.evaluate_batch_size,
            ),
        )


def export_client(folder: Path, client: str, out: Path, form: str = "lora") -> Path:
    """Write a client's adapter to `out`.

    Args:
        folder: The run folder.
        client: The client's name.
        out: A folder that is not there yet.
        form: `"lora"`, `"adapter"`, or `"merged"` (the whole model with the update in its weights).

    Raises:
        H2TuneError: No such run, client or form, or `out` is there already.
    """
    if form not in ("lora", "adapter", "merged"):
        raise H2TuneError(f"no format '{form}'", where="--format", remedy="Use lora, adapter or merged")
    if out.exists():
        raise H2TuneError("is there already", where=str(out), remedy="Name a folder that is not there")
    federation = read_run(folder)
    source = adapter_folder(folder, federation, client, "lora" if form == "merged" else form)
    if form != "merged":
        with files.new_folder(out) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
        return out
    from peft import PeftModel

    from h2tune.models import set_head

    table = next(c for c in federation.client if c.name == client)
    seen = see(table)
    model = load_model(table.model, seen.kind, table.dtype, federation.seed)
    if seen.kind == "classifier":
        set_head(model, len(seen.task.labels), federation.seed)
    merged = PeftModel.from_pretrained(model, source).merge_and_unload()
    merged.config.use_cache = True
    with files.new_folder(out) as temporary:
        merged.save_pretrained(temporary)
        load_tokenizer(table.model).save_pretrained(temporary)
    return out
