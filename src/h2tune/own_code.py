"""Objects of the user's own by name, `module:object`: a strategy, a rule of aggregation, rows, a scorer, a monitor.

A file that the user runs may name them. What another party sends must not, and its readers refuse it. To read a file
imports nothing: an object is loaded where it is used.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator

from h2tune.errors import H2TuneError, nearest

_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
REFERENCE = re.compile(rf"(?:[^:]+\.py|{_NAME}):{_NAME}")
"""A module by its name or its file, and an object in it."""


def is_reference(text: str) -> bool:
    """Return whether a text is of the form `module:object` or `file.py:object`."""
    return REFERENCE.fullmatch(text) is not None


def _checked(text: str) -> str:
    if not is_reference(text):
        raise ValueError("module:object with one of your own")
    return text


Reference = Annotated[str, AfterValidator(_checked)]
"""A reference as a value in a file."""


def absolute_reference(reference: str, folder: Path) -> str:
    """Return a reference with the path of the module's file, if it lies in `folder`; an installed one stays a name."""
    module, _, name = reference.rpartition(":")
    if module.endswith(".py"):
        return f"{folder / Path(module).expanduser()}:{name}"
    stem = folder.joinpath(*module.split("."))
    for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
        if path.is_file():
            return f"{path}:{name}"
    return reference


def short(reference: str) -> str:
    """Return a reference without the folders of its file, for tables."""
    module, _, name = reference.rpartition(":")
    return f"{Path(module).stem if module.endswith('.py') else module}:{name}"


def load(reference: str, where: str) -> Any:
    """Import a module of the user's own, which runs its code, and return an object of it.

    Args:
        reference: `module:object` or `file.py:object`.
        where: The key that names it, for errors.

    Raises:
        H2TuneError: The module cannot be imported, or has no such object.
    """
    module, _, name = reference.rpartition(":")
    found: Any = _imported(module, where)
    for part in name.split("."):
        if not hasattr(found, part):
            known = (
                [word for word in vars(found) if not word.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            remedy = "Define it at the top level of a file, and name the file" if module == "__main__" else ""
            raise H2TuneError(f"'{module}' has no '{part}'{nearest(part, known)}", where=where, remedy=remedy)
        found = getattr(found, part)
    return found


def _imported(module: str, where: str) -> ModuleType:
    """Return a module by its name or its file.

    Raises:
        H2TuneError: It is not there, its name is taken, or its own code raises an error.
    """
    file = Path(module) if module.endswith(".py") else None
    if file is not None and not file.is_file():
        raise H2TuneError(f"no such file '{module}'", where=where, remedy="Check the path")
    if file is not None and (known := _loaded(file)):
        return known
    root, name = (None, module) if file is None else _rooted(file)
    if root is not None and str(root) not in sys.path:
        sys.path.append(str(root))  # last, so that its files hide no installed module
    importlib.invalidate_caches()  # the file may be newer than Python's list of the folder
    try:
        found = importlib.import_module(name)
    except Exception as error:  # the user's own code may raise any
        raise H2TuneError(
            f"'{module}' cannot be imported ({type(error).__name__}: {error})",
            where=where,
            remedy="A module of your own lies beside the federation file, or is installed",
        ) from error
    origin = getattr(found, "__file__", None)
    if file is not None and (origin is None or Path(origin).resolve() != file.resolve()):
        raise H2TuneError(
            f"the name '{name}' of '{module}' is taken by {origin or 'a module of Python'}",
            where=where,
            remedy="Rename the file",
        )
    return found


def _loaded(file: Path) -> ModuleType | None:
    """Return the module that was imported from a file, under whatever name; None if there is none."""
    wanted = str(file.resolve())
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("__file__") == wanted:
            return module
    return None


def _rooted(file: Path) -> tuple[Path, str]:
    """Return the folder from which a file is imported, and its name there: of a package, the folder that holds it."""
    root = file.resolve().parent
    while (root / "__init__.py").is_file():
        root = root.parent
    parts = file.resolve().relative_to(root).with_suffix("").parts
    return root, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def reference_of(value: object, where: str) -> str:
    """Return a reference that loads an object: the other direction of `load`.

    Args:
        value: A function, a class, or an object at the top level of its class's module or of the notebook.
        where: The key that it is a value of, for errors.

    Raises:
        H2TuneError: It has no name to load it by.
    """
    if isinstance(value, type | FunctionType):
        names = [(value.__module__, value.__qualname__)]
    else:
        modules = dict.fromkeys((type(value).__module__, "__main__"))
        names = [
            (m, name)
            for m in modules
            if m in sys.modules
            for name, v in vars(sys.modules[m]).items()
            if v is value
        ]
    for module, name in names:
        reference = f"{module}:{name}"
        if module in sys.modules and is_reference(reference):
            file = getattr(sys.modules[module], "__file__", None)
            if (
                module != "__main__"
                and file
                and Path(file).suffix == ".py"
                and _rooted(Path(file))[1] == module
            ):
                reference = f"{Path(file).resolve()}:{name}"
            return reference
    raise H2TuneError(
        f"{value!r:.80} has no name that a run could load it by",
        where=where,
        remedy="Define it, or assign it to a name, at the top level of a module or notebook",
    )


def named(content: Any, where: str = "") -> Any:
    """Return settings with each object of the user's own replaced by its reference, and each path by its text.

    Args:
        content: A federation file's content, which may hold objects where a file would name them.
        where: Dotted key of the content, for errors.

    Raises:
        H2TuneError: As `reference_of`.
    """
    match content:
        case None | str() | bool() | int() | float():
            return content
        case Path():
            return str(content)
        case Mapping():
            return {
                key: named(value, f"{where}.{key}" if where else str(key)) for key, value in content.items()
            }
        case list() | tuple():
            return [named(value, where) for value in content]
        case _:
            return reference_of(content, where)
