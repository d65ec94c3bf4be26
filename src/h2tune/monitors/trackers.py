"""TensorBoard and Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.errors import H2TuneError
from h2tune.monitors.metrics import Numbers, Tracker


class TensorBoard(Tracker):
    """Writes `RUN/tensorboard`; `tensorboard --logdir runs` shows all runs."""

    def check(self) -> None:
        _need("tensorboard")

    def open(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def on_end(self, finished: bool) -> None:
        self.writer.close()


class WeightsAndBiases(Tracker):
    """Logs to Weights & Biases, project `h2tune` unless WANDB_PROJECT names another; a resumed run goes on there.

    The metrics and the settings of `config.toml`, names and paths included, leave this machine, unless
    WANDB_MODE=offline.
    """

    def check(self) -> None:
        _need("wandb")

    def open(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import os

        import wandb

        file = folder / "wandb" / "run-id.txt"
        if not file.exists():
            files.write_text(file, secrets.token_hex(4))
        try:
            self.run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "h2tune"),
                name=str(settings["name"]),
                id=file.read_text().strip(),
                resume="allow",
                dir=str(folder),
                config=dict(settings),
            )
        except wandb.Error as error:
            raise H2TuneError(
                f"Weights & Biases refuses the run ({error})",
                where='monitors = ["wandb"]',
                remedy="Run wandb login, or set WANDB_MODE=offline",
            ) from error
        # not as wandb's own step, which may not go back: clients alone begin with round 1 again
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")

    def write(self, step: int, numbers: Numbers) -> None:
        self.run.log({**numbers, "round": step})

    def on_end(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


def _need(package: str) -> None:
    """Check that a package is installed.

    Raises:
        H2TuneError: It is not.
    """
    if find_spec(package) is None:
        raise H2TuneError(
            f"the package {package} is not installed",
            where=f'monitors = ["{package}"]',
            remedy=f"pip install 'h2tune[{package}]', or leave it out of monitors",
        )
