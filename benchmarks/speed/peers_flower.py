"""The job of `peers.py` on Flower's simulation engine: a ClientApp with PEFT and a plain torch loop, and FedAvg.

As Flower's LLM example has it, every message loads the model anew; with `KEEP` in the environment a process keeps it.
One actor, so that one client trains at a time, as in the other engines.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peers_job import Job, Marks, client_tensors, lora_model, train
from peft import get_peft_model_state_dict, set_peft_model_state_dict

NEEDED = ("flwr", "ray", "torch", "transformers", "peft")
KEEP = "PEERS_KEEP_MODEL"

app = ClientApp()
data = lru_cache(maxsize=None)(client_tensors)
kept_model = lru_cache(maxsize=1)(lora_model)


@app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train on the client's rows from the matrices in the message, and return the new ones."""
    folder = Path(str(message.content["config"]["folder"]))
    job = Job.read(folder)
    model = (kept_model if os.environ.get(KEEP) else lora_model)(folder, job)
    set_peft_model_state_dict(model, message.content["arrays"].to_torch_state_dict())
    rows = data(folder, int(context.node_config["partition-id"]))
    losses = train(model, rows, job)
    metrics = {"num-examples": job.rows, "steps": len(losses), "loss": sum(losses) / len(losses)}
    content = {
        "arrays": ArrayRecord(get_peft_model_state_dict(model)),
        "metrics": MetricRecord(metrics),
    }
    return Message(content=RecordDict(content), reply_to=message)


class MarkedFedAvg(FedAvg):
    """FedAvg that notes when rounds begin and end."""

    def __init__(self, marks: Marks, **options: Any) -> None:
        super().__init__(**options)
        self.marks = marks

    def configure_train(self, *arguments: Any) -> Iterable[Message]:
        """Note the time when the messages of a round are ready."""
        messages = super().configure_train(*arguments)
        self.marks.begin_round()
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Note the steps and the loss of a round."""
        replies = list(replies)
        found = super().aggregate_train(server_round, replies)
        metrics = [reply.content["metrics"] for reply in replies if reply.has_content()]
        self.marks.end_round(sum(m["steps"] for m in metrics), sum(m["loss"] for m in metrics) / len(metrics))
        return found


def run(folder: Path) -> Marks:
    """Run the job, and return what was noted."""
    job, marks = Job.read(folder), Marks()
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        share = job.per_round / job.clients
        strategy = MarkedFedAvg(
            marks, fraction_train=share, fraction_evaluate=0.0, min_available_nodes=job.clients
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(get_peft_model_state_dict(lora_model(folder, job))),
            train_config=ConfigRecord({"folder": str(folder)}),
            num_rounds=job.rounds,
        )

    one_actor = {"init_args": {"num_cpus": 1}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    marks.around(lambda: run_simulation(server, app, num_supernodes=job.clients, backend_config=one_actor))
    return marks
