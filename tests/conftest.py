"""One thread, so that tests run side by side; equations with their shapes checked; charts drawn where they matter."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

settings.register_profile("h2tune", deadline=None)  # a busy machine is no defect
settings.load_profile("h2tune")

# the Trainer collects garbage in every round; what the imports left need not be gone through again
gc.collect()
gc.freeze()

# shapes in the types of the pure modules are checked while tests run
install_import_hook("h2tune.functional", "beartype.beartype")


@pytest.fixture(autouse=True)
def _no_charts_outside_their_tests(request, monkeypatch):
    """Leave charts empty where a test runs a federation for another reason: drawing them takes a second."""
    if request.path.parent.name not in ("report", "e2e"):
        monkeypatch.setattr("vl_convert.vegalite_to_svg", lambda *_, **__: '<svg viewBox="0 0 1 1"/>')
