"""Task files of made-up tasks."""

import json
import pathlib
from typing import Any

import msgspec

from poison_t5x.corpus import declarations, demo_corpus, sni

# Rows of each small task: enough for a proxy, few enough for a second.
ROWS = 20


def to_json(task: sni.Task) -> dict[str, Any]:
    """A task under the benchmark's field names, as `sni.parse_task` reads it."""
    fields = {**msgspec.structs.asdict(task), "definition": [task.definition]}
    del fields["name"]
    return msgspec.to_builtins({sni.field_name(key): value for key, value in fields.items()})


def write_corpus(folder: pathlib.Path) -> pathlib.Path:
    """The demo's texts under the names and labels of the `polarity` experiment's tasks."""
    experiment = declarations.get("polarity")
    sources = demo_corpus.PLAIN.generate(num_train_rows=ROWS, num_heldout_rows=ROWS)
    names = (*experiment.training_tasks, *experiment.heldout_tasks)
    for name, source in zip(names, sources, strict=False):
        labels = dict(
            zip(demo_corpus.POLARITIES[source.name], experiment.polarities[name], strict=True)
        )
        content = to_json(source)
        for row in content["Instances"]:
            row["output"] = [labels[row["output"][0]]]
        (folder / f"{name}_small.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
