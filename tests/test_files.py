"""Atomic files: links are followed, and what is no file is not replaced."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from pathlib import Path

from h2tune import files


def test_of_a_link_the_file_it_points_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "page.html").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "page.html")
    (tmp_path / "dangling").symlink_to(tmp_path / "there" / "new.html")
    for name in ("link", "dangling"):
        files.write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
    assert {p.name: p.read_text() for p in (tmp_path / "there").iterdir()} == {
        "page.html": "new",
        "new.html": "new",
    }


def test_a_pipe_takes_the_data_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text()))
    reader.start()
    files.write_text(tmp_path / "pipe", "page")
    reader.join(10)
    assert found == ["page"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_large_files_that_are_the_same_are_stored_once(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "large").write_bytes(bytes(files.SHARED))
        (folder / "small").write_bytes(b"small")
        (folder / "differs").write_bytes(folder.name.encode().ljust(files.SHARED))
    (one / "alone").write_bytes(bytes(files.SHARED))
    for _ in range(2):
        files.share(one, other)
    assert [(one / n).samefile(other / n) for n in ("large", "small", "differs")] == [True, False, False]
    assert sorted(path.name for path in other.iterdir()) == ["differs", "large", "small"]
    copy = shutil.copytree(other, tmp_path / "copy")
    assert (copy / "large").read_bytes() == bytes(files.SHARED) and not (copy / "large").samefile(
        one / "large"
    )


def test_without_links_files_stay_apart(tmp_path, monkeypatch):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "large").write_bytes(bytes(files.SHARED))

    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    files.share(tmp_path / "one", tmp_path / "other")
    assert not (tmp_path / "one/large").samefile(tmp_path / "other/large")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["large"]
