#!/usr/bin/env bash
# Shuts this machine down after MINUTES without work, so that nobody pays for a forgotten cluster.
#   idle_shutdown.sh head MINUTES     no job is pending or running (or the head no longer answers)
#   idle_shutdown.sh worker MINUTES   Ray is gone from this node: its head died or was taken away
# EC2 ends the instance then (InstanceInitiatedShutdownBehavior: terminate).
set -u
role=${1:?head or worker} minutes=${2:?minutes without work}
jobs=http://127.0.0.1:8265/api/jobs/

busy_head() {
    curl -sf -m 10 -H "Authorization: Bearer $(cat ~/.ray/auth_token)" "$jobs" |
        grep -qE '"status": *"(PENDING|RUNNING)"'
}

busy_worker() { pgrep -x raylet > /dev/null; }

case $role in
    head | worker) ;;
    *) echo "idle_shutdown.sh: $role is neither head nor worker" >&2; exit 2 ;;
esac
exec 9> "${TMPDIR:-/tmp}/idle_shutdown.$role.lock"
flock -n 9 || exit 0 # one is watching already

idle=0
while ((idle < minutes)); do
    sleep "${POLL_SECONDS:-60}"
    if "busy_$role"; then idle=0; else idle=$((idle + 1)); fi
done
echo "$(date -u +%FT%TZ) no work for $minutes minutes: shutting down"
sudo shutdown -h now
