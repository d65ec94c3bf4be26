"""What a worker process of `jobs` does: one client's round after another, with data and base models in memory."""

from __future__ import annotations

from pathlib import Path

from h2tune.config import load_resolved
from h2tune.errors import H2TuneError
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.messages import Download, tensors_from_bytes
from h2tune.federation.run_store import RunStore
from h2tune.runs.build import build_strategy
from h2tune.runs.plan import Plan, planned


def train(folder: str, stage: str, client: str, round_number: int, tensors: bytes, digest: str) -> str:
    """Run one client's round and commit it; return the reason if it failed, else "".

    Args:
        folder: The run folder.
        stage: "trained", or "alone".
        client: The client's name.
        round_number: Number of the round.
        tensors: The download's tensors, as safetensors.
        digest: The download's checksum.
    """
    try:
        engine = _Worker.of(folder).engine(stage, client)
        download = Download(round_number, tensors_from_bytes(tensors, "download"), digest)
    except H2TuneError as error:
        return str(error)
    return engine.train(client, download).reason


class _Worker:
    """What a worker process has in memory: the plan of one run, its base models and its engines.

    Args:
        folder: The run folder.
    """

    current: _Worker | None = None

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.plan = planned(load_resolved(Path(folder) / "config.toml"))
        self.models = BaseModels(self.plan.federation.seed, self.plan.federation.trusted)
        self.engines: dict[str, LocalEngine] = {}

    @classmethod
    def of(cls, folder: str) -> _Worker:
        """Return the worker of a run; that of another run is dropped."""
        if cls.current is None or cls.current.folder != folder:
            cls.current = None
            cls.current = cls(folder)
        return cls.current

    def engine(self, stage: str, client: str) -> LocalEngine:
        """Return the engine of all clients, or of one that trains alone."""
        key = client if stage == "alone" else ""
        if key not in self.engines:
            self.engines[key] = _engine_of(self.plan, self.models, Path(self.folder), key)
        return self.engines[key]


def _engine_of(plan: Plan, models: BaseModels, folder: Path, alone: str) -> LocalEngine:
    clients, strategy = plan.clients, plan.strategy
    if alone:
        clients = [client for client in clients if client.name == alone]
        enrolled = [client.enrolment for client in clients]
        strategy = build_strategy(plan.federation.of_one(), enrolled, plan.shared_rank, plan.slots)
    return LocalEngine(
        clients,
        {info.client.name: info.client.dtype for info in plan.infos},
        strategy,
        models,
        RunStore(folder, commits_only=True),
        stage="alone" if alone else "trained",
        keep_first=not alone,
        samples=True,
    )
