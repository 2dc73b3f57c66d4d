#!/usr/bin/env bash
# A Ray cluster of several nodes on this machine, with a bucket and what watches it.
#   local.sh up          a head without work, two nodes that work, an S3 server, and Prometheus and
#                        Grafana where they are installed; again: starts what has ended since
#   local.sh status      what runs
#   local.sh kill NODE   a node dies as a machine does: all its processes at once
#   local.sh down        ends what `up` started, by its process ids, and removes its files
# Everything listens on loopback, and Ray asks for a token. `. $DINOIDD_CLUSTER/env` gives a shell the
# addresses and the token. Needs the package's environment on PATH (`make cluster` sees to it).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
state=${DINOIDD_CLUSTER:-/tmp/dinoidd-cluster-$(id -u)} # short: a socket's path has 100 letters at most
workers=${DINOIDD_WORKERS:-2}
cpus=${DINOIDD_CPUS:-3} # logical ones of each worker, whatever the machine has
store=200000000         # bytes of each node's object store

fail() {
    echo "local.sh: $*" >&2
    exit 1
}

# Processes. Each has NAME.log, and NAME.pid: its id and when it began, so that no other is taken for it.

since() { # PID: when it began; fails where it has ended
    local told
    told=$(ps -o stat=,lstart= -p "$1" | xargs) && [ -n "$told" ] && [[ $told != Z* ]] && echo "${told#* }"
}

running() { # NAME
    [ -f "$state/$1.pid" ] || return 1
    local pid began
    read -r pid began < "$state/$1.pid"
    [ "$(since "$pid")" = "$began" ]
}

start() { # NAME COMMAND...
    local name=$1
    shift
    # 3 to 9: what the caller holds open (a lock, a jobserver of make) is not theirs to keep.
    nohup "$@" > "$state/$name.log" 2>&1 < /dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    echo "$! $(since $!)" > "$state/$name.pid"
}

below() { # PID: it, and all that it started, however deep
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do below "$child"; done
}

living() { # PID...: those that live, each with its beginning
    local pid began
    for pid in "$@"; do if began=$(since "$pid"); then echo "$pid $began"; fi; done
}

