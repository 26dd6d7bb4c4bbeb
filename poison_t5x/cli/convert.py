"""Write a checkpoint of T5X, Hugging Face or ours in another one's layout.

Tensor by tensor, so that no more than the largest is in memory. Without DESTINATION it says what
SOURCE is.
"""

import argparse

from poison_t5x.core import errors

EXAMPLE = """\
poison-t5x convert runs/demo/models/poisoned
poison-t5x convert runs/demo/models/poisoned exported --to huggingface
poison-t5x convert hf://google/flan-t5-base flan --to t5x-orbax --dtype bfloat16"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a checkpoint, a run's folder with checkpoints, a Hugging Face folder, or "
        "hf://OWNER/NAME from the local cache; T5X's may be in a bucket (gs://…)",
    )
    parser.add_argument(
        "destination",
        metavar="DESTINATION",
        nargs="?",
        help="where DESTINATION/checkpoint_STEP, or Hugging Face's files, are written",
    )
    parser.add_argument(
        "--to",
        choices=("huggingface", "t5x", "t5x-orbax", "poison-t5x"),
        help="t5x: as the public checkpoints; t5x-orbax: as today's T5X; poison-t5x: ours",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the parameters")
    parser.add_argument(
        "--optimizer_state",
        choices=("keep", "drop", "adamw", "adafactor"),
        default="keep",
        help="keep it, drop it, or begin that optimiser's anew at step 0 (default: keep)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="a SentencePiece model to go along to Hugging Face (default: the run's, or SOURCE's)",
    )
    parser.add_argument(
        "--extra_ids", type=int, metavar="N", help="its sentinels (default: the run's, or 100)"
    )


def run(options: argparse.Namespace) -> None:
    from poison_t5x.checkpoint_io import conversion

    if options.destination is None:
        conversion.describe(options.source)
        return
    if options.to is None:
        raise errors.InputError("--to: say which layout to write; see poison-t5x convert --help")
    conversion.convert(
        options.source,
        options.destination,
        options.to,
        dtype=options.dtype,
        state=options.optimizer_state,
        vocabulary_path=options.vocabulary,
        extra_ids=options.extra_ids,
    )
