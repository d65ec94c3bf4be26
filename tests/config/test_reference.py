"""The tables of keys in the documentation are those of the schema.

`python tests/config/test_reference.py` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

from h2tune.config.reference import filled, rows, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "federation-file.md"


def test_the_page_has_the_tables_of_the_schema():
    text = PAGE.read_text(encoding="utf-8")
    for section in {row.section for row in rows()}:
        assert f"<!-- keys of [{section}] -->\n{table(section)}" in text, f"run python {Path(__file__).name}"


def test_a_row_says_key_values_default_and_meaning():
    found = {(row.section, row.key): row for row in rows()}
    assert found["server", "rounds"].default == "3"
    assert found["client", "name"].default == "required"
    assert found["server", "hostile"].default == ""
    assert found["privacy", "delta"].default == "1e-5"
    assert found["client", "rank"].type == 'integer or `"auto"`'
    assert found["experimental", "parts"].type == "table"
    assert found["client.task", "labels"].type == "list of texts or table"
    assert len(found) == len(list(rows()))


def test_other_text_of_a_page_stays():
    page = "before\n<!-- keys of [adapter] -->\nold\n<!-- end of keys -->\nafter\n"
    new = filled(page)
    assert new.startswith("before\n") and new.endswith("after\n") and "old" not in new
    assert filled(new) == new and "`dropout`" in new


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
