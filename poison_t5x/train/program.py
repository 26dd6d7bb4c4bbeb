"""A program around the stages: its flags, quiet libraries, processes that are one, an exit code.

What takes time to import is imported when it is needed, so that `--help` is fast.
"""

import argparse
import contextlib
import ctypes
import functools
import logging
import os
import pathlib
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from poison_t5x.core import errors, failures, streams

_RUN_FILE = "runs/run.gin"
_DISTRIBUTED = "POISON_T5X_DISTRIBUTED"  # the environment's word for --distributed, if it is 1
# M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX of glibc's malloc.h: no block is mapped by itself,
# nothing is trimmed, one arena for all.
_MALLOC_SETTINGS = {-4: 0, -1: -1, -8: 1}
_CLUSTER = ("coordinator_address", "num_processes", "process_id")


def add_gin_flags(parser: argparse.ArgumentParser) -> None:
    """Adds T5X's flags."""
    add = parser.add_argument_group("gin flags, as in T5X").add_argument
    about = (
        "may be repeated, later ones win; found in the working directory, the search paths and the "
        "project's own gin folder"
    )
    add("--gin_file", action="append", default=[], metavar="FILE", help=about)
    about = "more folders, separated by commas"
    add("--gin_search_paths", default="", metavar="DIRS", help=about)
    about = (
        "sets a macro (`poison-t5x config` has all) or a parameter; a plain string needs no quotes"
    )
    # Taken out of the arguments before argparse sees them, see `split_bindings`.
    add("--gin.NAME=VALUE", action="store_true", dest="bindings", help=about)


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Adds how the processes of a run find each other."""
    add = parser.add_argument_group("many processes, each with the same command").add_argument
    about = "this is one process of many, which a Cloud TPU, GKE, Slurm or Open MPI tells of; "
    add("--distributed", action="store_true", help=f"{about}{_DISTRIBUTED}=1 says so too")
    add("--coordinator_address", metavar="HOST:PORT", help="of process 0")
    add("--num_processes", type=int, metavar="N")
    add("--process_id", type=int, metavar="I", help="of this process, from 0")


def split_bindings(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes the `--gin.NAME=VALUE` (or `--gin.NAME VALUE`) flags out of the arguments."""
    rest: list[str] = []
    bindings: list[tuple[str, str]] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--gin_bindings":  # gin's own word for it
            argument += f"={next(waiting, '')}"
        argument = argument.replace("--gin_bindings=", "--gin.", 1)
        if not argument.startswith("--gin."):
            rest.append(argument)
            continue
        name, equals, value = argument.removeprefix("--gin.").partition("=")
        value = value if equals else next(waiting, "")
        if not name or not value:
            raise errors.InputError(f"{argument}: expected --gin.NAME=VALUE")
        bindings.append((name.strip(), value.strip()))
    return rest, bindings


def parse_arguments(parser, arguments: Sequence[str]) -> argparse.Namespace:
    """argparse's, with `arguments`, all of them, and `bindings`, the gin flags' (name, value)."""
    rest, bindings = split_bindings(arguments)
    options = parser.parse_args(rest)
    options.arguments, options.bindings = list(arguments), bindings
    return options


def has_gin(options: argparse.Namespace) -> bool:
    """Whether any gin file or flag is given."""
    return bool(options.gin_file or options.bindings)


def read_macros(options: argparse.Namespace, *required: str, instead: str | None = None):
    """The `gin_macros.Macros` of the flags, within a moment. Raises InputError as they do."""
    from poison_t5x.core import gin_macros, settings

    macros = gin_macros.read(*_gin_arguments(options))
    macros.require(*required, instead=instead)
    for name in ("RUN_DIR", "MODEL_DIR"):
        settings.checked(name, macros.get_value(name), settings.Folder | None)
    return macros


def parse_gin(options: argparse.Namespace, *required: str, instead: str | None = None) -> None:
    """Has gin parse the flags, and imports the user's module; what is cheap to refuse is first."""
    read_macros(options, *required, instead=instead)
    import_tensorflow()
    from poison_t5x.core import gin_config
    from poison_t5x.corpus import declarations

    gin_config.parse(*_gin_arguments(options))
    declarations.import_module(gin_config.macro("MIXTURE_OR_TASK_MODULE"))


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step, rather than give it back to the system.

    On a CPU, XLA allocates a step's buffers anew each time: by default every one is mapped, zeroed
    page by page and unmapped again, which was a third of the time of a small network's steps. The
    price is memory, some hundred MB in such a run. Call it before jax computes; on other systems
    than Linux it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)


