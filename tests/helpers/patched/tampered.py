"""A member that sends altered updates: of a wrong shape, in another's name, of another round."""

import dataclasses


def tamper(module):
    take_part = module.take_part

    def tampered(*arguments):
        reply = take_part(*arguments)
        update = reply.update
        if update.round == 0:
            name = min(update.tensors)
            update = dataclasses.replace(
                update, tensors={**update.tensors, name: update.tensors[name][:, :-1]}
            )
        elif update.round == 1:
            update = dataclasses.replace(update, client="news")
        else:
            update = dataclasses.replace(update, round=update.round - 1)
        return dataclasses.replace(reply, update=update)

    module.take_part = tampered


CHANGES = {"h2tune.flower.member.handlers": tamper}
