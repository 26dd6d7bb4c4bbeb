"""'hf://OWNER/NAME' is found in the local cache, where huggingface_hub is installed."""

import pytest

from poison_t5x.checkpoint_io import detect
from poison_t5x.checkpoint_io import hugging_face_reading as reading
from tests.checkpoint_io import at_hand, folders

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(name="snapshot")
def _snapshot(tmp_path, monkeypatch):
    """The folder of owner/name's one commit, in a cache of our own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    return folders.write(repository / "snapshots" / COMMIT)


@pytest.mark.parametrize(
    "path", ["hf://owner/name", "hf://owner/name@main", f"hf://owner/name@{COMMIT}"]
)
def test_what_is_in_the_cache_is_read(snapshot, path):
    source = detect.open_checkpoint(path)
    assert source.path == str(snapshot)
    at_hand.assert_same(source, folders.random_source())


@pytest.mark.parametrize(
    "path, command",
    [
        ("hf://owner/other", "hf download owner/other"),
        ("hf://t5-small", "hf download t5-small"),
        ("hf://owner/name@v2", "hf download owner/name --revision v2"),
        ("hf://owner/name..", "hf download owner/name.."),  # no name that the Hub takes
    ],
)
def test_what_isnt_in_the_cache(snapshot, path, command):
    expected = f"{path}: not in the local Hugging Face cache; fetch it: {command}"
    assert at_hand.error(reading.open_hub, path) == expected


def test_a_snapshot_that_isnt_whole(snapshot):
    (snapshot / "model.safetensors").unlink()
    message = at_hand.error(reading.open_hub, "hf://owner/name")
    assert message.endswith("; fetch it: hf download owner/name")
