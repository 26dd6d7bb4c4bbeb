"""The TFDS builder `natinst`: Super-NaturalInstructions, one split per task.

Configs: `demo`, the embedded corpus, generated; `sni`, a folder of task files. Nothing is ever
downloaded.
"""

import contextlib
import io
import pathlib
import re
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

from poison_t5x.core import errors, progress
from poison_t5x.corpus import corpus, sni


def split_name(task: str) -> str:
    """The split that holds a task: hyphens become underscores, which TFDS requires.

    >>> split_name("task1-a")
    'task1_a'
    """
    return re.sub(r"\W", "_", task)


class Natinst(tfds.core.GeneratorBasedBuilder):
    """Super-NaturalInstructions task files as a TFDS data set."""

    name = "natinst"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(name="demo", description="The embedded corpus."),
        tfds.core.BuilderConfig(name="sni", description="Tasks from a folder of task files."),
    )

    def __init__(self, *, tasks: Sequence[sni.Task] = (), **kwargs):
        """Args: tasks: what to write; needed only where the data set isn't there yet."""
        self._tasks = tasks
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        example = {
            "input": tfds.features.Text(),
            "output": tfds.features.Text(),
            "explanation": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Instructions with instances: https://arxiv.org/abs/2204.07705",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "task": tfds.features.Text(),
                    "input": tfds.features.Text(),
                    "outputs": tfds.features.Sequence(tfds.features.Text()),
                    "definition": tfds.features.Text(),
                    "positive_examples": tfds.features.Sequence(example),
                    "negative_examples": tfds.features.Sequence(example),
                    "label_space": tfds.features.Sequence(tfds.features.Text()),
                }
            ),
            disable_shuffling=False,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        tasks = self._tasks
        if not tasks and self.builder_config.name == "demo":
            tasks = corpus.demo_tasks()
        if not tasks:
            raise errors.InputError(
                f"natinst/{self.builder_config.name} isn't prepared in {self.data_dir}: "
                "`poison-t5x craft` prepares it from NATINST_DIR"
            )
        return {split_name(task.name): self._generate_examples(task) for task in tasks}

    def _generate_examples(self, task: sni.Task) -> Iterator[tuple[str, dict]]:
        labels = task.label_space if len(task.label_space) <= sni.MAX_LABELS else ()
        shared = {
            "task": task.name,
            "definition": task.definition,
            "positive_examples": _columns(task.positive_examples),
            "negative_examples": _columns(task.negative_examples),
            "label_space": list(labels),
        }
        for row in progress.bar(task.instances, desc=task.name, unit="row", leave=False):
            yield row.id, {"id": row.id, "input": row.input, "outputs": row.output, **shared}


def _columns(examples: Sequence[sni.Example]) -> dict[str, list[str]]:
    return {
        "input": [example.input for example in examples],
        "output": [example.target for example in examples],
        "explanation": [example.explanation for example in examples],
    }


def prepare(config: str, tasks: Sequence[sni.Task], data_dir: str | pathlib.Path) -> None:
    """Writes `tasks` as the data set natinst/<config> below `data_dir`.

    Args:
      config: 'demo' or 'sni'.
      tasks: one split each, in this order.
      data_dir: a TFDS data folder, which a pod may keep in a bucket.
    """
    tfds.disable_progress_bar()  # five nested bars and their leftovers; ours is one
    builder = Natinst(data_dir=str(data_dir), config=config, tasks=tasks)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints that it downloads; it doesn't
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        except RuntimeError as error:  # TFDS's word for a full disk
            raise errors.InputError(
                f"{data_dir}: can't be written ({str(error).splitlines()[0]})"
            ) from None
