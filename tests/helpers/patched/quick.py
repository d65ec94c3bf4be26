"""Flower with shorter pauses, for soaks: what happens in a round is the same, and comes sooner.

| what | Flower, h2tune | here |
|---|---|---|
| a SuperNode looks for messages | every 3 s | every 0.5 s |
| a node's heartbeat, after two of which it is lost | 30 s | 15 s |
| a SuperNode looks for a task to start | every second | every 0.25 s |
| the coordinator looks for answers | every second | every 0.5 s |
"""

import os
import time
import types


def beat(module):
    module.HEARTBEAT_DEFAULT_INTERVAL = 15


def hurry(module):
    module.time = types.SimpleNamespace(**vars(time))
    module.time.sleep = lambda seconds: time.sleep(min(seconds, 0.5))


def poll(module):
    module.Messenger.__init__.__kwdefaults__["poll"] = 0.5


os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.25")
CHANGES = {
    "flwr.supercore.heartbeat": beat,
    "flwr.supernode.fleet_http_connection": beat,
    "flwr.supernode.start_client_internal": hurry,
    "h2tune.flower.coordinator.messenger": poll,
}
