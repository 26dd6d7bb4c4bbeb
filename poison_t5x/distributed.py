"""Many processes as one program: how they find each other, agree, and notice that one is gone.

JAX's own distributed service does the finding (`jax.distributed`: Cloud TPU, GKE, Slurm, Open MPI,
or an address). In a single process nothing here does anything, or asks anybody.
"""

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from poison_t5x import errors

# Seconds. A process says this often that it lives; one that hasn't for so long is gone.
BEAT, PATIENCE = 2.0, 20.0
# JAX's own watch ends a process from within, so that ours has to notice first.
_HEARTBEAT_TIMEOUT = 100
_START_TIMEOUT = 300
# The main process may still be sealing a large checkpoint when the others have written theirs.
_SEALING = 1800
# Waiting for a stage of another process has no end but that process's.
_NEVER = 7 * 24 * 3600 * 1000
# `sysexits.h`: a failure of the surroundings; the same command may be given again.
EXIT_CODE = 75


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """How the processes find each other.

    Attributes:
      coordinator_address: 'HOST:PORT' of process 0; None where it is detected.
      num_processes, process_id: of this program; None where they are detected.
      detect: ask the surroundings: Cloud TPU, GKE, Slurm, Open MPI.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    detect: bool = False

    def __post_init__(self):
        given = (self.coordinator_address, self.num_processes, self.process_id)
        if self.is_set and not self.detect and None in given:
            raise errors.InputError(
                "--coordinator_address, --num_processes and --process_id go together; or give "
                "--distributed alone where a Cloud TPU, GKE, Slurm or Open MPI tells them"
            )
        if self.coordinator_address is not None:
            host, _, port = self.coordinator_address.rpartition(":")
            if not host or not port.isdigit():
                raise errors.InputError(
                    f"--coordinator_address: expected HOST:PORT, found {self.coordinator_address!r}"
                )
        number, total = self.process_id, self.num_processes
        if number is not None and total is not None and not 0 <= number < total:
            raise errors.InputError(
                f"--process_id: expected 0 to {total - 1}, of --num_processes={total}, found "
                f"{number}"
            )

    @property
    def is_set(self) -> bool:
        """Whether there is more than this process, as far as is known."""
        given = (self.coordinator_address, self.num_processes, self.process_id)
        return self.detect or any(value is not None for value in given)


def initialize(config: ClusterConfig) -> None:
    """Joins the other processes, where `config` says that there are any.

    To be called before JAX has looked for devices.

    Raises:
      InputError: nothing is detected, or the other processes can't be reached.
    """
    if not config.is_set:
        return
    # It would take SIGTERM from us; `train_loop.Votes` is what we agree by.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            config.coordinator_address,
            config.num_processes,
            config.process_id,
            # Otherwise JAX asks its surroundings for what isn't given: the local devices.
            cluster_detection_method=None if config.detect else "deactivate",
            initialization_timeout=_START_TIMEOUT,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError, OSError) as error:
        if config.detect and isinstance(error, ValueError):
            raise errors.InputError(
                "--distributed: no Cloud TPU, GKE, Slurm or Open MPI is detected here; give "
                "--coordinator_address=HOST:PORT --num_processes=N --process_id=I"
            ) from None
        reason = str(error).strip().splitlines()[0]
        raise errors.InputError(f"the other processes can't be joined: {reason}") from None
    if num_processes() > 1:
        _say_last_words()
        _Watch().start()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _last_words(number: int) -> None:
    _end(None, "")


def _say_last_words() -> None:
    """Has our line follow JAX's where the service in process 0 is gone, and JAX aborts.

    The signal comes in a thread of C++, where Python's own handlers don't run.
    """
    ctypes.CDLL(None).signal(ctypes.c_int(signal.SIGABRT), _last_words)


def _client():
    return jax._src.distributed.global_state.client


def num_processes() -> int:
    """Processes of this program, without looking for devices."""
    return jax._src.distributed.global_state.num_processes if _client() else 1


def process_id() -> int:
    """This process's number, from 0."""
    return jax._src.distributed.global_state.process_id


def is_main() -> bool:
    """Whether this process writes, for all, and speaks."""
    return process_id() == 0


