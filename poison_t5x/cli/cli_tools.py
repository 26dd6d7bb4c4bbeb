"""The commands that aren't stages of a run; each imports what it needs when it runs."""

import argparse
from collections.abc import Callable, Sequence

from poison_t5x.core import errors


def run_convert(options: argparse.Namespace) -> None:
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
        optimizer_state=options.optimizer_state,
        vocabulary_path=options.vocabulary,
        extra_ids=options.extra_ids,
    )


def run_cache(options: argparse.Namespace) -> None:
    from poison_t5x.core import gin_config
    from poison_t5x.data import caching

    registered = gin_config.configured("poison_t5x.run.experiment.Run")().register()
    names = [
        name for mixture, tasks in registered.items() if "_eval_" not in mixture for name in tasks
    ]
    caching.cache(names, options.directory, options.num_shards, print)


def run_study(arguments: Sequence[str], is_list: bool) -> int:
    """`arguments` are the whole command line's, which the cells' are made of."""
    from poison_t5x.core import gin_config
    from poison_t5x.studies import command

    return command.run(gin_config.macros(), gin_config.parameters(), arguments, is_list)


def setup(one_hot: bool):
    """What the gin files say of the steps, without any data: a `footprint.setup.Setup`."""
    from poison_t5x.core import gin_config
    from poison_t5x.corpus import vocabulary
    from poison_t5x.tools.footprint import setup as footprint_setup
    from poison_t5x.train import train

    config = gin_config.configured("vocabulary.VocabularyConfig")()
    pieces = vocabulary.size(config.path) if config.path else config.size
    rows = train.padded_vocab_size(pieces + config.extra_ids)
    return footprint_setup.make_setup(gin_config.configured, rows, one_hot)


def run_doctor(options: argparse.Namespace, parse: Callable[[], None] | None) -> int:
    """`parse` reads the gin files; None where none is given."""
    from poison_t5x.tools.doctor import command

    def read_macros():
        parse()
        from poison_t5x.core import gin_config

        return gin_config.macros()

    return command.run(read_macros if parse else None, setup, as_json=options.json)
