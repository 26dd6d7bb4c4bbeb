"""A Cloud TPU slice's life: made, run on, preempted, made again, deleted."""

import os
import shlex
import subprocess
import time

import pytest

from tests.launch import scripts

# A cloud of one slice. FOLDER/state is the slice's (no file: it isn't there), FOLDER/hosts what
# its hosts say of the run. The k-th `create` fails if FOLDER/fail-k is there.
CLOUD = """
cd {folder}
case "$3 $4" in
  "tpu-vm describe" | "queued-resources describe")
    [ -e state ] || {{ echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }}
    [ "$3" = tpu-vm ] || {{ echo ACTIVE; exit; }}
    cat state ;;
  "tpu-vm create" | "queued-resources create")
    echo x >> created; k=$(wc -l < created); [ ! -e "fail-$k" ] || exit 1
    echo READY > state; echo not started > hosts ;;
  "tpu-vm delete" | "queued-resources delete") rm -f state hosts ;;
  "tpu-vm ssh")
    case "$*" in
      *tpu_host.sh\\ start*)
        echo running > hosts; echo x >> started; k=$(wc -l < started)
        [ ! -e "after-$k" ] || . "./after-$k" ;;
      *tpu_host.sh\\ state*) cat hosts ;;
    esac ;;
esac
"""


@pytest.fixture(name="cloud")
def _cloud(tmp_path):
    scripts.fake(tmp_path, "gcloud", CLOUD.format(folder=shlex.quote(str(tmp_path))))
    scripts.fake(tmp_path, "git", 'case "$*" in *status*) ;; *) true ;; esac')
    return tmp_path


def _words(cloud) -> list[str]:
    """What was done to the slice, in a word each."""
    words = []
    for line in scripts.called(cloud):
        if line.startswith("gcloud"):
            command = line.split()[4]
            inside = ("install", "start", "state", "stop")
            found = [word for word in inside if f"tpu_host.sh {word}" in line]
            words.append(found[0] if found else command)
    return words


def _done(words) -> list[str]:
    return [word for word in words if word not in ("describe", "state")]


MADE = ["create", "scp", "install", "start"]


def test_the_printed_lines_are_what_runs(cloud):
    printed = scripts.dry("tpu_vm.sh", "resume")
    (cloud / "state").write_text("PREEMPTED\n")
    assert scripts.run("tpu_vm.sh", "resume", path=cloud).returncode == 0
    lines = [" ".join(shlex.split(line)) for line in printed]
    ran = [line for line in scripts.called(cloud) if "describe" not in line]
    ran = [line for line in ran if "--porcelain" not in line]
    assert [line for line in lines if not line.startswith("mkdir")] == ran
    assert "--accelerator-type=v5p-64" in lines[1] and "--spot" in lines[1]
    assert scripts.RUN in lines[-1] and "--worker=all" in lines[-1]


@pytest.mark.parametrize(
    ("state", "hosts", "expected"),
    [
        ("READY", "running", []),
        ("READY", "ended 0", []),
        ("READY", "not started", MADE[1:]),
        ("READY", "ended 75\nended 143", MADE[1:]),
        ("CREATING", "", []),
        ("PREEMPTED", "", ["delete", *MADE]),
        (None, "", MADE),
    ],
)
def test_resume_does_what_the_state_needs(cloud, state, hosts, expected):
    if state:
        (cloud / "state").write_text(f"{state}\n")
        (cloud / "hosts").write_text(f"{hosts}\n")
    done = scripts.run("tpu_vm.sh", "resume", path=cloud)
    assert done.returncode == 0, done.stderr
    assert _done(_words(cloud)) == expected


def test_it_stops_at_the_first_failure(cloud):
    (cloud / "state").write_text("PREEMPTED\n")
    (cloud / "fail-1").touch()
    assert scripts.run("tpu_vm.sh", "resume", path=cloud).returncode != 0
    assert _done(_words(cloud)) == ["delete", "create"]


def test_what_gcloud_cannot_tell_is_no_reason_to_make_a_slice(tmp_path):
    scripts.fake(tmp_path, "gcloud", "echo 'ERROR: log in again' >&2; exit 1")
    done = scripts.run("tpu_vm.sh", "resume", path=tmp_path)
    assert done.returncode != 0 and "log in again" in done.stderr
    assert _words(tmp_path) == ["describe"]


def test_keep_goes_on_through_two_preemptions_and_deletes(cloud, tmp_path):
    env = scripts.changed(tmp_path, CHECK_SECONDS="0.01")
    (cloud / "after-1").write_text("echo PREEMPTED > state")
    (cloud / "after-2").write_text("rm state")
    (cloud / "after-3").write_text("echo ended 143 > hosts")
    (cloud / "after-4").write_text("echo ended 0 > hosts")
    (cloud / "fail-2").touch()  # no capacity at first
    done = scripts.run("tpu_vm.sh", "keep", env=env, path=cloud)
    assert done.returncode == 0, done.stderr
    words = _done(_words(cloud))
    assert (
        words
        == [
            *MADE,
            *("delete", "create"),  # which fails, and is tried again
            *MADE,
            *MADE,
            *MADE[1:],
            *("ssh", "delete"),  # the last lines, and no chip is paid for any more
        ]
    )
    assert "the run is done" in done.stdout and not (cloud / "state").exists()


