"""Replaces itself by a command, which the kernel ends when the process that started it ends, even by SIGKILL.

    python -m h2tune.flower.deploy.child PARENT COMMAND …

PARENT is the process that must live. Linux only: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Run a command in this process, until it ends or the parent does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
