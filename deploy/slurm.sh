#!/usr/bin/env bash
# A Ray cluster for the duration of one Slurm job, and one command on it:
#   sbatch deploy/slurm.sh suite suites/demo.toml --store /scratch/$USER/runs
# All nodes must see the checkout and the store. Submit the same command again to resume.
#SBATCH --job-name=hkdbench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
##SBATCH --gpus-per-task=1
set -euo pipefail

# A token for this job only: without it anyone on the network could run code on these nodes.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)
address=${address%% *}:$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node need different ports
folder=/tmp/ray-$SLURM_JOB_ID                            # short, as it holds sockets
cpus=${SLURM_CPUS_PER_TASK:-1}

on_node() { # NODE COMMAND...
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" "$@"
}

trap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT
on_node "$head" ray start --head --block --num-cpus="$cpus" --temp-dir="$folder" --include-dashboard=false \
    --node-ip-address="${address%:*}" --port="${address##*:}" &
for _ in $(seq 60); do # until the head answers
    on_node "$head" ray status --address="$address" >/dev/null 2>&1 && break
    sleep 2
done
for node in "${nodes[@]:1}"; do
    on_node "$node" ray start --block --address="$address" --num-cpus="$cpus" &
done
for _ in $(seq 60); do # until all nodes are there
    there=$(on_node "$head" ray status --address="$address" 2>/dev/null | grep -c " node_" || true)
    [ "$there" -ge "${#nodes[@]}" ] && break
    sleep 2
done

# In the background, so that Slurm's signal before the time limit reaches it and it can write its records.
RAY_ADDRESS=$address python -m harness "$@" &
run=$!
trap 'kill -TERM $run' TERM INT
code=0
wait $run || code=$?
if kill -0 $run 2>/dev/null; then # the signal ended the wait, not the run
    code=0
    wait $run || code=$?
fi
exit "$code"
