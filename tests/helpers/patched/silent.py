"""A member that is lost in the second round: after it masked its values, and before it reveals its shares."""


def silence(module):
    answer = module.answer

    def silent(kind, path, settings, experiment, head):
        if kind == "reveal" and "|1|" in head["session"]:
            raise RuntimeError("lost after masking")
        return answer(kind, path, settings, experiment, head)

    module.answer = silent


CHANGES = {"h2tune.flower.member.handlers": silence}
