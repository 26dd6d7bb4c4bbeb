"""The folders that settings name: the one place that knows which file systems there are.

Beneath is etils' epath, whose paths may be in a bucket as well as on a disk.
"""

from typing import Any

from etils import epath

from poison_t5x.core import checks, errors


def resolve(setting: str, value: Any) -> epath.Path:
    """The path that a setting gives, with '~' for the home folder.

    Raises:
      InputError: it is no path, or one on another file system than this machine's.
    """
    checks.path(setting, value)
    scheme, mark, _ = str(value).partition("://")
    if mark:
        raise errors.InputError(
            f"{setting}: expected a folder on a disk of this machine, found {value!r}; write to a "
            f"disk and copy it, or mount what {scheme}:// names"
        )
    return epath.Path(value).expanduser()
