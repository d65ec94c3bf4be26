"""The table of demo assets: models, then texts; what a row says is in `asset.py`."""

from __future__ import annotations

from h2tune.assets.asset import Asset, Package
from h2tune.assets.model_rows import MODELS
from h2tune.assets.text_rows import DATASETS

__all__ = ["DATASETS", "MODELS", "PREFIX", "Asset", "Package"]

PREFIX = "pypi:"
