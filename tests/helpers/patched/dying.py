"""A process that is killed when it has trained the second round, before anything of it is kept."""

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
