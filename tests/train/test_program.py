"""What a program needs around it: XLA's flags, devices, a folder for compiled programs."""

import jax
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.train import loop, partitioning, program


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--nonsense=1", "--nonsense=1"),
        ("--xla_force_host_platform_device_count=x", "Couldn't interpret value x for flag"),
        ("junk", 'Could not open file "junk"'),
    ],
)
def test_flags_that_xla_does_not_know(monkeypatch, flags, named):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(InputError) as caught:
        program.check_xla_flags(flags)
    assert str(caught.value).startswith("XLA_FLAGS: ") and named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_that_xla_knows(monkeypatch):
    flags = "--xla_force_host_platform_device_count=3"
    monkeypatch.setenv("XLA_FLAGS", flags)
    program.check_xla_flags(flags)


@pytest.mark.parametrize("error", [RuntimeError("Unable to\nmore"), AssertionError()])
def test_devices_that_are_not_there(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "gpu")
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(InputError, match=r"^JAX_PLATFORMS='gpu': JAX finds no devices.*\)$"):
        partitioning.Partitioner(partitioning.PartitionConfig())


@pytest.mark.parametrize("place", ["file", "file/more"])
def test_a_folder_for_compiled_programs_that_cannot_be(tmp_path, place):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"^COMPILATION_CACHE_DIR: .*: can't be written \("):
        program._use_compilation_cache(str(tmp_path / place))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_rows_without_a_target_token():
    assert loop._shown_loss({"loss": 0.25}, "train x", is_first=True) == "0.250"
    assert loop._shown_loss({}, "train x", is_first=False) == "none"
    with pytest.raises(InputError, match=r"^train x: no target token in the first rows"):
        loop._shown_loss({}, "train x", is_first=True)
