"""The one exception a user is meant to read: it says what was expected, where, and what to do."""


class EinthovenError(Exception):
    """A mistake in the input or the request, told without a traceback by the command line."""


def told(error: Exception) -> str | None:
    """What a user reads of an error; None of one that is a mistake of ours."""
    if isinstance(error, EinthovenError):
        return str(error)
    if short_of_space(error):
        return f"{error}. Free some space and repeat: what was completed is kept."
    if isinstance(error, OSError):
        return str(error)
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in NO_MEMORY):
        return "there is not enough memory. What was completed is kept: repeat with more, or with a smaller batch."
    return None


NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc", "can't start new thread", "could not create a primitive")
"""In the words of libraries; the last is oneDNN's."""


def short_of_space(error: Exception) -> bool:
    """Whether an error, of whatever library, is of a disk that is full. PyTorch only says what it could not finish."""
    words = ("No space left on device", "Disk quota exceeded", "File too large", "unexpected pos", "file write failed")
    return any(word in str(error) for word in words)
