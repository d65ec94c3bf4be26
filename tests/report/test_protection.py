"""What protects a federation is stated before a run (inspect) and after it (the report)."""

from __future__ import annotations

from helpers import report_events as made

from h2tune.config import parse
from h2tune.report import formats
from h2tune.report.sections import protection
from h2tune.report.view import build_view
from h2tune.runs.inspect import guards

CLIENTS = [{"name": f"c{i}", "model": "m", "task": "tweets"} for i in range(5)]


def shown(**facts):
    """Return the protection sections of a run whose aggregations have these facts."""
    events = [{**e, **facts} if e["event"] == "aggregated" else e for e in made.make_events()]
    return protection.sections(build_view(events))


def test_a_run_without_guards_says_nothing_of_them():
    assert shown() == []


def test_a_robust_rule_tells_whom_it_clipped_and_left_out():
    first = made.MEMBERS[0]["name"]
    (section,) = shown(
        aggregation="krum", hostile=1, left=0.25, kept=[m["name"] for m in made.MEMBERS[1:]],
        clip_norm=2.0, norms={m["name"]: 1.0 for m in made.MEMBERS} | {first: 200.0},
    )  # fmt: skip
    assert section.key == "robust" and "krum" in section.text[0]
    row = section.tables[0].rows[0]
    assert (row[1].replace(formats.SPACE, " "), row[2], row[4]) == ("25.0 %", first, first)


def test_secure_aggregation_tells_who_is_in_the_sum():
    (section,) = shown(
        secure_aggregation={"threshold": 2, "survivors": ["films", "news"], "dropped": ["feed"]}
    )
    assert section.key == "secure" and "protects nothing" in section.text[0]
    assert list(section.tables[0].rows[0][1:]) == ["films, news", "feed", ""]


def test_inspect_says_the_epsilon_of_all_rounds_and_what_a_rule_bears():
    plain = {"name": "five", "client": CLIENTS, "server": {"rounds": 10}}
    assert guards(parse(plain, "test")) == []
    robust = {"aggregation": "median", "hostile": 2, "min_clients": 5}
    assert guards(parse({**plain, "server": robust}, "test")) == [
        'aggregation by "median": tolerates 2 hostile of 5 clients'
    ]
    private = {
        **plain,
        "server": {"rounds": 10, "min_clients": 5},
        "privacy": {"noise": "member", "multiplier": 4.0},
    }
    (line,) = guards(parse(private, "test"))
    assert line.startswith("noise added by each client: ε = ") and "towards the coordinator ε = " in line
    whole, share = (float(part.split()[0].rstrip(";")) for part in line.split("ε = ")[1:])
    assert 0 < whole < share


def masked(clients: int, **server) -> str:
    content = {
        "name": "masked",
        "client": [CLIENTS[0] | {"name": f"c{i}"} for i in range(clients)],
        "server": {"secure_aggregation": True, **server},
    }
    (line,) = guards(parse(content, "test"))
    return line


def test_inspect_says_with_how_many_clients_a_server_may_be_in_league_and_what_protects_from_one_more():
    assert "sums over at least 2 clients; in league with 0 of 3" in masked(3)
    assert masked(3).endswith("with 1 it does: min_clients = 3 prevents it")
    assert masked(3, min_clients=3).endswith("in league with 1 of 3 clients it learns no single update")
    assert "in league with 1 of 6" in masked(6) and "min_clients = 5 prevents it" in masked(6)