def start(options: argparse.Namespace, *required: str, instead: str | None = None) -> None:
    """Makes this process ready to compute: one of many where the flags say so, gin parsed."""
    keep_freed_memory()
    check_xla_flags(os.environ.get("XLA_FLAGS", ""))
    _join_processes(options)
    parse_gin(options, *required, instead=instead)
    from poison_t5x.core import gin_config, settings

    name = "COMPILATION_CACHE_DIR"
    directory = settings.checked(name, gin_config.macro(name), settings.Source | None)
    if directory is not None:
        _use_compilation_cache(directory)


@functools.cache
def check_xla_flags(flags: str) -> None:
    """Raises InputError where XLA doesn't know one of its flags, for which it ends a process.

    So they are tried in another one, for a third of a second, and only where there are any.
    """
    if not flags.strip():
        return
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"},
    )
    if done.returncode and "parse_flags_from_env" in done.stderr:
        first, *_ = done.stderr.splitlines()
        raise errors.InputError(f"XLA_FLAGS: {first.partition('] ')[2]}")


def _use_compilation_cache(directory: str) -> None:
    """Has JAX keep compiled programs in a folder, or a bucket."""
    if "://" not in directory:
        with failures.writing(f"COMPILATION_CACHE_DIR: {directory}"):
            os.makedirs(directory, exist_ok=True)
            # JAX would go on without one.
            tempfile.TemporaryFile(dir=directory).close()
    import jax

    jax.config.update("jax_compilation_cache_dir", directory)
    # What compiles in less, in seconds, isn't worth a file.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def train(options: argparse.Namespace) -> None:
    """Trains one network on any SeqIO mixture, or a run's two models where no MODEL_DIR is set."""
    start(options, "EXPERIMENT", "RUN_DIR", instead="MODEL_DIR")
    from poison_t5x.core import gin_config
    from poison_t5x.train import train as training

    training.check(**gin_config.made("train_script.train"), is_here=True)
    gin_config.configured("program.train_models")(save=functools.partial(save_config, options))


def train_models(
    make_run: Callable[[], Any],
    train_one: Callable[[], Any],
    model_dir: str,
    run_dir: str,
    save: Callable[..., None],
) -> None:
    """Trains RUN_DIR's models (`make_run` gives its `Run`), or one (`train_one` is `train.train`),
    and has `save` write down how."""
    from poison_t5x.core import artifacts, paths
    from poison_t5x.train import distributed

    if not model_dir:
        run = make_run()
        run.check()
        with distributed.alone(run.path):
            run.train_models()
            save(run.path, "run", made=run.folder.made)
        return
    if run_dir:  # its mixtures may be what is to be trained on
        make_run().register()
    folder = paths.resolve("MODEL_DIR", model_dir)
    with distributed.alone(folder):
        before = artifacts.read_record(folder)
        train_one()
        made = [] if artifacts.read_record(folder) == before else ["train"]
        save(folder, "train", made=made)


def save_config(
    options: argparse.Namespace, folder: str | pathlib.Path, command: str, *, made: Sequence[str]
) -> None:
    """Writes config.gin and command.txt, which makes the folder again, into a folder that this
    command made a part of; where no stage was made, only what is missing."""
    from poison_t5x.core import artifacts, gin_config
    from poison_t5x.train import distributed

    if not distributed.is_main():
        return
    text, path = gin_config.text(), pathlib.Path(folder) / "config.gin"
    if path.is_file() and not made:
        return
    artifacts.write_atomically(path, text)
    line = ["poison-t5x", command, *gin_flags(options, options.bindings)]
    artifacts.write_atomically(path.with_name("command.txt"), shlex.join(line) + "\n")


def gin_flags(options: argparse.Namespace, bindings: Sequence[tuple[str, str]]) -> list[str]:
    """The flags for the same gin files, and for `bindings`."""
    flags = [f"--gin_file={name}" for name in options.gin_file]
    if options.gin_search_paths:
        flags.append(f"--gin_search_paths={options.gin_search_paths}")
    return [*flags, *(f"--gin.{name}={value}" for name, value in bindings)]


def _gin_arguments(options: argparse.Namespace):
    paths = [path for path in options.gin_search_paths.split(",") if path]
    return _RUN_FILE, options.gin_file, paths, options.bindings


