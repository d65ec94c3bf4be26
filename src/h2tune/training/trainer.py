"""The alternating trainer: equations (6) and (7) on `transformers.Trainer`.

The Trainer's loop is unchanged. Each optimiser step is in one phase (`schedule.phase_of`); the sampler repeats a batch
if both phases see it. Devices, precision, accumulation, schedulers, logging and checkpoints are the Trainer's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from h2tune.errors import H2TuneError
from h2tune.functional import losses
from h2tune.training.by_length import logits_by_length
from h2tune.training.encode import Encoded, kept_logits
from h2tune.training.normalised import normalising
from h2tune.training.schedule import Alternation, Phase, phase_of
from h2tune.training.terms import Progress, Record, Terms

NOISE = 1e-12
"""Norm of a gradient, relative to the largest of a step, that counts as none."""


class FixedOrder(Sampler[int]):
    """Yields the given indices, in order."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = list(indices)

    def __iter__(self) -> Any:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class AlternatingTrainer(Trainer):
    """Trains the parameters of the shared and of the specific phase in turn.

    Args:
        model: A PEFT model.
        args: Training arguments; `max_steps` counts optimiser steps.
        train_dataset: Encoded examples.
        data_collator: From `encode.collator`.
        order: Indices of the examples, from `schedule.draw`.
        phases: Parameters by name of `"shared"` and `"specific"`.
        learning_rates: Learning rate by phase, and `"relation"` for parameters named relation.*.
        alternation: How the phases alternate.
        terms: The loss terms besides the task loss.
        causal: Whether logits are over tokens (decoder) or labels (head).
        progress: Called after each optimiser step.
        normalised: Whether Δ is trained by normalised gradient steps: `normalised.normalising`.
        schedule_offset: Optimiser steps before this round, so that the schedule spans rounds.
        schedule_total: Optimiser steps of all rounds.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: Sequence[Encoded],
        data_collator: Callable[..., dict[str, Tensor]],
        *,
        order: Sequence[int],
        phases: Mapping[str, Mapping[str, nn.Parameter]],
        learning_rates: Mapping[str, float],
        alternation: Alternation,
        terms: Terms,
        causal: bool,
        progress: Progress | None = None,
        normalised: bool = False,
        schedule_offset: int = 0,
        schedule_total: int | None = None,
    ) -> None:
        self.order, self.phases, self.alternation = order, phases, alternation
        self.learning_rates, self.terms, self.causal = learning_rates, terms, causal
        self.schedule_offset, self.schedule_total = schedule_offset, schedule_total
        self.normalised = normalised
        self.record = Record()
        self.optimizer: torch.optim.Optimizer | None = None
        self._teachers: list[Tensor] = []
        self._step_loss = 0.0
        super().__init__(model=model, args=args, train_dataset=train_dataset, data_collator=data_collator)
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the targets of a whole optimiser step
        self.loss_is_scaled_for_ga = True
        self._loss_shifts_labels = False  # the collator aligns targets with logits
        self.remove_callback(PrinterCallback)
        self.add_callback(_Phases(self, progress))

    def phase(self) -> Phase:
        """Return the phase of the current optimiser step."""
        return phase_of(self.state.global_step, self.alternation, self.schedule_offset)

    def trained(self, phase: Phase) -> dict[str, nn.Parameter]:
        """Return the parameters that a phase trains, by name."""
        names = ("shared", "specific") if phase == "joint" else (phase,)
        return {name: parameter for key in names for name, parameter in self.phases.get(key, {}).items()}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of one micro-batch in the current phase: (6), (7), or their sum in a joint step."""
        phase, terms = self.phase(), self.terms
        items = (
            num_items_in_batch
            if num_items_in_batch is not None
            else (inputs["labels"] != losses.IGNORED).sum()
        )
        forward = logits_by_length if "targets" in inputs else kept_logits
        logits = forward(model, inputs, causal=self.causal)
        loss = losses.task_loss(logits, inputs["labels"], items)
        share = 1 / self.current_gradient_accumulation_steps
        if phase in ("shared", "joint") and self.phases.get("shared"):
            loss = loss + share * self._shared_terms()
        if terms.distillation_weight and self.alternation == "step":
            if phase == "shared":
                self._teachers.append(logits.detach())
            else:
                loss = loss + terms.distillation_weight * losses.distillation(
                    self._teachers.pop(0), logits, inputs["labels"], items
                )
        if "targets" in inputs and terms.teacher_weight:
            last = logits[:, -1].gather(1, inputs["firsts"]) if "firsts" in inputs else logits[:, -1]
            loss = loss + terms.teacher_weight * losses.teaching(last, inputs["targets"], terms.public_items)
        self._step_loss += float(loss.detach())
        return (loss, logits) if return_outputs else loss

    def _shared_terms(self) -> Tensor:
        terms, total = self.terms, torch.zeros((), device=self.args.device)
        if terms.size_weight:
            total = total + terms.size_weight * losses.size_penalty(self.phases["shared"].values())
        if terms.drift_weight and terms.middles is not None and terms.previous is not None:
            total = total + terms.drift_weight * losses.drift(terms.middles(), terms.previous)
        return total

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimiser over both phases; weight decay applies to A, B and heads only."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            rates = {**self.learning_rates, "normalised": self.learning_rates["shared"]}
            groups: dict[str, list[nn.Parameter]] = {
                key: [] for key in ("specific", "shared", "relation", "normalised")
            }
            for name, parameter in self.trained("joint").items():
                groups[self._group_of(name)].append(parameter)
            self.optimizer = (normalising(kind) if self.normalised else kind)(
                [
                    {
                        "params": parameters,
                        "lr": rates[key],
                        "weight_decay": self.args.weight_decay if key == "specific" else 0.0,
                    }
                    | ({"normalised": True} if key == "normalised" else {})
                    for key, parameters in groups.items()
                    if parameters
                ],
                **options,
            )
        return self.optimizer

    def _group_of(self, name: str) -> str:
        """Return the optimiser's group of a parameter."""
        if name.startswith("relation."):
            return "relation"
        if self.normalised and "h2tune_delta" in name:
            return "normalised"
        return "shared" if name in self.phases.get("shared", {}) else "specific"

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the Trainer's scheduler over all rounds, and advance it to the start of this round."""
        import warnings

        scheduler = super().create_scheduler(self.schedule_total or num_training_steps, optimizer)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step\\(\\)` before")
            for _ in range(self.schedule_offset):
                scheduler.step()
        return scheduler

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the norm of all parameters of the phase; the relation is not a parameter of the model."""
        if self._has_mixed_mesh_grads(model):
            return super()._clip_grad_norm(model)
        trained = self.trained(self.phase()).values()
        return self.accelerator.clip_grad_norm_(trained, self.args.max_grad_norm)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Leave it to the Accelerator, which does the same before training."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nothing reads the Trainer's estimate, which takes a scan of all parameters in every step."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return FixedOrder(self.order)


class _Phases(TrainerCallback):
    """Makes exactly the current phase's parameters trainable, and records gradients and losses."""

    def __init__(self, trainer: AlternatingTrainer, progress: Progress | None) -> None:
        self.trainer, self.progress = trainer, progress
        joint = trainer.trained("joint")
        trainer.record.without_gradient.update(joint)
        # parameters of no phase (such as scores that select nothing) must not count in the clipped gradient norm
        trainable = [p for p in trainer.model.parameters() if p.requires_grad]
        self.parameters = list({id(p): p for p in [*trainable, *joint.values()]}.values())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trained = {id(parameter) for parameter in self.trainer.trained(self.trainer.phase()).values()}
        for parameter in self.parameters:
            parameter.requires_grad_(id(parameter) in trained)
            parameter.grad = None
        self.trainer._step_loss = 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        missing = self.trainer.record.without_gradient
        trained = self.trainer.trained(self.trainer.phase())
        if missing.isdisjoint(trained):
            return
        sizes = {name: float(p.grad.norm()) for name, p in trained.items() if p.grad is not None}
        least = NOISE * max(sizes.values(), default=0.0)  # what is smaller comes of rounding
        missing.difference_update(name for name, size in sizes.items() if size > least)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # global_step counts this step already
        phase = phase_of(state.global_step - 1, self.trainer.alternation, self.trainer.schedule_offset)
        loss = self.trainer._step_loss
        if not torch.isfinite(torch.tensor(loss)):
            raise H2TuneError(
                f"the loss became {loss} in step {state.global_step} ({phase} phase)",
                remedy="Lower the learning rate, or check the data of this client",
            )
        self.trainer.record.losses.append((phase, loss))
        if self.progress is not None:
            self.progress(state.global_step, phase, loss)
