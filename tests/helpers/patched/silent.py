"""A member that is lost in the second round: after it masked its values, and before it reveals its shares."""


def silence(module):
    handle = module.handle

    def silent(kind, path, settings, experiment, head):
        if kind == "reveal" and "|1|" in head["session"]:
            raise RuntimeError("lost after masking")
        return handle(kind, path, settings, experiment, head)

    module.handle = silent


CHANGES = {"h2tune.flower.member.secure": silence}
