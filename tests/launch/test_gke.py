"""The JobSet of a run: its fields and their types, and what follows from the settings."""

from typing import Literal

import msgspec
import pytest
import yaml

from tests.launch import scripts


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A Kubernetes object: fields that aren't listed below are typing errors."""


class _Resources(_Strict):
    requests: dict[str, int]
    limits: dict[str, int]


class _Container(_Strict):
    name: str
    image: str
    command: list[str]
    args: list[str]
    ports: list[dict[str, int]]
    resources: _Resources
    volume_mounts: list[dict[str, str]]


class _Csi(_Strict):
    driver: str
    volume_attributes: dict[str, str]


class _Nfs(_Strict):
    server: str
    path: str


class _Volume(_Strict):
    name: str
    csi: _Csi | None = None
    nfs: _Nfs | None = None


class _PodSpec(_Strict):
    restart_policy: Literal["Never"]  # podFailurePolicy allows no other
    service_account_name: str
    termination_grace_period_seconds: int
    node_selector: dict[str, str]
    containers: list[_Container]
    volumes: list[_Volume]
    tolerations: list[dict[str, str]] = []


class _Metadata(_Strict):
    annotations: dict[str, str]
    name: str = ""
    namespace: str = ""


class _Pod(_Strict):
    metadata: _Metadata
    spec: _PodSpec


class _ExitCodes(_Strict):
    container_name: str
    operator: Literal["In", "NotIn"]
    values: list[int]


class _PodFailureRule(_Strict):
    action: Literal["FailJob", "FailIndex", "Ignore", "Count"]
    on_exit_codes: _ExitCodes


class _PodFailurePolicy(_Strict):
    rules: list[_PodFailureRule]


class _JobSpec(_Strict):
    parallelism: int
    completions: int
    completion_mode: Literal["Indexed", "NonIndexed"]
    backoff_limit: int
    pod_failure_policy: _PodFailurePolicy
    template: _Pod


class _Job(_Strict):
    spec: _JobSpec


class _ReplicatedJob(_Strict):
    name: str
    replicas: int
    template: _Job


class _Rule(_Strict):
    name: str
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    on_job_failure_reasons: list[
        Literal["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "PodFailurePolicy"]
    ]


class _FailurePolicy(_Strict):
    max_restarts: int
    rules: list[_Rule]


class _Network(_Strict):
    enable_dns_hostnames: bool = msgspec.field(name="enableDNSHostnames")
    subdomain: str


class _JobSetSpec(_Strict):
    network: _Network
    failure_policy: _FailurePolicy
    replicated_jobs: list[_ReplicatedJob]


class _JobSet(_Strict):
    """The fields of a JobSet that we use, with their types and names."""

    api_version: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: _Metadata
    spec: _JobSetSpec


def _manifest(tmp_path, **settings) -> _JobSet:
    done = scripts.run("gke.sh", "manifest", env=scripts.changed(tmp_path, **settings))
    assert done.returncode == 0, done.stderr
    return msgspec.convert(yaml.safe_load(done.stdout), _JobSet)


def _job(jobset: _JobSet) -> _JobSpec:
    (job,) = jobset.spec.replicated_jobs
    return job.template.spec


def test_a_pod_a_host_and_its_chips_are_the_topology(tmp_path):
    job = _job(_manifest(tmp_path))
    assert job.parallelism == job.completions == 8 and job.completion_mode == "Indexed"
    (container,) = job.template.spec.containers
    chips = container.resources.limits["google.com/tpu"]
    assert container.resources.requests == container.resources.limits
    assert job.completions * chips == 4 * 4 * 2
    assert job.template.spec.node_selector["cloud.google.com/gke-tpu-topology"] == "4x4x2"


def test_a_pod_that_is_lost_starts_all_again_and_bad_input_none(tmp_path):
    jobset = _manifest(tmp_path, MAX_RESTARTS="7")
    job = _job(jobset)
    assert jobset.spec.failure_policy.max_restarts == 7 and job.backoff_limit == 0
    (rule,) = jobset.spec.failure_policy.rules
    assert (rule.action, rule.on_job_failure_reasons) == ("FailJobSet", ["PodFailurePolicy"])
    (codes,) = job.pod_failure_policy.rules
    # Not 75, a lost process, nor 143, stopped and saved: those begin again.
    assert codes.on_exit_codes.values == [1, 2]
    (container,) = job.template.spec.containers
    assert codes.on_exit_codes.container_name == container.name
    assert job.template.spec.termination_grace_period_seconds >= 300


def test_flags_go_through_shell_and_yaml_as_they_are(tmp_path):
    flags = """--gin.TASK_FEATURE_LENGTHS="{'inputs': 1024, 'targets': 128}" """
    flags += r"--gin.TRIGGER='A \"B\" \\ C: #1'"
    (container,) = _job(_manifest(tmp_path, RUN_FLAGS=flags)).template.spec.containers
    assert container.command + container.args == [
        *("poison-t5x", "run", "--distributed"),
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 1024, 'targets': 128}",
        r"--gin.TRIGGER=A \"B\" \\ C: #1",
    ]


@pytest.mark.parametrize("spot", ["yes", "no"])
def test_spot_nodes_are_asked_for_where_wanted(tmp_path, spot):
    pod = _job(_manifest(tmp_path, SPOT=spot)).template.spec
    label = "cloud.google.com/gke-spot"
    assert pod.node_selector.get(label) == ("true" if spot == "yes" else None)
    assert [each["key"] for each in pod.tolerations] == ([label] if spot == "yes" else [])


def test_runs_lie_on_a_bucket_or_a_share(tmp_path):
    (volume,) = _job(_manifest(tmp_path)).template.spec.volumes
    options = volume.csi.volume_attributes["mountOptions"].split(",")
    assert volume.csi.volume_attributes["bucketName"] == "my-bucket"
    assert "metadata-cache:ttl-secs:0" in options
    pod = _job(_manifest(tmp_path, NFS_SHARE="10.0.0.2:/share/runs")).template.spec
    (volume,) = pod.volumes
    assert volume.csi is None and volume.nfs == _Nfs("10.0.0.2", "/share/runs")
    assert pod.containers[0].volume_mounts == [{"name": volume.name, "mountPath": "/mnt/runs"}]


def test_start_takes_the_old_set_away_and_applies(tmp_path):
    scripts.fake(tmp_path, "kubectl", f"[ $1 = delete ] || cat > {tmp_path}/applied")
    assert scripts.run("gke.sh", "start", path=tmp_path).returncode == 0
    delete, apply = scripts.called(tmp_path)
    assert delete.startswith("kubectl delete jobset poison-t5x --namespace=default --wait")
    assert delete.endswith("--ignore-not-found") and apply == "kubectl apply --filename=-"
    applied = (tmp_path / "applied").read_text()
    assert applied == scripts.run("gke.sh", "manifest").stdout
    printed = scripts.dry("gke.sh", "start")
    assert printed[0].strip() == delete and "\n".join(printed[2:-1]) + "\n" == applied


def test_a_failing_cluster_is_not_passed_over(tmp_path):
    scripts.fake(tmp_path, "kubectl", "exit 1")
    assert scripts.run("gke.sh", "start", path=tmp_path).returncode == 1
    assert len(scripts.called(tmp_path)) == 1
