"""What a lesson holds, what starts at it, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers import federations, tiny
from helpers.taught import alone_in_its_labels, content
from transformers import AutoTokenizer
from typer.testing import CliRunner

import h2tune
from h2tune.cli import main
from h2tune.config import load
from h2tune.federation import client_round
from h2tune.federation.run_store import RunStore
from h2tune.federation.teaching import client as teaching_client
from h2tune.federation.teaching.lesson import Lesson
from h2tune.functional.losses import teaching
from h2tune.functional.teacher import SLOPE, STEEP
from h2tune.monitors.lines import lesson_line
from h2tune.training.encode import Encoded, causal_batch, kept_logits


def test_a_lesson_comes_back_from_its_tensors():
    rows = (Encoded((1, 2, 3), (), None, (0.25, 0.75)), Encoded((4,), (), None, (0.5, 0.5)))
    assert Lesson.of(Lesson(rows, {}).tensors(), {}).rows == rows
    assert Lesson.of(Lesson((), {}).tensors(), {"taken": False}).rows == ()


def test_a_stored_lesson_of_a_decoder_has_the_tokens_of_its_labels(tmp_path):
    """Else its public texts would be taught on nothing, in silence."""
    found = content(tmp_path)
    found["client"][2]["train"] = 0  # with labels it would take no teacher
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", overrides=["server.rounds=1"])
    store = RunStore(run.folder, resume=True)
    try:
        tensors, facts = store.committed("clients/three/lesson")
    finally:
        store.close()
    lesson = Lesson.of(tensors["lesson"], facts)
    words = AutoTokenizer.from_pretrained(load(file).client[2].model)
    firsts = {tuple(choice[0] for choice in row.choices) for row in lesson.rows}
    assert firsts == {tuple(words.convert_tokens_to_ids(["yes", "no"]))}
    assert Lesson.of(lesson.tensors(), facts) == lesson


def test_a_decoder_learns_from_its_lesson_and_a_text_without_label_tokens_is_an_error():
    model, words = tiny.causal("llama"), tiny.tokenizer(side="left")
    tokens = words.convert_tokens_to_ids(["positive", "negative"])
    choices = tuple((token,) for token in tokens)
    rows = [Encoded((1, 5, 6), (7,), 0, choices=choices), Encoded((1, 8), (), None, (0.9, 0.1), choices)]
    stored = Lesson.of(Lesson((rows[1],), {}).tensors(), {}).rows
    batch = causal_batch([rows[0], *stored], 0, positions=True)
    assert batch["firsts"].tolist() == [tokens, tokens]
    logits = kept_logits(model, batch, causal=True)[:, -1].gather(1, batch["firsts"])
    teaching(logits, batch["targets"], 1).backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) > 1e-3
    with pytest.raises(ValueError, match="no tokens of its labels"):
        causal_batch([replace(rows[1], choices=())], 0, positions=True)


def test_where_the_labels_outweigh_the_teacher_the_head_starts_at_them_and_the_teacher_is_steep(
    tmp_path, monkeypatch
):
    file, started, slopes = federations.write(tmp_path, content(tmp_path)), [], []
    monkeypatch.setattr(client_round, "start_head", lambda layer, features, rows: started.append(rows))
    teach = teaching_client.teacher
    monkeypatch.setattr(
        teaching_client, "teacher", lambda scores, b, slope: slopes.append(slope) or teach(scores, b, slope)
    )
    for labels in (128.0, 40.0, 4.0):  # the clients have forty
        overrides = ["server.rounds=1", f"experimental.teacher_labels={labels}"]
        h2tune.run(file, out=tmp_path / str(labels), overrides=overrides)
        rows = started.pop()
        assert all((row.target is None) == (labels <= 40.0) for row in rows)
        assert set(slopes) == {STEEP if labels <= 40.0 else SLOPE}
        started.clear()
        slopes.clear()


def test_the_terminal_says_what_the_federation_is_worth_to_each_client(tmp_path):
    file = federations.write(tmp_path, alone_in_its_labels(tmp_path))
    found = CliRunner().invoke(main.app, ["run", str(file), "--out", str(tmp_path / "run")])
    assert found.exit_code == 0, found.exception
    assert "three · trains by itself: nobody else's labels are like its own" in found.stdout
    assert re.search(
        r"one · takes a teacher · right on \d+ % of its own labels, its own head on \d+ %", found.stdout
    )
    assert re.search(r"public texts cover \d\.\d\d of its texts", found.stdout)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            {"taken": False, "own_right": 0.9, "peers_right": 0.5},
            "declines the teacher, and trains by itself",
        ),
        (
            {"taken": True, "covered": 0.5},
            "public texts cover 0.50 of its texts, less than was ever measured",
        ),
        (
            {"taken": False, "reason": "its answers are free text"},
            "trains by itself: its answers are free text",
        ),
        (
            {"taken": False, "reason": "it answers in words", "own_right": 0.8, "peers_right": 0.9},
            "trains by itself: it answers in words",
        ),
        ({"taken": True}, "takes a teacher"),
    ],
)
def test_the_words_for_a_lesson(event, said):
    assert said in lesson_line(event)
