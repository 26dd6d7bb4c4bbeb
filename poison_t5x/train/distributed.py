"""Many processes as one program: how they find each other, agree, and notice that one is gone.

JAX's own distributed service does the finding (`jax.distributed`: Cloud TPU, GKE, Slurm, Open MPI,
or an address). In a single process nothing here does anything, or asks anybody.
"""

import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from poison_t5x.core import artifacts, errors, locks, settings

# Seconds. A process says this often that it lives; one that hasn't for so long is gone. A library
# that is read from a cold disk may hold Python's lock for some.
BEAT, PATIENCE = 2.0, 30.0
# JAX's own watch ends a process from within, so that ours has to notice first.
_HEARTBEAT_TIMEOUT = 100
_START_TIMEOUT = 300
# Where all stop for the same reason, they have come to the same step.
_STOP_TIMEOUT = 60
# Waiting for a stage of another process has no end but that process's.
_NEVER = 7 * 24 * 3600 * 1000
# `sysexits.h`: a failure of the surroundings; the same command may be given again.
EXIT_CODE = 75
# Where processes say that they live, and why they left: a key each.
_BEATS, _LEFT = "poison_t5x/beat/", "poison_t5x/left/"


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    detect: bool = False,
) -> None:
    """Joins the other processes, if any are told of; before JAX has looked for devices.

    `detect` asks the surroundings for what is None: Cloud TPU, GKE, Slurm, Open MPI. Raises
    InputError where the arguments don't go together, or nothing is detected, or reached.
    """
    given = coordinator_address, num_processes, process_id
    if not detect and given == (None, None, None):
        return
    _check(*given, detect)
    # It would take SIGTERM from us; `loop.Votes` is how we agree.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given,
            # Otherwise JAX asks its surroundings for what isn't given: the local devices.
            cluster_detection_method=None if detect else "deactivate",
            initialization_timeout=_START_TIMEOUT,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError, OSError) as error:
        if detect and isinstance(error, ValueError):
            raise errors.InputError(
                "--distributed: no Cloud TPU, GKE, Slurm or Open MPI is detected here; give "
                "--coordinator_address=HOST:PORT --num_processes=N --process_id=I"
            ) from None
        reason = errors.first_line(error)
        raise errors.InputError(f"the other processes can't be joined: {reason}") from None
    if _joined().num_processes > 1:
        # JAX aborts in a thread of C++, where Python's own handlers don't run, once the service in
        # process 0 is gone; our line is to follow its lines.
        ctypes.CDLL(None).signal(ctypes.c_int(signal.SIGABRT), _on_abort)
        HeartbeatMonitor().start()


def _check(address: str | None, total: int | None, number: int | None, detect: bool) -> None:
    if not detect and None in (address, total, number):
        raise errors.InputError(
            "--coordinator_address, --num_processes and --process_id go together; or give "
            "--distributed alone where a Cloud TPU, GKE, Slurm or Open MPI tells them"
        )
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise errors.InputError(f"--coordinator_address: expected HOST:PORT, found {address!r}")
    if total is not None:
        settings.checked("--num_processes", total, settings.Count)
        if number is not None and not 0 <= number < total:
            raise errors.InputError(
                f"--process_id: expected 0 to {total - 1}, below --num_processes, found {number}"
            )


def _joined():
    """JAX's own knowledge of the processes, whose key-value store has no public name in JAX 0.10.

    The public broadcasts are collectives: not for a second thread, and silent on who is gone.
    """
    return jax._src.distributed.global_state


def num_processes() -> int:
    """Processes of this program, without looking for devices."""
    return _joined().num_processes if jax.distributed.is_initialized() else 1


def process_id() -> int:
    """This process's number, from 0."""
    return _joined().process_id


def is_main() -> bool:
    """Whether this process writes, for all, and speaks."""
    return process_id() == 0


def who() -> str:
    """This process among others; nothing in a single one."""
    return f"process {process_id()} of {num_processes()}" if num_processes() > 1 else ""


# All processes come by the same places in the same order, so that a number names a place.
_places = itertools.count()


def barrier() -> None:
    """Waits until all processes are here."""
    if num_processes() > 1:
        _joined().client.wait_at_barrier(f"poison_t5x/barrier/{next(_places)}", _NEVER)


def broadcast_from_main(make: Callable[[], Any], name: str | None = None) -> Any:
    """The value, which JSON can hold, that `make` gives in the main process; others wait for it.

    A thread, whose calls come in another order in each process, gives a `name`, unique for ever.
    """
    if num_processes() == 1:
        return make()
    key = f"poison_t5x/value/{next(_places) if name is None else name}"
    if is_main():
        value = make()
        _joined().client.key_value_set(key, json.dumps(value))
        return value
    return json.loads(_joined().client.blocking_key_value_get(key, _NEVER))


