#!/usr/bin/env bash
# Installs BIRD 2 in every node of kind clusters that run, with the configuration beside this file, and starts it.
#   kind-clusters/bird/up.sh [cluster...]      default: cluster1 cluster2
# Give meshd's daemons `export_pod_cidrs: true` and `routing_mode: hybrid`. The nodes fetch bird2 from Debian.
set -euo pipefail
cd "$(dirname "$0")"

for program in docker kind; do
  command -v "$program" >/dev/null || { echo "bird/up.sh: needs $program" >&2; exit 3; }
done

clusters=("$@")
[ ${#clusters[@]} -gt 0 ] || clusters=(cluster1 cluster2)
for cluster in "${clusters[@]}"; do
  nodes=$(kind get nodes --name "$cluster" 2>/dev/null)
  [ -n "$nodes" ] || { echo "bird/up.sh: no kind cluster $cluster runs; kind-clusters/up.sh makes it" >&2; exit 3; }
  for node in $nodes; do
    docker exec "$node" sh -c 'command -v bird >/dev/null ||
      { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy bird2; }'
    docker cp bird.conf "$node:/etc/bird/bird.conf"
    docker exec "$node" systemctl restart bird
  done
done
