#!/usr/bin/env bash
# Creates kind clusters of the address plan and applies their manifests. Needs docker, kind and kubectl.
#   kind-clusters/up.sh [cluster...]      default: cluster1 cluster2
# All of them join Docker's network "kind"; meshd itself is not installed by this.
set -euo pipefail
cd "$(dirname "$0")"

for program in docker kind kubectl; do
  command -v "$program" >/dev/null || { echo "up.sh: needs $program; without it: meshd testbed up" >&2; exit 3; }
done

clusters=("$@")
[ ${#clusters[@]} -gt 0 ] || clusters=(cluster1 cluster2)
for cluster in "${clusters[@]}"; do
  [ -f "$cluster.yaml" ] || { echo "up.sh: no configuration $cluster.yaml here" >&2; exit 3; }
  if ! kind get clusters | grep -qx "$cluster"; then
    kind create cluster --config "$cluster.yaml" --wait 2m
  fi
  kubectl --context "kind-$cluster" apply -f manifests/shared -f "manifests/$cluster"
  kubectl --context "kind-$cluster" wait pods --all --for=condition=Ready --timeout=2m
done
