"""Patches modules on import, in a process that a test or benchmark starts; h2tune itself has no such option.

Put this folder on PYTHONPATH and name files in PATCH; their CHANGES map a module's name to a function of the module.
"""

import importlib.abc
import importlib.util
import os
import runpy
import sys


class After(importlib.abc.MetaPathFinder):
    """Calls a function with a module right after its import."""

    def __init__(self, changes):
        self.changes = changes

    def find_spec(self, name, path=None, target=None):
        change = self.changes.pop(name, None)
        spec = importlib.util.find_spec(name) if change else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def changed(module):
            execute(module)
            change(module)

        spec.loader.exec_module = changed
        return spec


for file in filter(None, os.environ.get("PATCH", "").split(os.pathsep)):
    sys.meta_path.insert(0, After(runpy.run_path(file)["CHANGES"]))
