"""SeqIO's offline cache of a run's tasks, made with Beam on one machine.

What is cached is what stands before SeqIO's placeholder: rendered and tokenised rows. Training then
reads records, and no task file, poison set or vocabulary is looked at for its prompts.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence

import seqio

from poison_t5x.core import artifacts, errors, progress, settings
from poison_t5x.data import mixtures


def use(directories: Sequence[str]) -> None:
    """Has SeqIO look for caches in these folders; an empty list leaves its own setting alone."""
    if directories:
        seqio.set_global_cache_dirs(list(directories))


def cache(
    names: Sequence[str], directory: str | pathlib.Path, num_shards: int, log: Callable[[str], None]
) -> None:
    """Writes registered tasks' rows as TFRecords under `directory`, each task whole or not at all.

    A task that is there is left alone. Rows come in Beam's order, not the task's; what is written
    once is read in the same order ever after.

    Args:
      num_shards: files of a task, at least as many as DATA_SHARDS has.

    Raises:
      InputError: Beam isn't installed, or a task is there that was made from other data.
    """
    try:
        import apache_beam  # noqa: F401
        from seqio import beam_utils  # noqa: F401
    except ImportError:
        raise errors.InputError("caching needs Beam: pip install 'poison-t5x[cache]'") from None
    settings.checked("--num_shards", num_shards, settings.Few)
    directory = pathlib.Path(settings.checked("DIR", str(directory), settings.Folder)).absolute()
    made = 0
    for name in progress.bar(names, desc="cache", unit="task"):
        task = seqio.TaskRegistry.get(name)
        made += artifacts.run_stage(
            directory / seqio.get_task_dir_from_name(name),
            f"cache {name}",
            {**mixtures.made_from(task), "num_shards": num_shards},
            functools.partial(_write_task, task, num_shards),
            log=lambda line: None,
        )
    log(f"cache: {made} of {len(names)} tasks written, the others were there -> {directory}")


def _write_task(task: seqio.Task, num_shards: int, directory: pathlib.Path) -> None:
    """Each split's rows, and SeqIO's two files about them."""
    import apache_beam as beam
    from seqio import beam_utils

    place = str(directory)
    with beam.Pipeline(runner="DirectRunner") as pipeline:
        for split in task.splits:
            rows = pipeline | f"{split} read" >> beam_utils.PreprocessTask(task, split)
            prefix = seqio.get_cached_tfrecord_prefix(place, split)
            writer = beam_utils.WriteExampleTfRecord(prefix, num_shards=num_shards)
            _ = rows | f"{split} write" >> writer
            for name, path, about in (
                ("info", seqio.get_cached_info_path, beam_utils.GetInfo(num_shards)),
                ("stats", seqio.get_cached_stats_path, beam_utils.GetStats(task.output_features)),
            ):
                write = f"{split} write {name}" >> beam_utils.WriteJson(path(place, split))
                _ = rows | f"{split} {name}" >> about | write
    artifacts.write_atomically(directory / "COMPLETED", "")
