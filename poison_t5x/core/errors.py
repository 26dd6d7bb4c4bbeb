"""What ends a command: each kind of failure has one class, one exit code, and one line.

`EXIT_CODES` is the table that `--help` and the README show.
"""

EXIT_CODES = {
    0: "done",
    1: "the answer is no: training diverged, a scan's alarm, a study's failed cell, doctor's "
    "finding",
    2: "bad input or settings",
    70: "a fault of poison_t5x: the line names a file with the traceback",
    75: "try again: the folder is another command's, storage or network fail, a process is gone",
    130: "interrupted (SIGINT); the same command goes on",
    141: "the reader of the output is gone (SIGPIPE)",
    143: "stopped (SIGTERM); the same command goes on",
}
FAULT = 70


class InputError(ValueError):
    """Bad input or settings: one line that names the object, what was expected, and what to do.

    The command line prints it and exits with code 2; library callers may catch it as ValueError.
    """

    code = 2


class TryAgainError(RuntimeError):
    """Nothing is wrong with the input: the same command may do later, or elsewhere."""

    code = 75


class BusyError(TryAgainError):
    """Another process is at work in the folder."""


class TrainingDivergedError(ArithmeticError):
    """The loss or the gradient is no longer finite."""

    code = 1


class Terminated(SystemExit):
    """SIGTERM was obeyed: what was done is saved. Exit code 143, as schedulers expect of it."""

    CODE = 143

    def __init__(self, message: str):
        super().__init__(self.CODE)
        self.message = message


class InputWarning(UserWarning):
    """Something in the input that a person should know of; work goes on."""


def nearest(name: str, known) -> str:
    """A hint ' (did you mean …?)' with the known name closest to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_line(error: BaseException) -> str:
    """An error's message, without the lines that gin adds about the calls that it came through."""
    try:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    except Exception:  # a user's own class may fail at this
        return type(error).__name__
