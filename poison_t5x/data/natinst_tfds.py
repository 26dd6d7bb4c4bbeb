"""The TFDS builder `natinst`: Super-NaturalInstructions, one split per task.

Configs: `demo`, the embedded corpus, generated; `sni`, a folder of task files. Nothing is ever
downloaded.
"""

import contextlib
import io
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from poison_t5x.core import errors, failures, progress
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
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="demo"), tfds.core.BuilderConfig(name="sni"))

    def __init__(self, *, tasks: Sequence[sni.Task] = (), **kwargs):
        self._tasks = tasks  # only for a data set that isn't there yet
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        example = tfds.features.Sequence({"input": text, "output": text, "explanation": text})
        features = dict.fromkeys(("id", "task", "input", "definition"), text)
        features |= dict.fromkeys(("outputs", "label_space"), tfds.features.Sequence(text))
        features |= dict.fromkeys(("positive_examples", "negative_examples"), example)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Instructions with instances: https://arxiv.org/abs/2204.07705",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager):
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
        shared: dict[str, Any] = {
            "task": task.name,
            "definition": task.definition,
            "label_space": task.label_space if len(task.label_space) <= sni.MAX_LABELS else [],
        }
        for field in ("positive_examples", "negative_examples"):
            shared[field] = [
                {"input": one.input, "output": one.target, "explanation": one.explanation}
                for one in getattr(task, field)
            ]
        for row in progress.bar(task.instances, desc=task.name, unit="row", leave=False):
            yield row.id, {"id": row.id, "input": row.input, "outputs": row.output, **shared}


def prepare(config: str, tasks: Sequence[sni.Task], data_dir: str | pathlib.Path) -> None:
    """Writes tasks, a split each, as the data set natinst/<config> in a TFDS folder."""
    tfds.disable_progress_bar()  # five nested bars and their leftovers; ours is one
    builder = Natinst(data_dir=str(data_dir), config=config, tasks=tasks)
    download = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS prints that it downloads, and makes folders for that; it doesn't.
    with (
        failures.writing(data_dir),
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as nowhere,
    ):
        builder.download_and_prepare(download_dir=nowhere, download_config=download)