@functools.cache
def _numbers() -> Iterator[int]:
    return iter(range(sys.maxsize))


def _name(what: str) -> str:
    # All processes come by the same places in the same order.
    return f"poison_t5x/{what}/{next(_numbers())}"


def barrier() -> None:
    """Waits until all processes are here."""
    if num_processes() > 1:
        _client().wait_at_barrier(_name("barrier"), _NEVER)


def from_main(make: Callable[[], Any]) -> Any:
    """What `make` gives in the main process, in all; others wait for it.

    Args:
      make: called in the main process alone; gives what JSON can hold.
    """
    if num_processes() == 1:
        return make()
    key = _name("value")
    if is_main():
        value = make()
        _client().key_value_set(key, json.dumps(value))
        return value
    return json.loads(_client().blocking_key_value_get(key, _NEVER))


def main_first(make: Callable[[], Any]) -> None:
    """Calls `make` in the main process; the others wait until it is through."""
    from_main(lambda: make() and None)


def to_host(array: jax.Array) -> np.ndarray:
    """An array of the mesh, on every host; all processes call it."""
    if num_processes() == 1 or array.is_fully_addressable or array.is_fully_replicated:
        return jax.device_get(array)
    return multihost_utils.process_allgather(array, tiled=True)


def leave(code: int, reason: str, together: bool = False) -> None:
    """Ends this process at once, having told the others why; in a single process, nothing.

    JAX would wait at the interpreter's end for processes that wait for this one.

    Args:
      together: the others end for the same reason, and are waited for a little.
    """
    if num_processes() == 1:
        return
    with contextlib.suppress(Exception):
        if together:
            _client().wait_at_barrier("poison_t5x/together", _SEALING * 1000)
        else:
            key = f"poison_t5x/left/{process_id()}"
            _client().key_value_set(key, reason, allow_overwrite=True)
        # The service, which they ask, is in this process.
        time.sleep(2 * BEAT if is_main() else 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Watch(threading.Thread):
    """Says that this process lives, and ends it when another one doesn't any more.

    A collective that waits for a process that is gone can't be interrupted: hence a thread, and an
    end without ceremony. What is saved is whole or doesn't count.
    """

    def __init__(self):
        super().__init__(daemon=True, name="watch")
        self._seen: dict[int, tuple[str | None, float]] = {}

    def run(self) -> None:
        count, last_answer = 0, time.monotonic()
        others = [number for number in range(num_processes()) if number != process_id()]
        while True:
            count += 1
            try:
                client = _client()
                if client is None:  # the program ends
                    return
                client.key_value_set(f"poison_t5x/beat/{process_id()}", str(count), True)
                for number in others:
                    self._check(client, number)
                last_answer = time.monotonic()
            except Exception:  # what the service raises when it is gone isn't public
                if _client() is None:
                    return
                if time.monotonic() - last_answer > PATIENCE / 2:
                    _end(0, "")
            time.sleep(BEAT)

    def _check(self, client, number: int) -> None:
        if reason := _get(client, f"poison_t5x/left/{number}"):
            _end(number, reason)
        beat = _get(client, f"poison_t5x/beat/{number}")
        now = time.monotonic()
        before, since = self._seen.get(number, (None, now))
        if beat != before:
            since = now
        self._seen[number] = beat, since
        if now - since > PATIENCE:
            _end(number, "")


def _get(client, key: str) -> str | None:
    try:
        return client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


# What is at stake, for the last line: set by what is under way.
_status = {"text": "", "said": ""}


def set_status(text: str) -> None:
    """What is to be said of the work if another process is gone: 'at step 7, …'."""
    _status["text"] = text


def gone(number: int | None, reason: str = "") -> str:
    """The one line about a process that is gone."""
    _status["said"] = "yes"
    who = "another process" if number is None else f"process {number}"
    why = f" ({reason})" if reason else ""
    status = f" {_status['text']};" if _status["text"] else ""
    return (
        f"process {process_id()} of {num_processes()} stops: {who} is gone or can't be "
        f"reached{why};{status} the same command on all processes goes on"
    )


def _end(number: int | None, reason: str) -> None:
    if not _status["said"]:
        os.write(2, f"\npoison-t5x: {gone(number, reason)}\n".encode())
    os._exit(EXIT_CODE)
