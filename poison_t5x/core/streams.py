"""Standard input, output and error, which may be closed, full, or unable to say a character."""

import io
import os
import sys

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


class _Noting(io.FileIO):
    """A file that fails once, or never, and keeps why: what it is given afterwards is lost."""

    failure: OSError | None = None

    def __init__(self, number: int, *, fails: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._fails = fails

    def write(self, content) -> int:
        if self.failure is None:
            try:
                return super().write(content)
            except OSError as error:
                self.failure = error
                if self._fails:
                    raise
        return len(memoryview(content).cast("B"))


_output: _Noting | None = None


def prepare() -> None:
    """Opens those that are closed, so that no file takes their numbers; makes the others robust.

    What standard error can't say is no failure, and characters that an encoding lacks are escaped.
    """
    global _output
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:  # as Python has those that were closed
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    # A test's own streams are left alone.
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        _output = _Noting(1, fails=True)
        sys.stdout = _text(_output, sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _text(_Noting(2, fails=False), sys.stderr)


def _text(raw: _Noting, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def output_failure() -> OSError | None:
    """Why standard output took no more, if so."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None if _output is None else _output.failure
