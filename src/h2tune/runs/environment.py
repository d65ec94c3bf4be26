"""What a number depends on beside the settings: versions of libraries, threads, processor and devices."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from h2tune._version import __version__

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy")


def environment() -> dict[str, str]:
    """Return versions, number of threads, processor and devices, by name."""
    found = {"h2tune": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found |= {"system": platform.platform(), "processor": _processor()}
    found["threads"] = str(torch.get_num_threads())
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found | ({"devices": ", ".join(devices)} if devices else {})


def _processor() -> str:
    """Return the name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
