#!/usr/bin/env bash
# A run on a GKE TPU slice, as a JobSet: a pod a host, all started again when one ends badly.
# usage: launch/gke.sh [--dry-run] manifest|start|logs|delete
#   manifest  prints the JobSet         start   applies it; the same again goes on with the run
#   logs      of the first pod          delete  the JobSet; the run's folder stays in the bucket
# Needs a cluster with the JobSet controller, the Cloud Storage FUSE driver, and a node pool of the
# topology; docs/PODS.md says how to make them.
set -euo pipefail
. "$(dirname "$0")/pod_settings.sh"
take_flags "$@"
[ ${#arguments[@]} = 1 ] || fail "usage: launch/gke.sh [--dry-run] manifest|start|logs|delete"
read_settings JOB_NAME NAMESPACE IMAGE BUCKET GKE_ACCELERATOR GKE_TOPOLOGY NUM_HOSTS \
  CHIPS_PER_HOST SERVICE_ACCOUNT MAX_RESTARTS RUN_FLAGS

# The flags as a YAML list, one of the shell's words each.
container_arguments() {
  local words word
  eval "words=($RUN_FLAGS)"
  for word in run --distributed "${words[@]}"; do
    printf '                - "%s"\n' "$(printf '%s' "$word" | sed 's/[\\"]/\\&/g')"
  done
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
  failurePolicy:
    maxRestarts: $MAX_RESTARTS
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
        template:
          metadata:
            annotations:
              gke-gcsfuse/volumes: "true"
          spec:
            subdomain: $JOB_NAME
            restartPolicy: Never
            serviceAccountName: $SERVICE_ACCOUNT
            # SIGTERM saves a checkpoint first.
            terminationGracePeriodSeconds: 600
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $GKE_ACCELERATOR
              cloud.google.com/gke-tpu-topology: $GKE_TOPOLOGY
            containers:
            - name: poison-t5x
              image: $IMAGE
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
              csi:
                driver: gcsfuse.csi.storage.gke.io
                volumeAttributes:
                  bucketName: $BUCKET
                  mountOptions: "implicit-dirs,rename-dir-limit=100000"
YAML
}

start() {
  if [ "$dry_run" = yes ]; then
    echo "launch/gke.sh manifest | kubectl apply -f -"
    manifest
  else
    # What is there has ended, or is to be begun again: a JobSet can't be changed.
    kubectl delete jobset "$JOB_NAME" --namespace="$NAMESPACE" --ignore-not-found --wait
    manifest | kubectl apply -f -
  fi
}

case ${arguments[0]} in
  manifest) manifest ;;
  start) need kubectl; start ;;
  logs) need kubectl; do_it kubectl logs --namespace="$NAMESPACE" --tail=40 \
    --selector="jobset.sigs.k8s.io/jobset-name=$JOB_NAME,batch.kubernetes.io/job-completion-index=0" ;;
  delete) need kubectl; do_it kubectl delete jobset "$JOB_NAME" --namespace="$NAMESPACE" ;;
  *) fail "unknown command ${arguments[0]}; known are manifest, start, logs, delete" ;;
esac
