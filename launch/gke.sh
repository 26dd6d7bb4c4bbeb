#!/usr/bin/env bash
# A run on a GKE TPU slice, as a JobSet: a pod a host, all started again when one ends badly.
# usage: launch/gke.sh [--dry-run] image|manifest|start|status|logs|delete
#   image     builds and pushes IMAGE       manifest  prints the JobSet
#   start     applies it; the same again goes on with the run
#   status    of the JobSet and its pods    logs      of the first pod
#   delete    the JobSet, which saves first; the run's folder stays
# Needs a cluster with the JobSet controller, the Cloud Storage FUSE driver, and a node pool of the
# topology; docs/PODS.md says how to make them.
set -euo pipefail
. "$(dirname "$0")/pod_settings.sh"
commands="image, manifest, start, status, logs, delete"
take_flags "$@"
[ ${#arguments[@]} = 1 ] || fail "give one of $commands"
read_settings JOB_NAME NAMESPACE IMAGE GKE_ACCELERATOR GKE_TOPOLOGY NUM_HOSTS CHIPS_PER_HOST \
  SERVICE_ACCOUNT MAX_RESTARTS RUN_FLAGS
[ -n "${NFS_SHARE:-}${BUCKET:-}" ] || fail "set BUCKET or NFS_SHARE; see launch/pod.env.example"

# The flags as a YAML list, one of the shell's words each.
container_arguments() {
  local words word
  eval "words=($RUN_FLAGS)"
  for word in run --distributed "${words[@]}"; do
    printf '                - "%s"\n' "$(printf '%s' "$word" | sed 's/[\\"]/\\&/g')"
  done
}

spot_selector() {
  [ "${SPOT:-no}" != yes ] || printf '              cloud.google.com/gke-spot: "true"\n'
}

spot_tolerations() {
  [ "${SPOT:-no}" != yes ] || cat <<'YAML'
            tolerations:
            - key: cloud.google.com/gke-spot
              operator: Equal
              value: "true"
              effect: NoSchedule
YAML
}

# /mnt/runs. Of a bucket nothing is remembered: a process sees at once what another one wrote.
volume() {
  if [ -n "${NFS_SHARE:-}" ]; then
    cat <<YAML
              nfs:
                server: "${NFS_SHARE%%:*}"
                path: "${NFS_SHARE#*:}"
YAML
  else
    cat <<YAML
              csi:
                driver: gcsfuse.csi.storage.gke.io
                volumeAttributes:
                  bucketName: "$BUCKET"
                  mountOptions: "implicit-dirs,rename-dir-limit=100000,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0"
YAML
  fi
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $JOB_NAME
  namespace: $NAMESPACE
  annotations:
    # All pods of the run on one slice.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  # The headless service, by whose names the pods find each other.
  network:
    enableDNSHostnames: true
    subdomain: $JOB_NAME
  failurePolicy:
    maxRestarts: $MAX_RESTARTS
    rules:
    # What starting again won't change: see podFailurePolicy.
    - name: needsAPerson
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: hosts
    replicas: 1
    template:
      spec:
        parallelism: $NUM_HOSTS
        completions: $NUM_HOSTS
        completionMode: Indexed
        # A pod that ends badly fails the job: the set's own restarts begin all of them again.
        backoffLimit: 0
        podFailurePolicy:
          rules:
          # Training diverged; bad input.
          - action: FailJob
            onExitCodes:
              containerName: poison-t5x
              operator: In
              values: [1, 2]
        template:
          metadata:
            annotations:
              gke-gcsfuse/volumes: "true"
          spec:
            restartPolicy: Never
            serviceAccountName: $SERVICE_ACCOUNT
            # SIGTERM saves a checkpoint first.
            terminationGracePeriodSeconds: 600
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $GKE_ACCELERATOR
              cloud.google.com/gke-tpu-topology: "$GKE_TOPOLOGY"
$(spot_selector)
$(spot_tolerations)
            containers:
            - name: poison-t5x
              image: "$IMAGE"
              command: ["poison-t5x"]
              args:
$(container_arguments)
              ports:
              - containerPort: 8471
              - containerPort: 8476
              resources:
                requests:
                  google.com/tpu: $CHIPS_PER_HOST
                limits:
                  google.com/tpu: $CHIPS_PER_HOST
              volumeMounts:
              - name: runs
                mountPath: /mnt/runs
            volumes:
            - name: runs
$(volume)
YAML
}

start() {
  local text
  text=$(manifest)
  # What is there has ended, or is to be begun again: a JobSet can't be changed.
  delete --ignore-not-found
  if [ "$dry_run" = yes ]; then
    printf "kubectl apply --filename=- <<'YAML'\n%s\nYAML\n" "$text"
  else
    kubectl apply --filename=- <<< "$text"
  fi
}

delete() {
  do_it kubectl delete jobset "$JOB_NAME" --namespace="$NAMESPACE" --wait "$@"
}

status() {
  local selector=jobset.sigs.k8s.io/jobset-name=$JOB_NAME
  do_it kubectl get jobset "$JOB_NAME" --namespace="$NAMESPACE"
  do_it kubectl get pods --namespace="$NAMESPACE" --selector="$selector" --output=wide
}

logs() {
  do_it kubectl logs --namespace="$NAMESPACE" --container=poison-t5x --tail=40 \
    --selector="jobset.sigs.k8s.io/jobset-name=$JOB_NAME,batch.kubernetes.io/job-completion-index=0"
}

image() {
  do_it docker build --file="$launch_dir/Dockerfile" --tag="$IMAGE" "$root"
  do_it docker push "$IMAGE"
}

case ${arguments[0]} in
  image) need docker; image ;;
  manifest) manifest ;;
  start | status | logs | delete) need kubectl; "${arguments[0]}" ;;
  *) fail "unknown command ${arguments[0]}; known are $commands" ;;
esac
