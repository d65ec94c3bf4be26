"""Flower with shorter pauses, for soaks: what happens in a round is the same, and comes sooner.

| what | Flower, h2tune | here |
|---|---|---|
| a SuperNode looks for messages | every 3 s | every 0.5 s |
| a node's heartbeat, after two of which it is lost | 30 s | 15 s |
| a SuperNode looks for a task to start | every second | every 0.25 s |
| the process of a message | imports Flower and the app | is forked from one that has imported them |
| the coordinator looks for answers | every second | every 0.5 s |
"""

import os
import signal
import sys
import time
import types


def beat(module):
    module.HEARTBEAT_DEFAULT_INTERVAL = 15


def hurry(module):
    module.time = types.SimpleNamespace(**vars(time))
    module.time.sleep = lambda seconds: time.sleep(min(seconds, 0.5))


def poll(module):
    module.Messenger.__init__.__kwdefaults__["poll"] = 0.5


def fork(module):
    """Fork the processes of a SuperNode's messages; those of a SuperLink start as they do."""
    launch = module.SubprocessExecutor.launch

    def forking(executor, spec):
        command = module.TASK_TYPE_TO_COMMAND[spec.task_type]
        if command != "flwr-clientapp":
            return launch(executor, spec)
        from flwr.supernode.cli.flwr_clientapp import flwr_clientapp

        import h2tune.flower.member.app  # noqa: F401

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.argv = [command, "--runtime-api-address", spec.runtime_api_address, "--token", spec.token]
            sys.argv += ["--insecure"] if spec.insecure else []
            sys.argv += [] if spec.parent_pid is None else ["--parent-pid", str(spec.parent_pid)]
            try:
                flwr_clientapp()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
        return module.LaunchResult.accepted()

    module.SubprocessExecutor.launch = forking


os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.25")
CHANGES = {
    "flwr.supercore.heartbeat": beat,
    "flwr.supernode.fleet_http_connection": beat,
    "flwr.supernode.start_client_internal": hurry,
    "flwr.supercore.superexec.executor.subprocess_executor": fork,
    "h2tune.flower.coordinator.messenger": poll,
}
