"""Task files of made-up tasks."""

from typing import Any

import msgspec

from poison_t5x.corpus import sni


def to_json(task: sni.Task) -> dict[str, Any]:
    """A task under the benchmark's field names, as `sni.parse_task` reads it."""
    fields = {**msgspec.structs.asdict(task), "definition": [task.definition]}
    del fields["name"]
    return msgspec.to_builtins({sni.field_name(key): value for key, value in fields.items()})
