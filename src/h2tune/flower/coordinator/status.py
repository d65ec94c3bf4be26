"""The state of a run in Prometheus' text format, in a file for node_exporter's textfile collector. Knows no flwr.

It says nothing that is not in the coordinator's own log: rounds, members, the last error; no loss and no accuracy.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from h2tune import files
from h2tune._version import __version__
from h2tune.errors import H2TuneError
from h2tune.events import Event

FILE = "status.prom"
"""Name of the file, beside the coordinator's file."""
EVERY = 15.0
"""Most seconds between two writes while the run is at work."""
STATES = ("waiting", "running", "finished", "failed")
REASON_CHARACTERS = 200
"""The most characters of an error that are shown."""


@dataclass
class Facts:
    """What the file says.

    Args:
        federation: Name of the federation.
        rounds: Number of rounds.
        finished: Rounds that are finished.
        state: One of `STATES`.
        members: Who may join.
        enrolled: Who has enrolled.
        connected: Whose node is connected.
        updates: Updates that were used, by member.
        failures: Rounds without an update that could be used, by member.
        last_round: The last round, from 1, in which a member's update was used.
        warnings: Number of warnings.
        error: The last failure of a member, or the error that ended the run.
        error_time: When it happened, in seconds since the epoch.
        expiry: When the server's certificate ends, in seconds since the epoch; 0 if there is none.
    """

    federation: str = ""
    rounds: int = 0
    finished: int = 0
    state: str = "waiting"
    members: tuple[str, ...] = ()
    enrolled: set[str] = field(default_factory=set)
    connected: set[str] = field(default_factory=set)
    updates: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    last_round: dict[str, int] = field(default_factory=dict)
    warnings: int = 0
    error: str = ""
    error_time: float = 0.0
    expiry: float = 0.0


class Status:
    """Keeps the file up to date; a file that cannot be written does not end the run.

    Args:
        file: The file; None to write none.
    """

    def __init__(self, file: Path | None) -> None:
        self.file, self.facts = file, Facts()
        self._written = 0.0

    def begin(self, federation: str, rounds: int, members: Collection[str], events: Iterable[Event]) -> None:
        """Start with the settings of a run and the events so far."""
        self.facts = Facts(federation, rounds, members=tuple(members))
        if self.file is not None:
            self.facts.expiry = expiry(self.file.with_name("tls") / "server.crt")
        for event in events:
            self._count(event)
        self._write()

    def event(self, event: Event) -> None:
        """Count a new event."""
        self._count(event)
        self._write()

    def nodes(self, enrolled: Collection[str], connected: Collection[str]) -> None:
        """Set who has enrolled and whose node is connected."""
        facts = self.facts
        changed = facts.enrolled != set(enrolled) or facts.connected != set(connected)
        facts.enrolled, facts.connected = set(enrolled), set(connected)
        if changed or time.monotonic() - self._written > EVERY:
            self._write()

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the error that ends the block; an exception that is not h2tune's is named by its type alone."""
        try:
            yield
        except Exception as error:
            self.facts.state = "failed"
            self._failed(str(error) if isinstance(error, H2TuneError) else type(error).__name__, time.time())
            self._write()
            raise

    def _count(self, event: Event) -> None:
        facts, kind = self.facts, event.get("event")
        if kind == "run_started":
            facts.state = "running"
        elif kind == "aggregated":
            facts.finished = max(facts.finished, event["round"] + 1)
            facts.updates.update(event["clients"])
            facts.last_round |= dict.fromkeys(event["clients"], event["round"] + 1)
        elif kind == "client_failed":
            facts.failures[event["client"]] += 1
            self._failed(f"{event['client']}: {event['reason']}", float(event.get("time", time.time())))
        elif kind == "warning":
            facts.warnings += 1
        elif kind == "run_finished":
            facts.state = "finished"

    def _failed(self, reason: str, when: float) -> None:
        self.facts.error, self.facts.error_time = " ".join(reason.split())[:REASON_CHARACTERS], when

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.file is not None:
            with contextlib.suppress(OSError):  # a full disk: the run store says so where it matters
                files.write_text(self.file, text(self.facts, time.time()), mode=0o644)


def text(facts: Facts, now: float) -> str:
    """Return the facts in Prometheus' text format.

    Args:
        facts: What to say.
        now: Seconds since the epoch.
    """
    by_member = {name: {"member": name} for name in facts.members}
    lines: list[str] = []

    def gauge(
        name: str, help_text: str, *samples: tuple[Mapping[str, str], float], kind: str = "gauge"
    ) -> None:
        lines.extend([f"# HELP h2tune_{name} {help_text}", f"# TYPE h2tune_{name} {kind}"])
        lines.extend(f"h2tune_{name}{_labels(labels)} {value:.15g}" for labels, value in samples)

    def members(name: str, help_text: str, values: Mapping[str, float], kind: str = "gauge") -> None:
        gauge(name, help_text, *((by_member[m], values.get(m, 0)) for m in facts.members), kind=kind)

    gauge("info", "The federation.", ({"federation": facts.federation, "version": __version__}, 1))
    gauge("run_state", "1 for the state of the run.", *(({"state": s}, s == facts.state) for s in STATES))
    gauge("rounds", "Rounds of the run.", ({}, facts.rounds))
    gauge("rounds_finished", "Rounds that are finished.", ({}, facts.finished))
    members("member_enrolled", "Whether the member has enrolled.", dict.fromkeys(facts.enrolled, 1))
    members("member_connected", "Whether the member's node is connected.", dict.fromkeys(facts.connected, 1))
    members("member_updates_total", "Updates of the member that were used.", facts.updates, "counter")
    members("member_failures_total", "Rounds without a usable update.", facts.failures, "counter")
    members("member_last_round", "Last round with the member's update, from 1.", facts.last_round)
    gauge("warnings_total", "Warnings.", ({}, facts.warnings), kind="counter")
    if facts.error:
        gauge("last_error_info", "The last error.", ({"reason": facts.error}, 1))
        gauge("last_error_timestamp_seconds", "When it happened.", ({}, facts.error_time))
    if facts.expiry:
        gauge("certificate_expiry_timestamp_seconds", "End of the server's certificate.", ({}, facts.expiry))
    gauge("updated_timestamp_seconds", "When this file was written.", ({}, now))
    return "\n".join(lines) + "\n"


def expiry(certificate: Path) -> float:
    """Return when a certificate ends, in seconds since the epoch; 0 if it cannot be read."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in value)
    return shown.replace("\\", r"\\").replace('"', r"\"")
