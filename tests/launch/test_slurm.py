"""The batch script of a run: what it asks for, and when it is queued again."""

import os
import subprocess

import pytest

from tests.launch import scripts


def _batch(tmp_path, **settings) -> str:
    done = scripts.run("slurm.sh", "script", env=scripts.changed(tmp_path, **settings))
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(tmp_path, text: str, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash"],
        input=text,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("code", "restarts", "queues"),
    [(0, 0, False), (75, 0, True), (143, 19, True), (137, 3, True), (2, 0, False), (75, 20, False)],
)
def test_what_can_go_on_is_queued_again(tmp_path, code, restarts, queues):
    scripts.fake(tmp_path, "srun", f"exit {code}")
    scripts.fake(tmp_path, "scontrol", "")
    done = _run(tmp_path, _batch(tmp_path), SLURM_JOB_ID="7", SLURM_RESTART_COUNT=str(restarts))
    started, *rest = scripts.called(tmp_path)
    assert scripts.RUN in started and "--kill-on-bad-exit=1" in started
    assert rest == (["scontrol requeue 7"] if queues else [])
    assert done.returncode == (0 if queues else code)


def test_sigterm_goes_to_the_tasks_and_the_script_waits_for_them(tmp_path):
    text = _batch(tmp_path)
    assert "#SBATCH --requeue" in text and "#SBATCH --signal=TERM@180" in text
    scripts.fake(tmp_path, "srun", "kill -TERM $PPID; sleep 0.2; exit 143")
    scripts.fake(tmp_path, "scontrol", "")
    assert _run(tmp_path, text, SLURM_JOB_ID="7").returncode == 0
    assert scripts.called(tmp_path)[-1] == "scontrol requeue 7"


@pytest.mark.parametrize(
    ("processes", "gpus", "cpus"),
    [("1", "export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7", "64"), ("8", "unset", "8")],
)
def test_a_process_has_a_nodes_gpus_or_one(tmp_path, processes, gpus, cpus):
    text = _batch(tmp_path, PROCESSES_PER_NODE=processes, NODES="4")
    assert gpus in text and f"#SBATCH --cpus-per-task={cpus}\n" in text
    assert f"#SBATCH --ntasks-per-node={processes}\n" in text and "#SBATCH --nodes=4\n" in text


def test_gpus_are_shared_evenly_or_nothing_is_submitted(tmp_path):
    scripts.fake(tmp_path, "sbatch", "")
    env = scripts.changed(tmp_path, PROCESSES_PER_NODE="3")
    done = scripts.run("slurm.sh", "start", env=env, path=tmp_path)
    assert done.returncode == 2 and "take 1 or GPUS_PER_NODE, 8" in done.stderr
    assert scripts.called(tmp_path) == []


def test_flags_keep_their_quotes(tmp_path):
    flags = """--gin.TASK_FEATURE_LENGTHS="{'inputs': 1024, 'targets': 128}" """
    scripts.fake(tmp_path, "srun", f'printf "%s\\n" "${{@: -1}}" > {tmp_path}/last')
    assert _run(tmp_path, _batch(tmp_path, RUN_FLAGS=flags)).returncode == 0
    last = (tmp_path / "last").read_text()
    assert last == "--gin.TASK_FEATURE_LENGTHS={'inputs': 1024, 'targets': 128}\n"


def test_start_submits_what_script_prints(tmp_path):
    scripts.fake(tmp_path, "sbatch", f"cat > {tmp_path}/submitted")
    assert scripts.run("slurm.sh", "start", path=tmp_path).returncode == 0
    submitted = (tmp_path / "submitted").read_text()
    assert submitted == scripts.run("slurm.sh", "script").stdout
    assert "\n".join(scripts.dry("slurm.sh", "start")[1:-1]) + "\n" == submitted
