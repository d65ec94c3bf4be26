"""h2tune: federated fine-tuning of foundation models with hybrid heterogeneity (arXiv 2507.22633).

    import h2tune
    run = h2tune.run("federation.toml")
    run = h2tune.Federation(name="demo", client=[…]).run()
    model = peft.get_peft_model(model, h2tune.H2TuneConfig(r=16, shared_rank=64))

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from h2tune._version import __version__
from h2tune.quiet import without_kernel_warning

if TYPE_CHECKING:
    from h2tune.adapter import H2TuneConfig
    from h2tune.api import Federation
    from h2tune.errors import H2TuneError
    from h2tune.monitors.monitor import Monitor
    from h2tune.runs.run import run

__all__ = ["Federation", "H2TuneConfig", "H2TuneError", "Monitor", "__version__", "run"]

_HOMES = {
    "run": "h2tune.runs.run",
    "Federation": "h2tune.api",
    "Monitor": "h2tune.monitors.monitor",
    "H2TuneConfig": "h2tune.adapter",
    "H2TuneError": "h2tune.errors",
}

without_kernel_warning()


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'h2tune' has no attribute '{name}'")
