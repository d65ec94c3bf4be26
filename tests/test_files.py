"""Atomic files: links are followed, and what is no file is not replaced."""

from __future__ import annotations

import os
import stat
import threading

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
