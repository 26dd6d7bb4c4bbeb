"""'hf://OWNER/NAME[@REVISION]': a repository of the Hugging Face Hub in the local cache.

Nothing is fetched: a run on a pod must not depend on a network, and a download is a command.
"""

import re
from typing import NamedTuple

from poison_t5x.core import errors

_PATH = re.compile(r"hf://(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")


class Snapshot(NamedTuple):
    """A repository's folder in the cache, and the command that fetches it."""

    folder: str
    download: str


def find(path: str) -> Snapshot:
    """The folder of a repository in the cache.

    Raises:
      InputError: the path isn't as above, huggingface_hub isn't installed, or the repository isn't
        in the cache; then it says how to fetch it.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise errors.InputError(f"{path}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    repo, revision = found["repo"], found["revision"]
    try:
        import huggingface_hub
    except ImportError:
        raise errors.InputError(
            f"{path}: needs huggingface_hub; pip install 'poison-t5x[hf]', or give a folder's path"
        ) from None
    download = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
    try:
        folder = huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        raise errors.InputError(
            f"{path}: not in the local Hugging Face cache; fetch it: {download}"
        ) from None
    return Snapshot(folder, download)
