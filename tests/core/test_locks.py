"""One writer of a folder, whoever the other one is and however it ended."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from poison_t5x.core import errors, locks

HOLD = textwrap.dedent(
    """
    import sys, time
    from poison_t5x.core import locks
    with locks.alone(sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
    """
)


@pytest.fixture
def other(tmp_path):
    """Another process that holds tmp_path/runs/one."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "runs" / "one")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_one_is_told_who_is_there(other, tmp_path):
    folder = tmp_path / "runs" / "one"
    link = tmp_path / "another name"
    link.symlink_to(folder)
    for name in (folder, link):
        with pytest.raises(errors.BusyError) as raised, locks.alone(name):
            pass
        assert f"{name}: process {other.pid} on {os.uname().nodename} is at work" in str(
            raised.value
        )
        assert raised.value.code == 75
    assert str(other.pid) in locks.holder(folder)
    assert [path.name for path in folder.iterdir()] == [locks.NAME]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_ones_lock_is_dead(other, tmp_path, number):
    folder = tmp_path / "runs" / "one"
    other.send_signal(number)
    other.wait()
    assert locks.holder(folder) is None
    with locks.alone(folder):
        (folder / "result").write_text("")
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_nothing_is_left_where_nothing_was_made(tmp_path):
    for beside in (False, True):
        with locks.alone(tmp_path / "a" / "b", beside=beside):
            assert len(list((tmp_path / "a").iterdir())) == 1
        assert list(tmp_path.iterdir()) == []


def test_one_process_can_hold_it_again_and_two_folders_at_once(tmp_path):
    for _ in range(2):
        with locks.alone(tmp_path / "a"), locks.alone(tmp_path / "a" / "cells" / "b"):
            pass


def test_a_file_or_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(errors.InputError, match="file"), locks.alone(tmp_path / name):
            pass
    assert (tmp_path / "file").read_text() == ""


def test_a_disk_without_locks_is_told_of(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.warns(errors.InputWarning, match="knows no locks"), locks.alone(tmp_path / "a"):
        pass


def test_a_read_only_folder_is_not_held(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(locks.os, "open", read_only)
    with locks.alone(tmp_path):
        assert list(tmp_path.iterdir()) == []
