"""The equations of the method, each in one place, as functions of tensors; needs torch and nothing else.

Nothing is imported here, so that `quorum` and `roles` can be imported without torch.
"""
