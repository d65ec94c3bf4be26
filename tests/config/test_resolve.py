"""What one setting implies for others, what contradicts it, and what a run folder keeps of both."""

from __future__ import annotations

import pytest
import tomli_w

from h2tune.config import dump, load, load_resolved, parse
from h2tune.errors import H2TuneError

CLIENTS = [{"name": f"c{i}", "model": "/model", "task": "tweets"} for i in range(7)]


def content(clients: int = 7, **sections):
    return {"name": "implied", "client": CLIENTS[:clients], **sections}


@pytest.mark.parametrize("noise", ["server", "member"])
def test_noise_fixes_masks_and_relations_and_weights_all_the_same(noise):
    found = parse(content(privacy={"noise": noise}), "here")
    assert (found.experimental.mask, found.experimental.alignment) == ("leading", "depth")
    assert found.server.weighting == "uniform"
    plain = parse(content(), "here")
    assert (plain.experimental.mask, plain.experimental.alignment) == ("entry", "learned")
    assert (plain.server.weighting, plain.server.min_clients) == ("examples", 1)


def test_a_public_structure_stays_learned():
    found = parse(content(privacy={"noise": "server"}, experimental={"privacy_structure": "public"}), "here")
    assert (found.experimental.mask, found.experimental.alignment) == ("entry", "learned")
    assert found.server.weighting == "uniform"


@pytest.mark.parametrize(
    ("server", "least"),
    [
        ({"aggregation": "median"}, 3),
        ({"aggregation": "krum"}, 5),
        ({"aggregation": "nnm", "hostile": 3}, 7),
        ({"secure_aggregation": True}, 5),
        ({"secure_aggregation": True, "participation": 0.5}, 3),
        ({"secure_aggregation": True, "participation": 0.1}, 2),
    ],
)
def test_a_rule_and_secure_aggregation_raise_the_least_number_of_updates(server, least):
    found = parse(content(server=server), "here")
    assert found.server.min_clients == least
    assert found.server.weighting == ("uniform" if "secure_aggregation" in server else "examples")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"privacy": {"noise": "server"}, "server": {"weighting": "examples"}}, "Leave server.weighting out"),
        ({"privacy": {"noise": "server"}, "experimental": {"mask": "block"}}, 'mask = "block"'),
        (
            {"privacy": {"noise": "member"}, "experimental": {"alignment": "learned"}},
            "Leave mask and alignment",
        ),
        ({"server": {"secure_aggregation": True, "weighting": "examples"}}, "server.weighting: secure"),
        ({"server": {"secure_aggregation": True, "min_clients": 4}}, "Set it to 5 or more, or leave it out"),
        ({"server": {"secure_aggregation": True, "participation": 0.1, "min_clients": 1}}, "needs 2 updates"),
        ({"server": {"aggregation": "median"}, "experimental": {"clip_norm": 1.0}}, "clip_norm is for"),
        ({"experimental": {"parts": {"c9": [0, 2]}}}, "no client is called 'c9' "),
        ({"experimental": {"parts": {"c1": [2, 2]}}}, "part 2 of 2 does not exist. Count from 0 to 1"),
        ({"experimental": {"parts": {"c1": [2]}}}, r"experimental.parts.c1: must be \[k, n\]"),
    ],
)
def test_a_stated_contradiction_is_refused(sections, words):
    with pytest.raises(H2TuneError, match=words):
        parse(content(**sections), "here")


def test_a_run_folder_keeps_the_resolved_file(tmp_path):
    stated = content(privacy={"noise": "member"}, server={"secure_aggregation": True})
    found = parse(stated, "here")
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(dump(found)))
    assert load_resolved(file) == load(file) == found
    assert 'mask = "leading"' in file.read_text()


def test_a_run_of_another_version_is_refused_in_one_line(tmp_path):
    file = tmp_path / "config.toml"
    kept = dump(parse(content(), "here"))
    for other in (
        {k: v for k, v in kept.items() if k != "format"},
        kept | {"format": 1},
        kept | {"format": "x"},
    ):
        file.write_text(tomli_w.dumps(other))
        with pytest.raises(H2TuneError, match=r"this version reads format 4.*Start a new run") as error:
            load_resolved(file)
        assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_accepted(tmp_path):
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps(content()), encoding="utf-8-sig")
    assert load(file).name == "implied"


def test_a_part_of_the_data_is_set_for_one_client(tmp_path):
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps(content()))
    found = load(file, ["experimental.parts.c1=[1, 3]"]).experimental
    assert (found.part_of("c1"), found.part_of("c2")) == ((1, 3), (0, 1))


def labelled(*label_sets, **sections):
    found = content(len(label_sets), **sections)
    rows = {"prompt": "{text}", "answer": "label"}
    tasks = [
        {"file": f"{i}.jsonl", **rows} | ({"labels": list(labels)} if labels else {})
        for i, labels in enumerate(label_sets)
    ]
    return found | {"client": [c | {"task": task} for c, task in zip(found["client"], tasks, strict=True)]}


@pytest.mark.parametrize(
    ("label_sets", "sections", "consensus"),
    [
        ((("yes", "no"), ("no", "yes")), {}, True),  # whatever their order
        ((("yes", "no"), ("good", "bad"), ()), {}, False),
        (((), ()), {}, False),  # free answers
        ((("yes", "no"), ("yes", "no")), {"basis": {"consensus": False}}, False),
        ((("yes", "no"), ("yes", "no")), {"basis": {"kind": "free"}}, False),
        ((("yes", "no"), ("yes", "no")), {"privacy": {"noise": "server"}}, False),
        ((("yes", "no"), ("yes", "no")), {"server": {"strategy": "fedit"}}, False),
    ],
)
def test_clients_with_the_same_labels_teach_each_other(label_sets, sections, consensus):
    found = parse(labelled(*label_sets, **sections), "here")
    assert found.basis.consensus is consensus
    assert found.experimental.alternation == ("joint" if consensus else "step")
    assert found.experimental.increments == ("none" if consensus else "mean")


def test_a_robust_rule_has_something_to_judge():
    found = parse(labelled(*[("a", "b")] * 5, server={"aggregation": "median"}), "here")
    assert found.basis.consensus and found.experimental.increments == "mean"


def test_as_many_public_texts_as_examples_are_in_a_batch():
    found = parse(labelled(("a", "b"), ("a", "b"), train={"batch_size": 6, "accumulation": 3}), "here")
    assert found.experimental.public_batch == 6
