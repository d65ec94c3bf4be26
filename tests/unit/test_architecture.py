"""Dependencies point one way, and what is pure stays pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import federations
import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "h2tune"


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, at the top or inside functions."""
    found = set()
    for entry in ast.walk(ast.parse(path.read_text())):
        if isinstance(entry, ast.Import):
            found |= {alias.name for alias in entry.names}
        elif isinstance(entry, ast.ImportFrom) and entry.module:
            found |= {f"{entry.module}.{alias.name}" for alias in entry.names} | {entry.module}
    return found


PURE = [
    "alignment.py",
    "adapter/sparsify.py",
    "federation/aggregate.py",
    "federation/robust.py",
    "federation/tolerance.py",
    "training/losses.py",
    "federation/wire.py",
    "federation/privacy.py",
    *(
        f"federation/secagg/{n}.py"
        for n in ("masking", "vector", "shamir", "keys", "protocol", "member", "server")
    ),
]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_framework_no_files_and_no_network(name):
    banned = ("peft", "transformers", "flwr", "pathlib", "os", "safetensors", "h2tune.files", "h2tune.config")
    assert not [i for i in imports(SOURCE / name) if i.split(".")[0] in banned or i.startswith(banned)]


@pytest.mark.parametrize(
    ("package", "never"),
    [
        (
            "adapter",
            ("training", "federation", "tasks", "evaluation", "cli", "config", "report", "baselines"),
        ),
        ("training", ("federation", "cli", "config", "report", "baselines", "evaluation")),
        ("tasks", ("federation", "training", "adapter", "cli", "config", "report")),
        ("evaluation", ("federation", "cli", "config", "report", "baselines")),
        ("report", ("federation", "training", "adapter", "cli", "config", "tasks", "models")),
        ("assets", ("federation", "training", "adapter", "cli", "config", "tasks", "models", "report")),
        ("baselines", ("cli", "config", "report")),
    ],
)
def test_dependencies_point_one_way(package, never):
    for path in (SOURCE / package).rglob("*.py"):
        wrong = [i for i in imports(path) if i.startswith(tuple(f"h2tune.{n}" for n in never))]
        assert not wrong, f"{path.name} imports {wrong}"


def test_flower_is_imported_by_its_own_engine_alone():
    for path in SOURCE.rglob("*.py"):
        if "flower" not in path.parts:
            assert not [i for i in imports(path) if i.split(".")[0] == "flwr"], path


def test_nothing_runs_or_unpickles_what_is_untrusted():
    banned = ("pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml")
    for path in SOURCE.rglob("*.py"):
        assert not [i for i in imports(path) if i.split(".")[0] in banned], path
        for entry in ast.walk(ast.parse(path.read_text())):
            if isinstance(entry, ast.Call):
                name = ast.unparse(entry.func)
                shell = any(k.arg == "shell" for k in entry.keywords)
                # the sandbox's child process is where generated programs may run
                allowed = path.name == "confined.py"
                assert (name not in ("eval", "exec", "torch.load", "os.system") and not shell) or allowed, (
                    path
                )


@pytest.mark.parametrize("code", ["import h2tune", "import h2tune.cli", "import h2tune.config"])
def test_torch_is_imported_only_when_it_is_needed(code):
    check = (
        f"{code}; import sys; assert not {{'torch', 'transformers', 'peft', 'datasets'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", check], env=federations.environment(), check=True)


def test_the_trainer_is_imported_only_for_training():
    """Its import takes seconds, which `inspect` need not wait for."""
    for path in SOURCE.rglob("*.py"):
        for entry in ast.parse(path.read_text()).body:  # what is imported with the module, not in a function
            if isinstance(entry, ast.ImportFrom) and path.name != "trainer.py":
                names = {alias.name for alias in entry.names}
                assert entry.module != "h2tune.training.trainer", path
                assert entry.module != "transformers" or "Trainer" not in names, path
