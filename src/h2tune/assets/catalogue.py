"""The table of demo assets: models, then texts; `asset.py` describes its columns."""

from __future__ import annotations

from h2tune.assets.asset import Asset, Package
from h2tune.assets.model_rows import MODELS
from h2tune.assets.text_rows import DATASETS

__all__ = ["DATASETS", "MODELS", "PREFIX", "Asset", "Package"]

PREFIX = "pypi:"
