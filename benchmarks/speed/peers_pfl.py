"""The job of `peers.py` in Apple's pfl-research: the PEFT model in a PyTorchModel, and FederatedAveraging.

pfl has its own local loop of forward, backward, clipping and step; the optimiser is the same AdamW. A client's rows are
taken in the order of its file, for pfl's in-memory data sets do not shuffle.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_job import Job, Marks, adamw, client_tensors, lora_model
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

NEEDED = ("pfl", "torch", "transformers", "peft")


class PflModule(torch.nn.Module):
    """The PEFT model with the two methods that pfl asks for; `losses` are those of training steps."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.losses: list[torch.Tensor] = []

    def loss(self, **batch: torch.Tensor) -> torch.Tensor:
        """Return the loss of a training batch."""
        self.model.train()
        loss = self.model(**batch).loss
        self.losses.append(loss.detach().clone())  # pfl divides the loss in place
        return loss

    @torch.no_grad()
    def metrics(self, **batch: torch.Tensor) -> dict[str, Any]:
        """Return the loss of a batch that is scored."""
        self.model.eval()
        rows = len(batch["input_ids"])
        return {"loss": Weighted(self.model(**batch).loss.item() * rows, rows)}


class Rounds(TrainingProcessCallback):
    """Notes when rounds begin and end."""

    def __init__(self, marks: Marks, module: PflModule) -> None:
        self.marks, self.module = marks, module

    def on_train_begin(self, *, model: Any) -> Metrics:
        """Note the first round."""
        self.marks.begin_round()
        return Metrics()

    def after_central_iteration(self, *_: Any, **named: Any) -> tuple[bool, Metrics]:
        """Note the steps and the loss of a round."""
        losses = [loss.item() for loss in self.module.losses]
        self.marks.end_round(len(losses), sum(losses) / len(losses))
        self.module.losses.clear()
        return False, Metrics()


def work(folder: Path, job: Job, marks: Marks) -> None:
    """Build model and data, and train."""
    module = PflModule(lora_model(folder, job))
    trained = [p for p in module.parameters() if p.requires_grad]
    model = PyTorchModel(
        module, local_optimizer_create=adamw, central_optimizer=torch.optim.SGD(trained, lr=1.0)
    )
    tensors = lru_cache(maxsize=None)(client_tensors)
    sampler = get_user_sampler("random", range(job.clients))
    data = FederatedDataset(lambda user: PyTorchTensorDataset(tensors(folder, user)), sampler)
    backend = SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()])
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=job.rounds,
            evaluation_frequency=job.rounds + 1,  # the first round is always scored
            train_cohort_size=job.per_round,
            val_cohort_size=None,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=job.learning_rate,
            local_batch_size=job.batch,
            local_max_grad_norm=job.max_grad_norm,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=job.rows),
        callbacks=[Rounds(marks, module)],
    )


def run(folder: Path) -> Marks:
    """Run the job, and return what was noted."""
    job, marks = Job.read(folder), Marks()
    np.random.seed(0)  # noqa: NPY002 - pfl draws clients from it
    torch.manual_seed(0)
    marks.around(lambda: work(folder, job, marks))
    return marks