def run_on_main(make: Callable[[], Any]) -> None:
    """Calls `make` in the main process; the others wait until it is through."""
    broadcast_from_main(lambda: make() and None)


@contextlib.contextmanager
def alone(folder: artifacts.AnyPath) -> Iterator[None]:
    """`locks.alone` for all processes of a program, by the main one."""
    with contextlib.ExitStack() as stack:
        run_on_main(lambda: stack.enter_context(locks.alone(folder)))
        yield


def run_stage(
    directory: artifacts.AnyPath,
    name: str,
    settings: Mapping[str, Any],
    make: Callable[[epath.Path], None],
    log: Callable[[str], None],
) -> None:
    """`artifacts.run_stage` where all processes `make` in the same folder, once it is there, and
    only the main one writes; what a killed attempt left in it is kept."""
    is_there = broadcast_from_main(lambda: artifacts.read_record(directory) is not None)

    def begin(folder: epath.Path) -> None:
        broadcast_from_main(lambda: str(folder))
        make(folder)

    if is_main():
        artifacts.run_stage(directory, name, settings, begin, log=log, keep_partial=True)
    elif not is_there:
        make(epath.Path(broadcast_from_main(lambda: None)))
    barrier()


def to_host(array: jax.Array) -> np.ndarray:
    """An array of the mesh, on every host; all processes call it."""
    if num_processes() == 1 or array.is_fully_addressable or array.is_fully_replicated:
        return jax.device_get(array)
    return multihost_utils.process_allgather(array, tiled=True)


def leave(code: int, reason: str, together: bool = False) -> None:
    """Ends this process at once, having told the others why, who take the code over, or, where all
    end for the same reason (`together`), waited for them a little.

    JAX would wait at the interpreter's end for processes that wait for this one.
    """
    if num_processes() == 1:
        return
    with contextlib.suppress(Exception):
        if together:
            _joined().client.wait_at_barrier("poison_t5x/together", _STOP_TIMEOUT * 1000)
        else:
            _joined().client.key_value_set(f"{_LEFT}{process_id()}", f"{code} {reason}", True)
        # The service, which they ask, is in this process.
        time.sleep(2 * BEAT if is_main() else 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def await_verdict() -> None:
    """Time for the watch to end this process: a collective's error doesn't say whose it is."""
    if num_processes() > 1:
        time.sleep(PATIENCE + 3 * BEAT)


class HeartbeatMonitor(threading.Thread):
    """Says that this process lives, and ends it when another one doesn't any more.

    A collective that waits for a process that is gone can't be interrupted: hence a thread, and an
    end without ceremony. JAX's own heartbeat ends a process too, but by SIGABRT, without saying
    what is at stake or what the other one's reason was.
    """

    def __init__(self):
        super().__init__(daemon=True, name="heartbeat")
        self._seen: dict[int, tuple[str | None, float]] = {}

    def run(self) -> None:
        last_answer = time.monotonic()
        for count in itertools.count():
            client = _joined().client
            if client is None:  # the program ends
                return
            try:
                client.key_value_set(f"{_BEATS}{process_id()}", str(count), True)
                # One question for all processes.
                answers = (client.key_value_dir_get(of) for of in (_LEFT, _BEATS))
                self._look(*({int(key.rpartition("/")[2]): v for key, v in a} for a in answers))
                last_answer = time.monotonic()
            except Exception:  # what the service raises when it is gone isn't public
                if _joined().client and time.monotonic() - last_answer > PATIENCE / 2:
                    _end("process 0", "")
            time.sleep(BEAT)

    def _look(self, left: Mapping[int, str], beats: Mapping[int, str]) -> None:
        for number in {*range(num_processes())} - {process_id()}:
            if number in left:
                code, _, reason = left[number].partition(" ")
                _end(f"process {number}", reason, int(code))
            beat, now = beats.get(number), time.monotonic()
            before, since = self._seen.get(number, (beat, now))
            self._seen[number] = beat, since if beat == before else now
            if now - self._seen[number][1] > PATIENCE:
                _end(f"process {number}", "")


_status = ""


def set_status(text: str) -> None:
    """Has the last line, if another process is gone, say this: 'training was at step 7, …'."""
    global _status
    _status = text


_ending = threading.Lock()


def _end(other: str, reason: str, code: int = EXIT_CODE) -> None:
    """Ends this process with one line about another one that is gone."""
    _ending.acquire()  # whoever comes second waits for the end
    why = f" ({reason})" if reason else ""
    line = f"{who()} stops: {other} is gone or can't be reached{why}"
    if _status:
        line += f"; {_status}"
    if code == EXIT_CODE or code > 128:
        line += "; the same command on all processes goes on"
    os.write(2, f"\npoison-t5x: {line}\n".encode())
    os._exit(code)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    _end("another process", "see the lines above")
