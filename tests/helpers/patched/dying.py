"""A process that is killed after training in the second round, before its results are stored."""

import os
import signal


def die(module):
    run = module.ClientRound.run

    def dying(work, base, tokenizer):
        outcome = run(work, base, tokenizer)
        if work.download.round == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    module.ClientRound.run = dying


CHANGES = {"h2tune.federation.local_engine": die}
