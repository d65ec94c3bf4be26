"""A process that is killed when it has trained the second round, before anything of it is kept."""

import os
import signal


def die(module):
    run_round = module.run_round

    def dying(base, tokenizer, member, strategy, download, *rest, **named):
        outcome = run_round(base, tokenizer, member, strategy, download, *rest, **named)
        if download.round == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    module.run_round = dying


CHANGES = {"h2tune.federation.local_engine": die}
