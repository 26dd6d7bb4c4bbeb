"""Arguments of the commands that aren't stages of a run. Standard library alone."""

import argparse

_CONVERT = "write a checkpoint of T5X, Hugging Face or ours in another one's layout"
_PRECOMPILE = "compile the steps for a TPU that isn't there: do they fit, and how fast can they be"


# Arguments of `cluster`, but for --distributed.
CLUSTER = ("coordinator_address", "num_processes", "process_id")
# The environment's word for --distributed, if it is 1.
DISTRIBUTED = "POISON_T5X_DISTRIBUTED"


def cluster() -> argparse.ArgumentParser:
    """How the processes of a run find each other."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("many processes, each with the same command")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="this is one process of many, which a Cloud TPU, GKE, Slurm or Open MPI tells of; "
        f"{DISTRIBUTED}=1 says so too",
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--num_processes", type=int, metavar="N")
    group.add_argument("--process_id", type=int, metavar="I", help="of this process, from 0")
    return parser


def add(commands, shared: argparse.ArgumentParser) -> None:
    """Adds them; `shared` has the gin flags."""
    _add_convert(commands)
    _add_precompile(commands, shared)
    _add_doctor(commands, shared)
    _add_cache(commands, shared)
    _add_scan(commands)
    _add_study(commands, shared)


def _add_convert(commands) -> None:
    command = commands.add_parser("convert", help=_CONVERT, description=_CONVERT.capitalize() + ".")
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a checkpoint, a run's folder with checkpoints, a Hugging Face folder, or "
        "hf://OWNER/NAME from the local cache; T5X's may be in a bucket (gs://…)",
    )
    command.add_argument(
        "destination",
        metavar="DESTINATION",
        nargs="?",
        help="where DESTINATION/checkpoint_STEP, or Hugging Face's files, are written; without "
        "it, what SOURCE is gets printed",
    )
    command.add_argument(
        "--to",
        choices=("huggingface", "t5x", "t5x-orbax", "poison-t5x"),
        help="t5x: as the public checkpoints; t5x-orbax: as today's T5X; poison-t5x: ours",
    )
    command.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the parameters")
    command.add_argument(
        "--optimizer-state",
        choices=("keep", "drop", "adamw", "adafactor"),
        default="keep",
        help="keep it, drop it, or begin that optimiser's anew at step 0 (default: keep)",
    )
    command.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="a SentencePiece model to go along to Hugging Face (default: the run's, or SOURCE's)",
    )
    command.add_argument(
        "--extra-ids", type=int, metavar="N", help="its sentinels (default: the run's, or 100)"
    )


def _add_precompile(commands, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "precompile",
        parents=[shared],
        help=_PRECOMPILE,
        description=_PRECOMPILE[0].upper() + _PRECOMPILE[1:] + ". Exits with 1 if they don't fit.",
    )
    command.add_argument(
        "--topology", required=True, help="such as v5p:4x4x2, v4:4x4x4, v5e:8x8, v6e:4x8"
    )
    command.add_argument("--program", choices=("train", "rank", "both"), default="train")
    command.add_argument(
        "--search",
        action="store_true",
        help="try meshes, microbatches and REMAT_POLICY for the BATCH_SIZE, and print the fastest "
        "that fits",
    )
    command.add_argument("--output", metavar="FILE", help="write what was found there, as JSON")


def _add_doctor(commands, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "doctor",
        parents=[shared],
        help="say what is installed, what this machine has, and whether a gin file goes with it",
        description="Says what is installed, what this machine has and, with --gin_file, whether "
        "its network fits. Exits with 1 where there is a problem.",
    )
    command.add_argument("--json", action="store_true", help="print the findings as JSON")


def _add_cache(commands, shared: argparse.ArgumentParser) -> None:
    text = "write the rows of a run's training tasks into SeqIO's offline cache, with Beam"
    command = commands.add_parser(
        "cache",
        parents=[shared],
        help=text,
        description=text[0].upper() + text[1:] + ". Needs the craft stage. Training reads it with "
        "--gin.USE_CACHED_TASKS=True --gin.TASK_CACHE_DIRS=\"['DIR']\".",
    )
    command.add_argument("directory", metavar="DIR", help="where; tasks that are there are kept")
    command.add_argument(
        "--num_shards", type=int, default=16, help="files of a task (default: %(default)s)"
    )


def _add_scan(commands) -> None:
    text = "look for poison in instruction data of unknown origin"
    command = commands.add_parser(
        "scan",
        help=text,
        description=text[0].upper() + text[1:] + ": SNI task files, JSON lines or Parquet. Exits "
        "with 1 where something passes the alarm level.",
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="or a folder of such files")
    command.add_argument(
        "--output", metavar="DIR", default="scan", help="for the report (default: %(default)s)"
    )
    command.add_argument(
        "--scores", metavar="NAMES", help="separated by commas (default: all that can be made)"
    )
    command.add_argument(
        "--alarm_level",
        type=float,
        default=0.001,
        metavar="P",
        help="raise the alarm where a phrase goes with an answer that much beyond chance: a "
        "probability, corrected for all phrases looked at (default: %(default)s)",
    )
    command.add_argument(
        "--model", metavar="DIR", help="a finished model's folder, for scores that need one"
    )
    command.add_argument("--input_field", metavar="NAME", help="of JSON lines and Parquet")
    command.add_argument("--target_field", metavar="NAME", help="of JSON lines and Parquet")
    command.add_argument("--task_field", metavar="NAME", help="of JSON lines and Parquet")
    command.add_argument("--seed", type=int, default=0, metavar="N")


def _add_study(commands, shared: argparse.ArgumentParser) -> None:
    text = "run a grid of settings (STUDY_GRID), several runs at once, and sum it up"
    command = commands.add_parser(
        "study",
        parents=[shared],
        help=text,
        description=text[0].upper() + text[1:] + ". Exits with 1 where a run failed.",
    )
    command.add_argument("--list", action="store_true", help="print the runs, and run none")
