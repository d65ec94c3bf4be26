"""The equations of the method, each in one place: functions of tensors that need torch and nothing else.

Nothing is imported here, so that `quorum` can be used without torch.
"""
