"""What `flower.py` changes in the processes it starts: no training and no scoring; times of every step are noted.

Read by tests/helpers/patched/sitecustomize.py; h2tune itself has no such option.
"""

import json
import os
import sys
import time
from pathlib import Path


def note(**facts):
    """Add a line to the file of times; short appends are atomic."""
    with Path(os.environ["TIMES"]).open("a") as stream:
        stream.write(json.dumps({"time": time.time(), **facts}) + "\n")


def process_start():
    """Return when this process was started, in seconds since the epoch."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def stub(module):
    """Train nothing: set what is shared to noise, so that updates are as full as after training; score nothing."""
    from h2tune.evaluation.result import Score
    from h2tune.training.trainer import Record

    def train(work, adapted, *_):
        import torch

        with torch.no_grad():
            for parameter in adapted.phases()["shared"].values():
                parameter.normal_(std=0.01)
        return Record()

    module.ClientRound._train = train
    module.ClientRound._evaluate = lambda *_: Score(0.0, 0.0, 1)


def watch_member(module):
    """Record when a client's process started, had imported its libraries, and had its answer ready."""
    take_part = module.take_part

    def watched(path, request, *rest):
        facts = {"client": request.client, "round": request.round}
        warm = "worker" in sys.argv  # was started long before, and has all libraries
        before = time.process_time() if warm else 0.0
        note(what="imported", started=time.time() if warm else process_start(), **facts)
        reply = take_part(path, request, *rest)
        note(what="ready", processor=time.process_time() - before, **facts)
        return reply

    module.take_part = watched


def watch_coordinator(module):
    """Note when a message was handed to Flower and when its answer was taken from it."""
    channel = module.GridChannel
    message_of, read = channel._message, channel.read

    def sent(self, client, down, *rest):
        note(what="sent", client=client, round=down.round)
        return message_of(self, client, down, *rest)

    def answered(self, client, round_number, *rest):
        note(what="answered", client=client, round=round_number)
        return read(self, client, round_number, *rest)

    channel._message, channel.read = sent, answered


CHANGES = {
    "h2tune.federation.client_round": stub,
    "h2tune.flower.member.handlers": watch_member,
    "h2tune.flower.coordinator.channel": watch_coordinator,
}
