"""What the launch scripts have in common: settings, flags, --dry-run, and no hyper-parameters."""

import os
import shutil
import subprocess

import pytest

from tests.launch import scripts

SCRIPTS = sorted(scripts.LAUNCH.glob("*.sh"))
COMMANDS = [("tpu_vm.sh", "create"), ("gke.sh", "manifest"), ("slurm.sh", "script")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_no_objection(script):
    path = f"{scripts.ROOT / '.venv/bin'}:{os.environ['PATH']}"
    program = shutil.which("shellcheck", path=path)
    assert program, "shellcheck comes with the test requirements"
    done = subprocess.run(
        [program, "--external-sources", f"--source-path={scripts.LAUNCH}", str(script)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("script", "command"), COMMANDS)
def test_missing_settings_are_one_line(tmp_path, script, command):
    gone = scripts.run(script, command, env=tmp_path / "none.env")
    assert gone.returncode == 2
    assert "copy launch/pod.env.example to launch/pod.env" in gone.stderr
    done = scripts.run(script, "--dry-run", command, env=scripts.changed(tmp_path, RUN_FLAGS=""))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "doesn't set RUN_FLAGS" in done.stderr


@pytest.mark.parametrize(("script", "command"), COMMANDS[:2])
def test_a_run_needs_shared_storage(tmp_path, script, command):
    done = scripts.run(script, "--dry-run", command, env=scripts.changed(tmp_path, BUCKET=""))
    assert done.returncode == 2 and "set BUCKET or NFS_SHARE" in done.stderr


@pytest.mark.parametrize(("script", "command"), COMMANDS)
def test_unknown_words_name_the_known_ones(script, command):
    assert "known are" in scripts.run(script, "--dry-run", "launch").stderr
    assert "known is --dry-run" in scripts.run(script, "--dryrun", command).stderr
    assert "give one of" in scripts.run(script).stderr
    for arguments in (["launch"], ["--dryrun", command], [], [command, command]):
        assert scripts.run(script, *arguments).returncode == 2


def test_settings_beside_the_caller_are_found(tmp_path):
    shutil.copy(scripts.EXAMPLE, tmp_path / "mine.env")
    done = subprocess.run(
        ["bash", str(scripts.LAUNCH / "gke.sh"), "manifest"],
        cwd=tmp_path,
        env={**os.environ, "POD_ENV": "mine.env"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("script", "program", "command"),
    [
        *[("tpu_vm.sh", "gcloud", word) for word in ("create", "install", "start", "resume")],
        *[("tpu_vm.sh", "gcloud", word) for word in ("keep", "status", "logs", "stop", "delete")],
        *[("gke.sh", "kubectl", word) for word in ("start", "status", "logs", "delete")],
        ("gke.sh", "docker", "image"),
        *[("slurm.sh", "sbatch", "start"), ("slurm.sh", "squeue", "status")],
        ("slurm.sh", "scancel", "stop"),
    ],
)
def test_dry_run_prints_and_runs_nothing(tmp_path, script, program, command):
    scripts.fake(tmp_path, program, "exit 1")
    done = scripts.run(script, "--dry-run", command, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert scripts.called(tmp_path) == []
    # What is printed can be pasted: a shell that reads it calls the program.
    assert program in done.stdout
    parsed = subprocess.run(["bash", "-n"], input=done.stdout, capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stderr


def test_a_missing_program_is_one_line(tmp_path):
    (tmp_path / "bash").symlink_to(shutil.which("bash"))
    for name in ("dirname", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = scripts.run("tpu_vm.sh", "create", PATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr == "tpu_vm.sh: gcloud isn't installed\n"


def test_launch_has_no_hyperparameters():
    for path in [scripts.EXAMPLE, *SCRIPTS]:
        text = path.read_text()
        for macro in ("LEARNING_RATE", "BATCH_SIZE", "TRAIN_STEPS", "NUM_PARTITIONS"):
            assert macro not in text, path
