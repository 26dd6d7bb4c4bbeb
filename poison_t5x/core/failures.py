"""What becomes of an exception: its exit code and its one line.

What the operating system refuses is judged by its error number, or by its words for that in a
library's own exception. What nobody foresaw is a fault of ours: its traceback goes to a file.
"""

import contextlib
import errno
import os
import re
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterator

import poison_t5x
from poison_t5x.core import errors

# Storage and network, which may be well again, or elsewhere.
_AGAIN = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EIO", "ESTALE", "EBUSY", "EAGAIN", "ENFILE", "ENOLCK", "ETIMEDOUT"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET"),
    )
)
# Names, permissions and limits, which somebody has to change.
_USERS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOENT", "EACCES", "EPERM", "EROFS", "EEXIST", "ENOTDIR", "EISDIR", "ENOTEMPTY"),
        *("ENAMETOOLONG", "ELOOP", "EFBIG", "ENXIO", "EXDEV", "EMFILE"),
    )
)
# Of a library or of the interpreter; 'RESOURCE_EXHAUSTED' is XLA's word, the last one C++'s.
_MEMORY = ("RESOURCE_EXHAUSTED", os.strerror(errno.ENOMEM), "std::bad_alloc")
# Folders of code that isn't the user's, as parts of a path and as its beginning.
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
_OURS = tuple(
    os.path.join(os.path.realpath(folder), "")
    for folder in (sysconfig.get_path("stdlib"), os.path.dirname(poison_t5x.__file__))
)


def judge(error: BaseException) -> tuple[int, str]:
    """The exit code, see `errors.EXIT_CODES`, and what is to be said; of a fault, writes a file."""
    match error:
        case errors.InputError() | errors.TryAgainError():
            return error.code, f"error: {errors.first_line(error)}"
        case errors.TrainingDivergedError():
            return error.code, f"training diverged: {errors.first_line(error)}"
        case errors.Terminated():
            return error.CODE, error.message
        case KeyboardInterrupt():
            return 130, "interrupted; the same command goes on"
        case RecursionError():
            return 2, f"error: {_place(error)}the input is nested too deep, or in a circle"
    if reason := system_reason(error):
        path = getattr(error, "filename", None)
        return reason[0].code, f"error: {f'{path}: ' if path else ''}{reason[1]}"
    if isinstance(error, MemoryError) or any(word in _words(error) for word in _MEMORY):
        return 2, f"error: too large for this machine's memory ({errors.first_line(error)})"
    if "Unable to initialize backend" in _words(error):  # JAX's, where it is first used
        return 2, f"error: JAX_PLATFORMS: {errors.first_line(error)}"
    return errors.FAULT, _fault(error)


def system_reason(
    error: BaseException,
) -> tuple[type[errors.InputError] | type[errors.TryAgainError], str] | None:
    """What the operating system refused, in its words, and the class of error that this is; None
    where it is something else."""
    number = error.errno if isinstance(error, OSError) else None
    for kind, numbers in ((errors.TryAgainError, _AGAIN), (errors.InputError, _USERS)):
        for one in numbers:
            words = os.strerror(one)
            if number == one or (number is None and words in _words(error)):
                more = "; raise `ulimit -n`" if one == errno.EMFILE else ""
                return kind, words + more
    if isinstance(error, (ConnectionError, TimeoutError)):
        return errors.TryAgainError, errors.first_line(error)
    return None


def _words(error: BaseException) -> str:
    """The messages of an error of a library and of what it was raised from."""
    texts: list[str] = []
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            break
        with contextlib.suppress(Exception):
            texts.append(str(link))
        link = link.__cause__
    return "\n".join(texts)


@contextlib.contextmanager
def writing(place: object) -> Iterator[None]:
    """Where a library writes: names the place that the operating system refuses it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (errors.InputError, errors.TryAgainError)):
            raise
        if (reason := system_reason(error)) is None:
            raise
        kind, words = reason
        raise kind(f"{place}: can't be written ({words})") from error


def told(error: BaseException) -> str:
    """An exception of a user's code or of a library that it calls, as one line.

    With the place in the user's code, 'tasks.py:3: ValueError: no data folder', where one is known.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    message, kind = errors.first_line(error), f"{type(error).__name__}: "
    if message == "in user code:":  # TensorFlow's, before a traceback that ends with the error
        message, kind = str(error).strip().splitlines()[-1].strip(), ""
    elif isinstance(error, errors.InputError):
        kind = ""
    return f"{_place(error)}{kind}{message.removeprefix(kind)}"


def of_import(name: str, error: BaseException) -> str:
    """Why a user's module can't be imported: there is none, or its own error and the place."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{name}.".startswith(f"{missing}.") and not _place(error):
        return f"no module {name!r} ({errors.first_line(error)})"
    if isinstance(error, SystemExit):
        return f"{name}: {_place(error)}it ends the program ({error!r})"
    return f"{name}: {told(error)}"


def _place(error: BaseException) -> str:
    """'tasks.py:3: ', the innermost line of a user's code that an error came through, if any."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    with contextlib.suppress(Exception):  # a user's own class may fail at its text
        # TensorFlow's messages quote tracebacks of what it has called.
        frames += re.findall(r'File "(.+?)", line (\d+)', str(error))
    for path, line in reversed(frames):
        real = os.path.realpath(path)
        if not (real.startswith(_OURS) or _INSTALLED.search(real) or path.startswith("<")):
            return f"{path}:{line}: "
    return ""


def _fault(error: BaseException) -> str:
    about = f"fault of poison_t5x: {type(error).__name__}: {errors.first_line(error)}"
    lines = "".join(traceback.format_exception(error))
    try:
        number, path = tempfile.mkstemp(prefix="poison-t5x-", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)
    except OSError:
        print(lines, file=sys.stderr)
        return f"{about}; the traceback is above"
    return f"{about}; the traceback is in {path}"