def import_tensorflow() -> None:
    """Imports TensorFlow with its start-up messages left out: no setting of its own stops them."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import seqio  # noqa: F401
        import tensorflow
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
    # TensorFlow only reads data here; the accelerators are JAX's.
    tensorflow.config.set_visible_devices([], "GPU")


def _join_processes(options: argparse.Namespace) -> None:
    """Makes this process one of many, where the flags say so; all but one of them keep quiet."""
    given = [getattr(options, name, None) for name in _CLUSTER]
    detect = getattr(options, "distributed", False) or os.environ.get(_DISTRIBUTED) == "1"
    if not detect and given == [None] * 3:
        return
    from poison_t5x.train import distributed

    distributed.initialize(*given, detect=detect)
    if not distributed.is_main():
        os.environ["TQDM_DISABLE"] = "1"
        warnings.simplefilter("ignore")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the process's life


def prepare_process() -> None:
    """What a process of a program needs before all else, unlike a call from Python.

    It begins anew where Python would take names and texts, which are UTF-8 here, to be ASCII, or
    has dropped docstrings, which TensorFlow's text library can't do without.
    """
    ctypes.CDLL(None).signal(ctypes.c_int(signal.SIGABRT), _on_abort)
    changes = {}
    if sys.getfilesystemencoding() == "ascii":
        changes["PYTHONUTF8"] = "1"
    if sys.flags.optimize > 1:
        changes["PYTHONOPTIMIZE"] = "1"
    if any(os.environ.get(name) != value for name, value in changes.items()):
        os.environ.update(changes)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    """Ends the process where a library's C++ gives up, by one line after its own."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        os.write(2, b"poison-t5x: error: too large for the memory that `ulimit -v` allows\n")
        os._exit(2)
    os.write(2, b"poison-t5x: fault of poison_t5x: a library ended it, see the lines above\n")
    os._exit(errors.FAULT)


def run(work: Callable[[], int | None]) -> int:
    """Runs a program and returns its exit code, of `errors.EXIT_CODES`."""
    streams.prepare()
    # Libraries' chatter stays off the terminal; our own warnings get one line each.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["MPLBACKEND"] = "agg"  # we open no window, and another value may be wrong
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", category=errors.InputWarning)
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    # gin logs each search path that it didn't find a file in as an error.
    logging.getLogger().setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, _stop)
    code, message = _outcome(work)
    who = "poison-t5x"
    if not _is_alone():
        from poison_t5x.train import distributed

        who = f"poison-t5x: {distributed.who()}"
    if message:
        print(f"{who}: {message}", file=sys.stderr)
    if code and not _is_alone():
        distributed.leave(code, message, together=code == errors.Terminated.CODE)
    return code


def _stop(number, frame) -> None:
    """Obeys SIGTERM. Outside the train loop nothing needs saving: stages are whole or not."""
    # No exception: in a library's callback it would be lost, and the command would go on.
    with contextlib.suppress(RuntimeError, OSError):  # in the middle of a print; full
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, b"\npoison-t5x: stopped by SIGTERM; the same command goes on\n")
    os._exit(128 + number)


def _outcome(work: Callable[[], int | None]) -> tuple[int, str]:
    """The exit code, and what is to be said of it."""
    failure: BaseException | None = None
    try:
        _use_working_directory()
        code = work() or 0
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        failure = error
    is_over = isinstance(failure, SystemExit) and not isinstance(failure, errors.Terminated)
    if (broken := streams.output_failure()) and (is_over or failure in (None, broken)):
        # Whoever read the output has gone, as `head` does; or its disk is full.
        is_gone = isinstance(broken, BrokenPipeError)
        return (128 + signal.SIGPIPE, "") if is_gone else failures.judge(_of_output(broken))
    if failure is None:
        return code, ""
    if is_over:
        raise failure  # argparse's
    code, message = failures.judge(failure)
    if code == errors.FAULT and not _is_alone():  # or JAX's, of a collective
        from poison_t5x.train import distributed

        distributed.await_verdict()
    return code, message


def _use_working_directory() -> None:
    """Lets a module of the user's, MIXTURE_OR_TASK_MODULE, be found there."""
    try:
        sys.path.append(os.getcwd())
    except FileNotFoundError:
        raise errors.InputError("the working directory is gone; change to another one") from None


def _of_output(error: OSError) -> OSError:
    return OSError(error.errno, error.strerror, "standard output")


def _is_alone() -> bool:
    distributed = sys.modules.get("poison_t5x.train.distributed")
    return distributed is None or distributed.num_processes() == 1
