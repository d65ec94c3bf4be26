"""The child process of `h2tune.scoring.sandbox`: restricts itself, then runs a generated program.

An isolated interpreter runs it as a file (`python -P -s -S`), and it imports the standard library alone. The order
matters: modules first, then limits, then the system call filter, and the program's text last. After `lock` this process
can compute, allocate memory, read the clock, and write to its open pipes; any other system call, such as opening a
file, kills it. Its output is untrusted: `sandbox` validates it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import json
import os
import platform
import random
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

# Modules that a program may import: no others can be loaded once files cannot be opened.
MODULES = (
    *("__future__", "_strptime", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses"),
    *(
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "json",
        "math",
        "numbers",
    ),
    *("operator", "random", "re", "statistics", "string", "time", "typing"),
)

# Allowed system calls by machine: (audit architecture, numbers).
# write close mmap mprotect munmap brk rt_sigreturn sched_yield mremap madvise exit gettimeofday time futex
# restart_syscall clock_gettime clock_nanosleep exit_group getrandom; aarch64 has no `time`.
ALLOWED: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        (1, 3, 9, 10, 11, 12, 15, 24, 25, 28, 60, 96, 201, 202, 219, 228, 230, 231, 318),
    ),
    "aarch64": (
        0xC00000B7,
        (64, 57, 222, 226, 215, 214, 139, 124, 216, 233, 93, 169, 98, 128, 113, 115, 94, 278),
    ),
}
NOBODY = 65534
PROGRAM = "<program>"
# Audit events that are reported by name, where the kernel would kill the process.
FORBIDDEN_EVENTS = ("open", "os.", "socket.", "subprocess.", "ctypes.", "shutil.", "mmap.", "fcntl.", "pty.")


def limit(*, cpu_seconds: int, memory_bytes: int, files: int = 16) -> list[str]:
    """Set the resource limits of this process; return the names of those that could not be set."""
    try:
        import resource
    except ImportError:
        return ["CPU time", "memory", "file size", "processes"]
    missing = []
    for name, kind, soft, hard in (
        ("CPU time", "RLIMIT_CPU", cpu_seconds, cpu_seconds + 1),
        ("memory", "RLIMIT_AS", memory_bytes, memory_bytes),
        ("file size", "RLIMIT_FSIZE", 0, 0),
        ("processes", "RLIMIT_NPROC", 0, 0),
        ("core dumps", "RLIMIT_CORE", 0, 0),
        ("open files", "RLIMIT_NOFILE", files, files),
    ):
        try:
            resource.setrlimit(getattr(resource, kind), (soft, hard))
        except (AttributeError, OSError, ValueError):
            missing.append(name)
    return missing


def lock() -> list[str]:
    """Drop every privilege that computing does not need; return the names of those that could not be dropped.

    The system call filter is essential. In addition, where the kernel allows: a user other than root (limits on
    processes do not apply to root), an empty network namespace, and termination with the parent.
    """
    missing = ["files", "network", "processes"]
    if sys.platform != "linux" or platform.machine() not in ALLOWED:
        return missing
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.unshare(0x10000000 | 0x40000000 | 0x08000000)  # CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL; a change of user resets it, so it follows
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS, which an unprivileged filter needs
        return missing
    filters = ctypes.create_string_buffer(_filter(*ALLOWED[platform.machine()]))
    count = (len(filters) - 1) // 8
    program = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(filters)))
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        return missing
    return []


def _filter(architecture: int, numbers: tuple[int, ...]) -> bytes:
    """Return the BPF program that allows the system calls `numbers` and kills the process on any other."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    kill, allow = 0x80000000, 0x7FFF0000
    steps = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (jump_if_equal, 1, 0, architecture),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # seccomp_data.nr; the numbers of the x32 interface are all different
    ]
    for number in numbers:
        steps += [(jump_if_equal, 0, 1, number), (answer, 0, 0, allow)]
    steps.append((answer, 0, 0, kill))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def evaluate(text: str) -> dict[str, Any]:
    """Run the program and return {"answer": number or text} or {"reason": text}."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(text, PROGRAM, "exec"), namespace)  # noqa: S102 - the purpose of this confined process
        if "answer" not in namespace:
            return {"reason": "no variable named answer"}
        return {"answer": _plain(namespace["answer"])}
    except MemoryError:
        return {"reason": "memory"}
    except BaseException as error:  # a program can fail with SystemExit as well
        return {"reason": f"{type(error).__name__}: {error}"}


def _plain(value: Any) -> int | float | str:
    if type(value) in (int, float, str):
        return value
    if isinstance(value, bool):
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def main(settings: Mapping[str, Any]) -> NoReturn:
    """Read a program on standard input and write one JSON object on standard output.

    Args:
        settings: "cpu_seconds", "memory_bytes" and "allow_unconfined".
    """
    for module in MODULES:
        importlib.import_module(module)
    text = sys.stdin.buffer.read().decode()
    result = os.dup(1)
    os.dup2(2, 1)  # the parent counts what the program prints; only `result` carries the answer
    os.close(0)
    sys.stdin = None
    os.putenv("TZ", "UTC0")  # otherwise localtime reads a file
    time.tzset()

    def reply(message: dict[str, Any]) -> NoReturn:
        with contextlib.suppress(BaseException):
            os.write(result, json.dumps(message).encode())
        os._exit(0)

    def forbid(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[0] == PROGRAM:
            raise FileNotFoundError  # the compiler opens the file for the line of a syntax error
        if event.startswith(FORBIDDEN_EVENTS):
            reply({"reason": f"forbidden: {event}"})

    missing = limit(cpu_seconds=settings["cpu_seconds"], memory_bytes=settings["memory_bytes"]) + lock()
    if missing and not settings["allow_unconfined"]:
        reply({"unconfined": ", ".join(dict.fromkeys(missing))})
    sys.meta_path[:] = [importlib.machinery.BuiltinImporter]
    sys.argv = ["program"]
    random.seed(0)  # a score must be the same in every run
    sys.addaudithook(forbid)
    reply(evaluate(text))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
