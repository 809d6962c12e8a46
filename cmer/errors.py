"""Errors that a user can resolve."""


class UserError(Exception):
    """A mistake that the user can resolve; the command line shows its message without a traceback."""
