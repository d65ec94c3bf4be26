"""A SuperNode forks the process of each message from one that has imported torch and h2tune; Flower starts a new one.

It saves what an import takes, for each message of each member: most of a test's time.
"""

import os
import signal
import sys
from pathlib import Path

COMMAND = "flwr-clientapp"


def fork(module):
    """Fork the processes of a SuperNode's messages; those of a SuperLink start as they do."""
    launch = module.SubprocessExecutor.launch

    def forking(executor, spec):
        if module.TASK_TYPE_TO_COMMAND[spec.task_type] != COMMAND:
            return launch(executor, spec)
        from flwr.supernode.cli.flwr_clientapp import flwr_clientapp

        import h2tune.flower.member.app
        import h2tune.flower.member.handlers
        import h2tune.runs.results  # noqa: F401

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            Path("/proc/self/comm").write_text(COMMAND)
            sys.argv = [COMMAND, "--runtime-api-address", spec.runtime_api_address, "--token", spec.token]
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


CHANGES = {"flwr.supercore.superexec.executor.subprocess_executor": fork}
