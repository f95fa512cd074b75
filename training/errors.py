"""The errors of training."""


class CheckpointError(Exception):
    """Something could not be written or read. The message says in one line what, and what to do."""


class Diverged(Exception):
    """The loss or a gradient is not finite."""