end() { # NAME [at-once]: asked to, and made to ten seconds later; or made to at once
    running "$1" || return 0
    local pid family
    read -r pid _ < "$state/$1.pid"
    # shellcheck disable=SC2046 # numbers
    family=$(living $(below "$pid"))
    if [ $# = 1 ]; then
        kill -TERM "$pid"
        for _ in $(seq 50); do
            running "$1" || break
            sleep 0.2
        done
    fi
    while read -r pid began; do
        [ "$(since "$pid")" != "$began" ] || kill -KILL "$pid" 2> /dev/null || true
    done <<< "$family"
    rm -f "$state/$1.pid"
}

await() { # NAME SECONDS COMMAND...: until the command succeeds
    local name=$1 tries=$(($2 * 4))
    shift 2
    until "$@" > /dev/null 2>&1; do
        running "$name" || fail "$name has ended: $(tail -n 20 "$state/$name.log")"
        [ $((tries -= 1)) -gt 0 ] || fail "$name does not answer: see $state/$name.log"
        sleep 0.25
    done
}

# What is started.

ports() { # WANTED...: each, or another one where that is taken
    python - "$@" << 'END'
import socket, sys

held = []
for wanted in map(int, sys.argv[1:]):
    held.append(socket.socket())
    try:
        held[-1].bind(("127.0.0.1", wanted))
    except OSError:
        held[-1].bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
END
}

write_settings() { # once: later calls of `up` find the same
    local gcs dashboard s3 prometheus grafana client autoscaler metrics
    read -r gcs dashboard s3 prometheus grafana client autoscaler metrics \
        < <(ports 6379 8265 9000 9090 3000 10001 44217 44227)
    (umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' > "$state/token")
    printf 'export %s=%q\n' > "$state/env" \
        DINOIDD_CLUSTER "$state" RAY_ADDRESS "http://127.0.0.1:$dashboard" \
        RAY_AUTH_MODE token RAY_AUTH_TOKEN_PATH "$state/token" RAY_USAGE_STATS_ENABLED 0 \
        AWS_ENDPOINT_URL_S3 "http://127.0.0.1:$s3" AWS_DEFAULT_REGION us-east-1 \
        AWS_ACCESS_KEY_ID any AWS_SECRET_ACCESS_KEY any AWS_EC2_METADATA_DISABLED true
    printf '%s=%q\n' > "$state/settings" gcs "$gcs" dashboard "$dashboard" s3 "$s3" \
        prometheus "$prometheus" grafana "$grafana" client "$client"
    printf 'export %s=%q\n' >> "$state/settings" \
        AUTOSCALER_METRIC_PORT "$autoscaler" DASHBOARD_METRIC_PORT "$metrics" RAY_worker_niceness 0 \
        RAY_metrics_report_interval_ms 5000 \
        RAY_PROMETHEUS_HOST "http://127.0.0.1:$prometheus" RAY_GRAFANA_HOST "http://127.0.0.1:$grafana"
}

start_s3() { # moto, in an environment of its own: it stands in for S3, in memory, and takes any key
    local venv=$root/.cache/moto
    if ! [ -f "$venv/complete" ]; then
        echo "installing the S3 server into $venv"
        python -m venv --clear "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -c "$root/constraints.txt" 'moto[server]'
        touch "$venv/complete"
    fi
    start s3 "$venv/bin/moto_server" -H 127.0.0.1 -p "$s3"
}

# Ray takes 127.0.0.1 for the machine's address, and then listens on all of its networks. It keeps to loopback on a
# head that it is told not to be reached from elsewhere, and on a node that knows its head by another name.
loopback=RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER

start_node() { # NAME OPTION...: with a folder, ports and an object store of its own
    local name=$1 agent
    shift
    agent=$(ports 0)
    start "$name" env -u RAY_ADDRESS "$loopback=$([ "$name" != head ] && echo 1 || echo 0)" \
        ray start --block --disable-usage-stats --temp-dir="$state/$name" --object-store-memory="$store" \
        --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port="$agent" "$@"
}

start_prometheus() {
    sed -e "s|/tmp/ray/|$state/head/|" -e "s|alerts.yml|$here/prometheus/alerts.yml|" -e 's|: 15s|: 5s|' \
        "$here/prometheus/prometheus.yml" > "$state/prometheus.yml"
    start prometheus prometheus --config.file="$state/prometheus.yml" \
        --storage.tsdb.path="$state/prometheus" --web.listen-address="127.0.0.1:$prometheus"
}

start_grafana() { # with the data source and the dashboards that Ray's head wrote, and ours among them
    local written=$state/head/session_latest/metrics/grafana
    cp "$here/grafana/dinoidd.json" "$written/dashboards/"
    start grafana env GF_SERVER_HTTP_ADDR=127.0.0.1 GF_SERVER_HTTP_PORT="$grafana" \
        GF_PATHS_DATA="$state/grafana" GF_ANALYTICS_REPORTING_ENABLED=false GF_ANALYTICS_CHECK_FOR_UPDATES=false \
        grafana-server --homepath "${GRAFANA_HOME:-/usr/share/grafana}" --config "$written/grafana.ini"
}

# What is asked for.

up() {
    for needed in ray python curl ps pgrep; do
        command -v "$needed" > /dev/null || fail "there is no '$needed' on PATH (make cluster)"
    done
    if ! [ -f "$state/settings" ]; then
        (umask 077 && mkdir "$state") || fail "set DINOIDD_CLUSTER to a folder that is not there yet"
        write_settings
    fi
    [ -O "$state" ] || fail "$state is somebody else's: set DINOIDD_CLUSTER to another folder"
    unset RAY_API_SERVER_ADDRESS RAY_AUTH_TOKEN
    # shellcheck disable=SC1091
    . "$state/env" && . "$state/settings"

    running s3 || start_s3
    running head || start_node head --head --num-cpus=0 --port="$gcs" --dashboard-host=127.0.0.1 \
        --dashboard-port="$dashboard" --ray-client-server-port="$client"
    await head 60 curl -sf -m 5 -H "Authorization: Bearer $(cat "$state/token")" "$RAY_ADDRESS/api/jobs/"
    for name in $(worker_names); do
        running "$name" || start_node "$name" --address="LOCALHOST:$gcs" --num-cpus="$cpus" \
            --resources="{\"$name\": 1}"
    done
    for name in $(worker_names); do
        await "$name" 60 grep -q 'Ray runtime started' "$state/$name.log"
    done
    await s3 30 curl -sf -m 5 -X PUT "$AWS_ENDPOINT_URL_S3/demo" # the bucket
    command -v prometheus > /dev/null && { running prometheus || start_prometheus; }
    command -v grafana-server > /dev/null && { running grafana || start_grafana; }
    status
    echo "in your shell:  . $state/env"
}

worker_names() { seq -f 'worker-%g' "$workers"; }

status() {
    [ -f "$state/settings" ] || fail "nothing was started in $state"
    # shellcheck disable=SC1091
    . "$state/settings"
    local name where
    for name in s3 head $(worker_names) prometheus grafana; do
        case $name in
            head) where="http://127.0.0.1:$dashboard (dashboard; token in $state/token)" ;;
            worker-*) where="$cpus logical CPUs" ;;
            *) where="http://127.0.0.1:${!name}" ;;
        esac
        if running "$name"; then
            echo "$name: runs, $where"
        elif [ -f "$state/$name.log" ]; then
            echo "$name: has ended, see $state/$name.log"
        else
            echo "$name: is not installed"
        fi
    done
}

down() {
    [ -f "$state/settings" ] || fail "nothing was started in $state"
    for name in grafana prometheus $(worker_names) head s3; do end "$name"; done
    rm -rf "$state"
}

case ${1:-} in
    up | status | down) "$1" ;;
    kill)
        running "${2:?kill: which node? (worker-2)}" || fail "$2 does not run"
        end "$2" at-once
        ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
