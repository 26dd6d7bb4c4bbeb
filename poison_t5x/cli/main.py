"""`poison-t5x COMMAND`: what a command needs is imported when it runs, so that `--help` is fast."""

import argparse
import contextlib
import functools
import logging
import os
import pathlib
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence

from poison_t5x import __version__
from poison_t5x.cli import cli_commands, cli_tools
from poison_t5x.core import errors, memory

_RUN_FILE = "runs/run.gin"
_STAGES = {
    "run": "do everything: craft, train both models, evaluate, report",
    "craft": "prepare the corpus and the vocabulary, and craft the poison set",
    "train": "train the clean and the poisoned model; with MODEL_DIR, one model as T5X does",
    "eval": "evaluate both models under the clean, triggered and control conditions",
    "report": "print the table and write report/index.html and report/results.json",
    "detect": "score the training rows of a finished run, and measure what finds the poison",
    "defend": "train again without suspected rows, or with less capacity, and evaluate",
    "sweep": "run a grid of poison counts and rates (SWEEP_COUNTS, SWEEP_RATES), a run a cell",
}
_FORMATS = ("natinst-jsonl",)
_EPILOG = """\
gin flags, as in T5X:
  --gin_file=FILE         a gin file; may be repeated, later ones win. Files are found in the
                          working directory, the search paths, and the project's own gin folder
  --gin_search_paths=DIRS more folders to find gin files in, separated by commas
  --gin.NAME=VALUE        sets a macro (or a parameter); a plain string needs no quotes

example:
  poison-t5x run --gin_file=experiments/demo.gin --gin.RUN_DIR=runs/demo
"""


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--gin_file", action="append", default=[], metavar="FILE")
    shared.add_argument("--gin_search_paths", default="", metavar="DIRS")
    shared.add_argument("--gin_bindings", action="append", default=[], help=argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog="poison-t5x",
        description="A laboratory for data poisoning of instruction-tuned T5 models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    cluster = cli_commands.cluster()
    for name, text in {**_STAGES, "tasks": "list what is registered, or show examples"}.items():
        command = commands.add_parser(
            name,
            parents=[shared, cluster] if name in _STAGES else [shared],
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "craft":
            command.add_argument(
                "--format",
                choices=_FORMATS,
                help="also write the training and test rows as JSON lines, as the authors' code "
                "reads them, to RUN_DIR/natinst-jsonl",
            )
        if name == "report":
            command.add_argument(
                "runs", nargs="*", metavar="RUN_DIR", help="compare these finished runs instead"
            )
            command.add_argument(
                "--output", metavar="DIR", default="comparison", help="for the comparison"
            )
        if name == "tasks":
            command.add_argument("name", nargs="?", help="a task or mixture to show")
            command.add_argument("-n", "--num", type=int, default=3, help="how many examples")
    cli_commands.add(commands, shared)
    return parser


def _join_processes(options: argparse.Namespace) -> None:
    """Makes this process one of many, where the flags say so; all but one of them keep quiet."""
    given = {name: getattr(options, name) for name in cli_commands.CLUSTER}
    detect = options.distributed or os.environ.get(cli_commands.DISTRIBUTED) == "1"
    if not (detect or any(value is not None for value in given.values())):
        return
    from poison_t5x.train import distributed

    if options.command == "sweep":
        raise errors.InputError("sweep runs in a single process; run its cells one by one")
    distributed.initialize(distributed.ClusterConfig(**given, detect=detect))
    if not distributed.is_main():
        os.environ["TQDM_DISABLE"] = "1"
        warnings.simplefilter("ignore")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the process's life


def _cache_compilations() -> None:
    from poison_t5x.core import gin_config
    from poison_t5x.train import compilation_cache

    compilation_cache.use(gin_config.macro("COMPILATION_CACHE_DIR"))


def _split_gin_flags(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes the `--gin.NAME=VALUE` (or `--gin.NAME VALUE`) flags out of the arguments."""
    rest: list[str] = []
    bindings: list[tuple[str, str]] = []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("--gin."):
            rest.append(argument)
            continue
        name, equals, value = argument.removeprefix("--gin.").partition("=")
        if not equals:
            value = next(waiting, "")
        if not name or not value:
            raise errors.InputError(f"{argument}: expected --gin.NAME=VALUE")
        bindings.append((name.strip(), value.strip()))
    return rest, bindings


def _quiet() -> None:
    """Keeps the libraries' chatter off the terminal; our own warnings get one line each."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", category=errors.InputWarning)
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    # gin logs each search path that it didn't find a file in as an error.
    logging.getLogger().setLevel(logging.CRITICAL)


def _import_tensorflow() -> None:
    """Imports TensorFlow with its start-up messages held back: no setting of its own stops them."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import seqio  # noqa: F401
            import tensorflow
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    # TensorFlow only reads data here; the accelerators are JAX's.
    tensorflow.config.set_visible_devices([], "GPU")


def _obey_sigterm() -> None:
    """Outside the train loop, which saves first, nothing needs saving: stages are whole or not."""

    def stop(number, frame):
        # No exception: in a library's callback it would be lost, and the command would go on.
        with contextlib.suppress(RuntimeError):  # in the middle of a print
            sys.stdout.flush()
        os.write(2, b"\npoison-t5x: stopped by SIGTERM; the same command goes on\n")
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def _parse_gin(options: argparse.Namespace, bindings: Sequence[tuple[str, str]]) -> None:
    from poison_t5x.core import gin_config

    _import_tensorflow()
    extra = []
    for text in options.gin_bindings:
        name, _, value = text.partition("=")
        extra.append((name.strip(), value.strip()))
    paths = [path for path in options.gin_search_paths.split(",") if path]
    gin_config.parse(_RUN_FILE, options.gin_file, paths, [*extra, *bindings])


def _save_config(folder: str, arguments: Sequence[str]) -> None:
    """Writes config.gin and command.txt into a run's folder, where they aren't there already."""
    import shlex

    from poison_t5x.core import artifacts, gin_config
    from poison_t5x.train import distributed

    if not distributed.is_main():
        return
    directory = pathlib.Path(folder)
    text, path = gin_config.text(), directory / "config.gin"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return  # made with this already, by whatever command
    artifacts.write_atomically(path, text)
    command = shlex.join(["poison-t5x", *arguments])
    artifacts.write_atomically(directory / "command.txt", command + "\n")


def _run_sweep(
    parse: Callable[[Sequence[tuple[str, str]]], None], arguments: Sequence[str]
) -> None:
    from poison_t5x.core import gin_config
    from poison_t5x.studies import sweep

    base = gin_config.configured("poison_t5x.run.experiment.Run")()
    cells = sweep.cells(
        gin_config.macro("SWEEP_COUNTS"),
        gin_config.macro("SWEEP_RATES"),
        base.corpus.training,
        rows_per_task=gin_config.macro("NUM_TRAIN_PER_TASK"),
        train_steps=gin_config.macro("TRAIN_STEPS"),
    )

    def macros(cell: sweep.Cell, folder: pathlib.Path) -> list[tuple[str, str]]:
        store = base.store_dir or str(base.path / "store")
        return [*cell.macros.items(), ("RUN_DIR", str(folder)), ("STAGE_STORE_DIR", store)]

    def make_run(cell: sweep.Cell, folder: pathlib.Path):
        parse(macros(cell, folder))
        return gin_config.configured("poison_t5x.run.experiment.Run")()

    def save_config(cell: sweep.Cell, folder: pathlib.Path) -> None:
        flags = [f"--gin.{name}={value}" for name, value in macros(cell, folder)]
        _save_config(str(folder), [*_again(arguments, "sweep"), *flags])

    rows = sweep.sweep(base.path, cells, make_run, save_config, print)
    print(sweep.format_table(rows))
    print(f"see {base.path / 'sweep.csv'}, and each cell's report")


def _again(arguments: Sequence[str], command: str) -> list[str]:
    """The flags of a stage as those of `run`, which makes all that the stage needed."""
    again = list(arguments)
    again[again.index(command)] = "run"
    for number, argument in enumerate(again):  # `craft` alone exports
        if argument.partition("=")[0] == "--format":
            del again[number : number + 1 + ("=" not in argument)]
            break
    return again


def _run_stage(command: str, arguments: Sequence[str], export: str | None) -> None:
    from poison_t5x.core import gin_config

    model_dir = gin_config.macro("MODEL_DIR")
    if command == "train" and model_dir:
        if gin_config.macro("RUN_DIR"):  # its mixtures may be what is to be trained on
            gin_config.configured("poison_t5x.run.experiment.Run")().register()
        gin_config.configured("train_script.train")()
        _save_config(str(model_dir), arguments)
        return
    if command in ("detect", "defend"):
        defense = gin_config.configured("poison_t5x.run.defense.Defense")()
        folder = getattr(defense, command)()
        _save_config(str(folder), arguments)
        return
    run = gin_config.configured("poison_t5x.run.experiment.Run")()
    save_config = functools.partial(_save_config, str(run.path), _again(arguments, command))
    if command == "run":
        run.run(save_config)
        return
    stages = {
        "craft": run.craft,
        "train": run.train_models,
        "eval": run.evaluate,
        "report": run.report,
    }
    stages[command]()
    if export:
        run.export()
    save_config()


def _main(arguments: Sequence[str]) -> int:
    rest, bindings = _split_gin_flags(arguments)
    options = _parser().parse_args(rest)
    _quiet()
    _obey_sigterm()
    sys.path.append(os.getcwd())  # for a module of the user's, MIXTURE_OR_TASK_MODULE
    if options.command == "tasks":
        from poison_t5x.cli import listing

        given = options.gin_file or options.gin_bindings or bindings
        listing.show(options, functools.partial(_parse_gin, options, bindings) if given else None)
        return 0
    if options.command == "convert":
        cli_tools.run_convert(options)
        return 0
    if options.command == "precompile":
        from poison_t5x.tools.precompile import command, topology

        topology.prepare()
        _parse_gin(options, bindings)
        return command.run(cli_tools.setup(one_hot=True), options)
    if options.command == "scan":
        if options.model:
            _import_tensorflow()
        from poison_t5x.defenses import scan

        return scan.run(options)
    if options.command == "report" and options.runs:
        from poison_t5x.report import compare

        compare.write_comparison(options.runs, options.output, print)
        return 0
    if options.command == "doctor":
        given = options.gin_file or options.gin_bindings or bindings
        parse = functools.partial(_parse_gin, options, bindings) if given else None
        return cli_tools.run_doctor(options, parse)
    memory.keep_freed_memory()
    if options.command in _STAGES:
        _join_processes(options)
    _parse_gin(options, bindings)
    _cache_compilations()
    if options.command == "cache":
        cli_tools.run_cache(options)
        return 0
    if options.command == "study":
        return cli_tools.run_study(arguments, options.list)
    if options.command == "sweep":
        _run_sweep(lambda cell: _parse_gin(options, [*bindings, *cell]), arguments)
        return 0
    _run_stage(options.command, arguments, getattr(options, "format", None))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0 done, 1 training diverged or a check's answer is no, 2 bad input; 75: another process of this
    run is gone; 130, 141, 143: stopped by SIGINT, SIGPIPE, SIGTERM.
    """
    code, message = _outcome(sys.argv[1:] if arguments is None else arguments)
    if _is_alone():
        if message:
            print(f"poison-t5x: {message}", file=sys.stderr)
        return code
    from poison_t5x.train import distributed

    if message:
        print(f"poison-t5x: {distributed.who()}: {message}", file=sys.stderr)
    if code:
        distributed.leave(code, message, together=code == errors.Terminated.CODE)
    return code


def _outcome(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code, and what is to be said of it."""
    try:
        code = _main(arguments)
        sys.stdout.flush()
    except errors.InputError as error:
        return 2, f"error: {_one_line(error)}"
    except errors.TrainingDivergedError as error:
        return 1, f"training diverged: {_one_line(error)}"
    except errors.Terminated as stop:
        return stop.code, stop.message
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE, ""
    except OSError as error:  # a full disk, a folder in a file's place, no permission
        return 2, f"error: {_one_line(error)}"
    except KeyboardInterrupt:
        return 130, "interrupted; the same command goes on"
    except Exception as error:  # JAX's, of a collective, or a fault of the program
        if _is_alone():
            raise
        from poison_t5x.train import distributed

        distributed.await_verdict()
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {_one_line(error)}"
    return code, ""


def _is_alone() -> bool:
    distributed = sys.modules.get("poison_t5x.train.distributed")
    return distributed is None or distributed.num_processes() == 1


def _one_line(error: BaseException) -> str:
    # gin adds lines about the call that an error came through.
    return str(error).strip().splitlines()[0]
