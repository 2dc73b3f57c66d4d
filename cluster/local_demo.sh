#!/usr/bin/env bash
# The segmentation of a bucket on the cluster of local.sh, which loses a node when a third is done: the run goes on,
# and `dinoidd verify` proves that every image has its one row. `make cluster-demo` calls this.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images=${1:-600}
export DINOIDD_CLUSTER=${DINOIDD_CLUSTER:-/tmp/dinoidd-cluster-$(id -u)}
name=streets-$(date +%H%M%S)
output=s3://demo/$name

say() { echo "== $(date +%T) $*"; }

done_so_far() { # images; 0 before the run has begun
    local found
    found=$(dinoidd status "$output" --json 2> /dev/null | sed -n 's/^ *"done": \([0-9]*\).*/\1/p') || true
    echo "${found:-0}"
}

say "a head without work, two nodes, a bucket"
"$here/local.sh" up
# shellcheck disable=SC1091
. "$DINOIDD_CLUSTER/env"

say "$images images into the bucket"
scenes=$DINOIDD_CLUSTER/scenes-$images
[ -d "$scenes" ] || dinoidd data generate --output "$scenes" --images "$images" --image-size 320x180 --splits val=1
python - "$scenes/leftImg8bit/" s3://demo/in/ << 'END'
import sys, s3fs

bucket = s3fs.S3FileSystem()
bucket.makedirs("demo", exist_ok=True)
bucket.put(sys.argv[1], sys.argv[2], recursive=True)
print(len(bucket.find(sys.argv[2])), "images are there")
END

say "submitting"
dinoidd jobs submit --no-wait --name "$name" --metadata demo=yes segment --preset tiny --actors 2 \
    --rows-per-chunk 8 --input s3://demo/in/ --output "$output"
dinoidd jobs logs --follow "$name" &
follower=$!
until [ "$(done_so_far)" -ge $((images / 3)) ]; do
    kill -0 "$follower" 2> /dev/null || break # the run has ended, and says why
    sleep 1
done
say "worker-2 dies, at $(done_so_far) of $images images"
"$here/local.sh" kill worker-2
wait "$follower"

say "what is left of the cluster, and of the run"
"$here/local.sh" status
dinoidd jobs status "$name"
dinoidd status "$output"
dinoidd verify "$output" --all
say "the dashboard is at $RAY_ADDRESS; 'make cluster-down' ends everything"
