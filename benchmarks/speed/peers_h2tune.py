"""The job of `peers.py` in h2tune: the baseline `fedit`, with events, states, export and report as in every run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tomli_w
from peers_job import Job, Marks, rows_file

import h2tune
import h2tune.report
import h2tune.runs.run
import h2tune.training.trainer  # all that a run needs is imported before the clock starts
from h2tune.monitors.monitor import Monitor

NEEDED = ("h2tune",)
TEST_ROWS = (
    4  # with a share of the clients a round, each is scored before its first round and after every one
)


def write(folder: Path, job: Job) -> None:
    """Write the model, the clients' rows and the federation file; in the benchmark's own process."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
    from helpers import federations, tiny

    model = tiny.save_model_folder(
        folder / "models" / "llama", "llama", labels=2, width=job.width, blocks=job.blocks
    )
    test = federations.write_rows(folder / "test.jsonl", TEST_ROWS, seed=job.clients)
    clients = []
    for i in range(job.clients):
        rows = federations.write_rows(rows_file(folder, i), job.rows, seed=i)
        task = federations.task(rows) | {"test_file": str(test)}
        clients.append({"name": rows.stem, "model": str(model), "rank": job.rank, "task": task})
    content = {
        "name": "peers",
        "server": {"strategy": "fedit", "rounds": job.rounds, "participation": job.per_round / job.clients},
        "adapter": {"alpha": job.alpha},
        "train": {
            "local_steps": job.rows // job.batch,
            "batch_size": job.batch,
            "learning_rate": job.learning_rate,
            "max_grad_norm": job.max_grad_norm,
        },
        "data": {"train": job.rows, "test": TEST_ROWS},
        "client": clients,
    }
    (folder / "federation.toml").write_text(tomli_w.dumps(content))
    job.save(folder)


class Rounds(Monitor):
    """Notes when rounds begin and end."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.losses: list[float] = []

    def on_turn(self, stage: str, round_number: int, client: str) -> None:
        """Note the first client's turn."""
        self.marks.begin_round()

    def on_event(self, event: dict[str, Any]) -> None:
        """Note the steps and the loss of a round."""
        if event["event"] == "client_trained":
            self.losses += [step["loss"] for step in event["losses"]]
        elif event["event"] == "aggregated":
            self.marks.end_round(len(self.losses), sum(self.losses) / len(self.losses))
            self.losses.clear()


def run(folder: Path) -> Marks:
    """Run the job, and return what was noted."""
    marks = Marks()
    federation = folder / "federation.toml"
    marks.around(lambda: h2tune.Federation(federation).run(out=folder / "run", monitors=[Rounds(marks)]))
    return marks
