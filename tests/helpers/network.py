"""Machines of a federation as network namespaces: an address for each, and a slow and lossy wire to each.

A wire is two TAP devices and a thread between them, which delays and drops frames. `tc netem` does the same, but many
kernels lack it.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

from helpers import deployment

PREFIX = "10.213.77"
"""Prefix of the addresses, which exist in the namespaces only."""
HUB = f"{PREFIX}.1"
TUNSETIFF, TAP, NO_INFORMATION = 0x400454CA, 0x0002, 0x1000


class Unavailable(Exception):
    """The machine has no namespaces, no bridge, or no TAP devices."""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def tap(name: str, namespace: str) -> int:
    """Create a TAP device in a namespace and return its descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_INFORMATION))
        ip("link", "set", name, "netns", namespace)
    except (OSError, Unavailable) as error:
        os.close(descriptor)
        raise Unavailable(f"TAP device: {error}") from None
    return descriptor


class Wire:
    """Carries frames between two descriptors, delayed by `delay` seconds each way, and drops a fraction of them."""

    def __init__(self, ends: tuple[int, int], delay: float, loss: float, seed: int) -> None:
        self.ends, self.delay, self.loss, self.draw = ends, delay, loss, random.Random(seed)
        self.carried = self.dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        other = {self.ends[0]: self.ends[1], self.ends[1]: self.ends[0]}
        late: list[tuple[float, int, int, bytes]] = []
        while not self._stop.is_set():
            wait = min(0.2, max(0.0, late[0][0] - time.monotonic())) if late else 0.2
            for end in select.select(self.ends, [], [], wait)[0]:
                with contextlib.suppress(OSError):  # EIO while the device is down
                    frame = os.read(end, 2**16)
                    self.carried += 1
                    if self.draw.random() < self.loss:
                        self.dropped += 1
                    else:
                        heapq.heappush(late, (time.monotonic() + self.delay, self.carried, other[end], frame))
            while late and late[0][0] <= time.monotonic():
                *_, end, frame = heapq.heappop(late)
                with contextlib.suppress(OSError):
                    os.write(end, frame)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for end in self.ends:
            os.close(end)


class Network:
    """Namespaces of a coordinator ("hub") and of members, each on a wire of its own to the hub's bridge.

    Args:
        members: Their names.
        delay: Seconds of delay of a frame, each way.
        loss: Fraction of the frames that are lost, each way.
    """

    def __init__(self, members: Sequence[str], delay: float, loss: float) -> None:
        self.members, self.delay, self.loss = members, delay, loss
        self.wires: list[Wire] = []

    def namespace(self, party: str) -> str:
        return f"h2tune-{os.getpid()}-{party}"

    def device(self, member: str, end: str) -> str:
        return f"h2t{os.getpid()}{end}{self.members.index(member)}"

    def make(self) -> None:
        """Create namespaces, bridge and wires.

        Raises:
            Unavailable: Something is missing; call `remove` for what was created before.
        """
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise Unavailable("needs root and the command ip (apt install iproute2)")
        hub = self.namespace("hub")
        for party in ("hub", *self.members):
            ip("netns", "add", self.namespace(party))
            ip("-n", self.namespace(party), "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "addr", "add", f"{HUB}/24", "dev", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, member in enumerate(self.members):
            own = self.namespace(member)
            near, far = self.device(member, "n"), self.device(member, "f")
            ends = tap(near, own), tap(far, hub)
            self.wires.append(Wire(ends, self.delay, self.loss, number))
            ip("-n", hub, "link", "set", far, "master", "bridge", "up")
            ip("-n", own, "addr", "add", f"{PREFIX}.{number + 2}/24", "dev", near)
            ip("-n", own, "link", "set", near, "up")

    def cut(self, member: str, down: bool = True) -> None:
        """Disconnect a member, or connect it again."""
        device = self.device(member, "n")
        ip("-n", self.namespace(member), "link", "set", device, "down" if down else "up")

    def remove(self) -> None:
        for wire in self.wires:
            wire.close()
        for party in ("hub", *self.members):
            with contextlib.suppress(Unavailable):
                ip("netns", "del", self.namespace(party))


@contextlib.contextmanager
def network(members: Sequence[str], *, delay: float, loss: float) -> Iterator[Network]:
    """Yield a network that is removed after the block."""
    net = Network(members, delay, loss)
    try:
        net.make()
        yield net
    finally:
        net.remove()


def spread(net: Network) -> type[deployment.Deployment]:
    """Return a class of deployments whose parties run in a network's namespaces."""

    class Spread(deployment.Deployment):
        host = HUB

        def place(self, name: str) -> list[str]:
            party = name if name in net.members else "hub"
            return ["ip", "netns", "exec", net.namespace(party)]

        def listening(self, port: int) -> bool:
            look = [*self.place("hub"), "bash", "-c", f"</dev/tcp/127.0.0.1/{port}"]
            return subprocess.run(look, capture_output=True, check=False).returncode == 0

    return Spread
