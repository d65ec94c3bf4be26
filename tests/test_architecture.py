"""Dependencies point one way, between packages and between files, and what is pure stays pure.

The graph is computed from the code: every import, at the top of a file, inside a function, or for types alone.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers import federations

SOURCE = Path(__file__).resolve().parents[1] / "src" / "h2tune"
GROUND = {"errors", "events", "files", "own_code", "quiet", "seeds", "_version"}
ARROWS = {
    "functional": set(),
    "assets": set(),
    "heads": set(),
    "models": {"assets", "heads"},
    "scoring": set(),
    "tasks": {"assets", "scoring"},
    "adapter": {"functional"},
    "training": {"adapter", "functional", "tasks"},
    "evaluation": {"adapter", "functional", "scoring", "tasks", "training"},
    "federation": {"adapter", "assets", "evaluation", "functional", "heads", "models", "tasks", "training"},
    "baselines": {"adapter", "federation", "models", "training"},
    "monitors": set(),
    "config": {"assets", "functional", "monitors", "tasks"},
    "report": set(),
    "runs": {
        *("adapter", "baselines", "config", "evaluation", "federation", "functional", "heads", "models"),
        *("monitors", "report", "tasks", "training"),
    },
    "flower": {
        *("adapter", "config", "federation", "functional", "models", "report", "runs", "tasks", "training"),
    },
    "compare": {"baselines", "config", "evaluation", "monitors", "report", "runs"},
    "cli": {"assets", "compare", "config", "flower", "monitors", "report", "runs"},
    "__main__": {"cli"},
    "api": {"compare", "config", "monitors", "runs"},
    "h2tune": {"adapter", "api", "monitors", "runs"},
}
"""Package → the packages that its files may import; all may import the ground."""

PURE_FILES = [
    *(f"federation/{name}.py" for name in ("dp", "h2tune/wire")),
    *(
        f"federation/secagg/{n}.py"
        for n in ("masking", "vector", "shamir", "keys", "protocol", "client", "server")
    ),
]
FRAMEWORKS = {"peft", "transformers", "flwr", "safetensors", "datasets", "pathlib", "os"}


@cache
def modules() -> dict[str, Path]:
    """Return every module of h2tune by its dotted name."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = ("h2tune", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports; `from package import module` is an import of the module."""
    for entry in ast.walk(ast.parse(path.read_text())):
        if isinstance(entry, ast.Import):
            yield from (alias.name for alias in entry.names)
        elif isinstance(entry, ast.ImportFrom) and entry.module:
            for alias in entry.names:
                name = f"{entry.module}.{alias.name}"
                yield name if name in modules() else entry.module


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def own(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "h2tune"}


def test_every_package_has_its_arrows():
    assert {package(name) for name in modules()} == ARROWS.keys() | GROUND
    assert tuple(graphlib.TopologicalSorter(ARROWS).static_order())  # raises where arrows run in a circle


@pytest.mark.parametrize("name", sorted(ARROWS.keys() | GROUND))
def test_a_package_imports_what_its_arrows_allow_and_nothing_else(name):
    allowed, used = ARROWS.get(name, set()), set()
    for module, path in modules().items():
        if package(module) == name:
            targets = {package(target) for target in own(path)} - {name} - GROUND
            assert targets <= allowed, f"{module} imports {sorted(targets - allowed)}"
            used |= targets
    assert used == allowed, f"no file uses the arrows to {sorted(allowed - used)}"


def test_no_two_files_import_each_other():
    graph = {name: own(path) - {name} for name, path in modules().items()}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the files


def test_functional_needs_torch_and_nothing_else():
    names = [name for name in modules() if name.startswith("h2tune.functional")]
    check = f"import sys, {', '.join(names)}; assert 'torch' in sys.modules; "
    check += "assert not {'transformers', 'peft', 'pydantic', 'safetensors', 'scipy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], env=federations.environment(), check=True)


@pytest.mark.parametrize("name", PURE_FILES)
def test_pure_files_know_no_framework_no_files_and_no_network(name):
    found = set(imports(SOURCE / name))
    assert not {i.split(".")[0] for i in found} & FRAMEWORKS
    assert not found & {"h2tune.files", "h2tune.config"}


def test_flower_is_imported_by_its_own_engine_alone():
    for path in SOURCE.rglob("*.py"):
        if "flower" not in path.relative_to(SOURCE).parts:
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


@pytest.mark.parametrize("code", ["import h2tune", "import h2tune.cli.main", "import h2tune.config"])
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