@pytest.mark.parametrize("code", [1, 2])
def test_keep_leaves_what_needs_a_person(cloud, tmp_path, code):
    env = scripts.changed(tmp_path, CHECK_SECONDS="0.01")
    (cloud / "after-1").write_text(f"printf 'ended 75\\nended {code}\\n' > hosts")
    done = scripts.run("tpu_vm.sh", "keep", env=env, path=cloud)
    assert done.returncode == 2 and f"ended with code {code}" in done.stderr
    assert (cloud / "state").exists()


def test_keep_counts(cloud, tmp_path):
    env = scripts.changed(tmp_path, CHECK_SECONDS="0.01", MAX_RESTARTS="2")
    for number in (1, 2, 3, 4):
        (cloud / f"after-{number}").write_text("echo ended 75 > hosts")
    done = scripts.run("tpu_vm.sh", "keep", env=env, path=cloud)
    assert done.returncode == 2 and _words(cloud).count("start") == 3


def test_a_queued_resource_waits_and_is_deleted(cloud, tmp_path):
    env = scripts.changed(tmp_path, QUEUED="yes", CHECK_SECONDS="0.01")
    for command in ("create", "delete"):
        done = scripts.run("tpu_vm.sh", command, env=env, path=cloud)
        assert done.returncode == 0, done.stderr
    create, describe, delete = scripts.called(cloud)
    assert "queued-resources create poison-t5x" in create and "--node-id=poison-t5x" in create
    assert "--runtime-version=v2-alpha-tpuv5" in create and "queued-resources" in describe
    assert "queued-resources delete" in delete and "--force" in delete


@pytest.fixture(name="host")
def _host(tmp_path):
    """A host's home with a checkout, whose `poison-t5x` writes down its arguments."""
    (tmp_path / "checkout/launch").mkdir(parents=True)
    (tmp_path / "checkout/.venv/bin").mkdir(parents=True)
    scripts.fake(tmp_path / "checkout/launch", "venv.sh", "")
    script = tmp_path / "checkout/launch/tpu_host.sh"
    script.write_text((scripts.LAUNCH / "tpu_host.sh").read_text())
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sudo", "gcsfuse", "mount"):
        scripts.fake(programs, name, '"$@"' if name == "sudo" else "")
    scripts.fake(programs, "mountpoint", "exit 1")

    def run(command: str):
        """As ssh gives it: a line for a shell."""
        return subprocess.run(
            ["bash", "-c", f"checkout/launch/tpu_host.sh {command}"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{programs}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "RUNS": str(tmp_path / "runs"),
            },
            capture_output=True,
            text=True,
            timeout=30,
        )

    script.chmod(0o755)
    return tmp_path, run


def _wait_for(run, state: str) -> None:
    for _ in range(200):
        if run("state").stdout.strip() == state:
            return
        time.sleep(0.02)
    raise AssertionError(run("state"))


def test_a_host_runs_once_and_says_how_it_ended(host):
    home, run = host
    binaries = home / "checkout/.venv/bin"
    scripts.fake(
        binaries, "poison-t5x", f"until [ -e {home / 'go'} ]; do sleep 0.02; done; exit 75"
    )
    assert run("state").stdout == "not started\n"
    flags = """--gin_file=a.gin --gin.TASK_FEATURE_LENGTHS="{'inputs': 8, 'targets': 4}" """
    assert run(f"start {flags}").returncode == 0
    _wait_for(run, "running")
    assert run("start").stdout == "running already\n"
    assert "nothing is installed" in run("install bucket").stdout
    (home / "go").touch()
    _wait_for(run, "ended 75")
    assert scripts.called(binaries) == [
        "poison-t5x run --distributed --gin_file=a.gin "
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 4}"
    ]


def test_a_host_installs_and_mounts(host):
    home, run = host
    assert run("install my-bucket").returncode == 0
    assert scripts.called(home / "checkout/launch") == ["venv.sh requirements-tpu.lock"]
    (mount,) = [line for line in scripts.called(home / "programs") if line.startswith("gcsfuse")]
    assert mount.endswith(f"my-bucket {home / 'runs'}") and "--metadata-cache-ttl-secs=0" in mount
    assert run("install 10.0.0.2:/share").returncode == 0
    assert f"mount -t nfs 10.0.0.2:/share {home / 'runs'}" in scripts.called(home / "programs")
    assert run("mend").returncode == 2
