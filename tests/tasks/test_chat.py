"""Conversations: rows of trl's and ShareGPT's form, and loss on the turns of the assistant alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from helpers import federations, tiny, traits
from transformers import AutoTokenizer
from typer.testing import CliRunner

from h2tune.cli import main
from h2tune.errors import H2TuneError
from h2tune.evaluation.generate import generated
from h2tune.functional.losses import IGNORED
from h2tune.scoring.scorers import SCORERS
from h2tune.tasks.chat import ChatTask
from h2tune.training.chat_tokens import fitted_chat, rendered
from h2tune.training.encode import causal_batch, encode_causal
from h2tune.training.prompt_tokens import room

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}[EOS]\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TURNS = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": "the film ?"},
    {"role": "assistant", "content": "it was great"},
    {"role": "user", "content": "and the book ?"},
    {"role": "assistant", "content": "so dull"},
]


def task(**changes) -> ChatTask:
    return ChatTask(**{"file": "talk.jsonl", "messages": "messages"} | changes)


@pytest.fixture(scope="module")
def words():
    made = traits.tokenizer("plain")
    made.chat_template = TEMPLATE
    return made


def decoded(words, ids) -> str:
    return words.decode([i for i in ids if i != IGNORED])


def test_loss_is_on_the_turns_of_the_assistant_alone(words):
    of = task()
    (row,) = encode_causal(of.describe(), [of.example({"messages": TURNS}, "x")], words)
    whole = rendered(tuple((t["role"], t["content"]) for t in TURNS), of.describe(), words, asking=False)
    assert [*row.prompt, *row.answer] == words(whole.rstrip())["input_ids"]
    assert decoded(words, row.prompt) == "<system>be good[EOS]\n<user>the film ?[EOS]\n<assistant>"
    assert decoded(words, row.targets) == "it was great[EOS]so dull[EOS]"
    labels = causal_batch([row], 0, positions=True)["labels"][0]
    assert (labels != IGNORED).sum() == sum(row.own)


def test_the_answer_is_asked_for_as_it_was_trained(words):
    of = task(max_new_tokens=4)
    example = of.example({"messages": TURNS}, "x")
    prompt = rendered(example.messages, of.describe(), words, asking=True)
    (row,) = encode_causal(of.describe(), [example], words)
    tokens = words(prompt)["input_ids"]
    assert [*row.prompt, *row.answer][: len(tokens)] == tokens
    model = tiny.causal("llama", vocab=len(words))
    expected = model.generate(torch.tensor([tokens]), max_new_tokens=4, do_sample=False, eos_token_id=1)
    assert generated(model, of.describe(), [example], words) == [
        words.decode(expected[0, len(tokens) :], skip_special_tokens=True)
    ]


def test_sharegpt_s_rows_are_the_same_conversation():
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    other = [{"from": names[t["role"]], "value": t["content"]} for t in TURNS]
    assert task().example({"messages": other}, "x") == task().example({"messages": TURNS}, "x")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What helps?", "completion": "Rest."},
        {"prompt": [{"role": "user", "content": "What helps?"}], "completion": "Rest."},
        {"prompt": "What helps?", "completion": [{"role": "assistant", "content": "Rest."}]},
    ],
)
def test_a_prompt_and_its_completion_are_a_conversation(row):
    of = task(messages=["prompt", "completion"])
    turns = [{"role": "user", "content": "What helps?"}, {"role": "assistant", "content": "Rest."}]
    assert of.example(row, "x") == task().example({"messages": turns}, "x")
    asked = of.question({"prompt": row["prompt"]}, "x")
    assert asked.messages == (("user", "What helps?"),) and of.question(row, "x") == asked
    with pytest.raises(H2TuneError, match="field 'completion' is missing"):
        of.example({"prompt": "What helps?"}, "x")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "field 'messages' is missing"),
        ({"messages": "hello"}, "is no list of messages"),
        ({"messages": ["hello"]}, "message 1: is no message"),
        ({"messages": TURNS[:4]}, "does not end with a message of the assistant"),
        ({"messages": [TURNS[2]]}, "no message of the user"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "its role is 'tool'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "its content is no text"),
        ({"messages": [{"role": "user", "content": "  "}]}, "its content is no text, or empty"),
    ],
)
def test_rows_that_are_no_conversations_are_named(row, message):
    with pytest.raises(H2TuneError, match=message) as found:
        task().example(row, "talk.jsonl:3")
    assert "talk.jsonl:3" in str(found.value)


def test_old_turns_are_left_out_first_and_never_the_system_s(words):
    of = task(max_length=40)
    long = [
        TURNS[0],
        *[dict(t, content=t["content"] + f" {i}") for i in range(8) for t in TURNS[1:3]],
        *TURNS[3:],
    ]
    example = of.example({"messages": long}, "x")
    kept, share = fitted_chat(example.messages, of.describe(), words, 40)
    assert (
        kept[0] == ("system", "be good") and kept[1][0] == "user" and kept[-1] == ("user", "and the book ?")
    )
    assert 0 < share < 0.5 and len(kept) < len(example.messages)
    (row,) = encode_causal(of.describe(), [example], words)
    assert row.kept == share


def test_one_long_question_loses_its_middle(words):
    of = task(max_length=40)
    turns = [{"role": "user", "content": "the plot " + "and so " * 60 + "was it good ?"}, TURNS[-1]]
    kept, share = fitted_chat(of.example({"messages": turns}, "x").messages, of.describe(), words, 40)
    assert kept[0][1].startswith("the plot") and kept[0][1].endswith("good ?") and share < 0.5


def test_a_decoder_without_a_template_is_refused_with_the_remedy():
    of = task()
    with pytest.raises(H2TuneError, match="no chat template") as found:
        encode_causal(of.describe(), [of.example({"messages": TURNS}, "x")], traits.tokenizer("plain"))
    assert "chat_template = " in found.value.remedy


def test_a_template_of_one_s_own_is_used(tmp_path):
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    of = task(chat_template=str(tmp_path / "own.jinja"))
    (row,) = encode_causal(of.describe(), [of.example({"messages": TURNS}, "x")], traits.tokenizer("plain"))
    assert len(row.own) == len(row.answer)
    with pytest.raises(H2TuneError, match="cannot be read"):
        task(chat_template=str(tmp_path / "none.jinja")).describe()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system here') }}", "cannot write a conversation .no system here"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}?{% endif %}",
            "otherwise",
        ),
        ("{{ ''.__class__.__mro__ }}", "cannot write a conversation"),
    ],
)
def test_templates_that_cannot_work_are_refused(words, tmp_path, template, message):
    (tmp_path / "own.jinja").write_text(template)
    of = task(chat_template=str(tmp_path / "own.jinja"))
    with pytest.raises(H2TuneError, match=message):
        encode_causal(of.describe(), [of.example({"messages": TURNS}, "x")], words)


def test_prompt_and_answer_keep_to_the_model_s_positions(words):
    of = task(max_length=256, max_new_tokens=20)
    assert room(replace(of.describe(), positions=60), words) == 40


def test_a_long_answer_is_cut_to_the_model_s_positions(words):
    of = task(max_new_tokens=20)
    turns = [TURNS[1], {"role": "assistant", "content": "so dull " * 200}]
    (row,) = encode_causal(
        replace(of.describe(), positions=60), [of.example({"messages": turns}, "x")], words
    )
    assert len(row.prompt) + len(row.answer) == 60 and len(row.own) == len(row.answer)


@pytest.mark.parametrize(
    ("scorer", "output", "answer", "score"),
    [
        ("exact", "The film, was GOOD.", "film was good", 1),
        ("exact", "a good film", "a bad film", 0),
        ("f1", "the good old film", "a good film", 0.8),
        ("f1", "", "film", 0),
        ("f1", "", "", 1),
        ("rouge", "the cat was on the mat", "the cat sat on the mat", pytest.approx(5 / 6)),
        ("rouge", "x", "y", 0),
    ],
)
def test_scorers_of_free_text(scorer, output, answer, score):
    if scorer == "rouge":
        pytest.importorskip("rouge_score", reason="pip install 'h2tune[text]'")
    assert SCORERS[scorer](output, answer) == score


# A run


def talks(path, count=60):
    rows = []
    for i in range(count):
        question = f"the film {i} was {'good' if i % 2 else 'bad'} ?"
        rows.append({"messages": [{"role": "user", "content": question},
                                  {"role": "assistant", "content": "yes" if i % 2 else "no"}]})  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture
def federation(tmp_path):
    content = federations.federation(tmp_path, (("one", "llama", 4), ("two", "bert", 4)))
    folder = tmp_path / "models" / "llama"
    words = AutoTokenizer.from_pretrained(folder)
    words.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }} [EOS] {% endfor %}"
    words.chat_template += "{% if add_generation_prompt %}assistant :{% endif %}"
    words.save_pretrained(folder)
    talks(tmp_path / "talk.jsonl")
    content["client"][0]["task"] = {"file": "talk.jsonl", "messages": "messages", "scorer": "likelihood"}
    return tmp_path, content


def invoke(*arguments):
    return CliRunner().invoke(main.app, [str(a) for a in arguments])


def test_a_client_with_conversations_trains_is_scored_and_predicts(federation):
    folder, content = federation
    file = federations.write(folder, content)
    said = invoke("inspect", file)
    assert said.exit_code == 0 and "scored by 'likelihood'" in said.output
    found = invoke("run", file, "--out", folder / "run", "--strict")
    assert found.exit_code == 0, found.exception
    events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    scores = [e for e in events if e["event"] == "evaluated" and e["client"] == "one"]
    assert scores[-1]["accuracy"] > scores[0]["accuracy"]
    assert scores[-1]["accuracy"] == pytest.approx(torch.exp(torch.tensor(-scores[-1]["loss"])).item())
    assert not (folder / "run" / "clients" / "one" / "samples").exists()  # nothing was generated
    rows = [{"messages": [{"role": "user", "content": "the film 1 was good ?"}], "id": 7}]
    (folder / "new.jsonl").write_text(json.dumps(rows[0]) + "\n")
    done = invoke(
        "predict", folder / "run", folder / "new.jsonl", "--client", "one", "--out", folder / "out.jsonl"
    )
    assert done.exit_code == 0, done.exception
    (row,) = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert row["id"] == 7 and isinstance(row["prediction"], str)


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
def test_some_answers_are_kept_beside_the_adapter_and_in_no_event(federation, jobs):
    folder, content = federation
    content["client"][0]["task"] |= {"scorer": "f1", "max_new_tokens": 4}
    file = federations.write(folder, content)
    found = invoke("run", file, "--out", folder / "run", *jobs)
    assert found.exit_code == 0, found.exception
    places = sorted((folder / "run" / "clients" / "one" / "samples").iterdir())
    assert places[0].stem == "before" and "trained-0001" in {p.stem for p in places}
    for place in places:
        samples = [json.loads(line) for line in place.read_text().splitlines()]
        assert 1 <= len(samples) <= 8 and place.stat().st_mode & 0o077 == 0
        assert all(
            s["prompt"].startswith("user: the film") and s["reference"] in ("yes", "no") for s in samples
        )
        assert all(0 <= s["score"] <= 1 and isinstance(s["answer"], str) for s in samples)
    assert "the film" not in (folder / "run" / "events.jsonl").read_text()
    assert not (folder / "run" / "clients" / "two" / "samples").exists()  # its answers are labels


def test_inspect_refuses_a_model_without_a_template(federation):
    folder, content = federation
    (folder / "models" / "llama" / "chat_template.jinja").unlink()
    found = invoke("inspect", federations.write(folder, content))
    assert isinstance(found.exception, H2TuneError) and "no chat template" in str(found.exception)
    assert "client 'one'" in str(found.exception)


def test_an_encoder_cannot_converse(federation):
    folder, content = federation
    content["client"][1]["task"] = content["client"][0]["task"]
    found = invoke("run", federations.write(folder, content), "--out", folder / "run")
    assert "needs generated answers" in str(found.exception)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesages": "x", "messages": "y"}, "unknown key 'client.one.task.mesages'"),
        ({"messages": "y", "prompt": "{x}"}, "unknown key 'client.one.task.prompt'"),
        ({"messages": "y", "scorer": "label"}, "scorer"),
    ],
)
def test_a_table_that_mixes_both_kinds_is_refused_by_its_key(federation, change, message):
    folder, content = federation
    content["client"][0]["task"] = {"file": "talk.jsonl", **change}
    found = invoke("run", federations.write(folder, content), "--out", folder / "run")
    assert message in str(found.exception)
