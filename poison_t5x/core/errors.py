"""The one exception for input that a person can mend."""


class InputError(ValueError):
    """Bad input or settings: one line that names the object, what was expected, and what to do.

    The command line prints it and exits with code 2; library callers may catch it as ValueError.
    """


class InputWarning(UserWarning):
    """Something in the input that a person should know of; work goes on."""


def nearest(name: str, known) -> str:
    """A hint ' (did you mean …?)' with the known name closest to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_line(error: BaseException) -> str:
    """An error's message, without the lines that gin adds about the calls that it came through."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class TrainingDivergedError(ArithmeticError):
    """The loss or the gradient is no longer finite. The command line exits with code 1."""


class Terminated(SystemExit):
    """SIGTERM was obeyed: what was done is saved. Exit code 143, as schedulers expect of it."""

    CODE = 143

    def __init__(self, message: str):
        super().__init__(self.CODE)
        self.message = message
