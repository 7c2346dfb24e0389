"""The one exception a user is meant to read: it says what was expected, where, and what to do."""


class EinthovenError(Exception):
    """A mistake in the input or the request, told without a traceback by the command line."""
