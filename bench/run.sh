#!/bin/sh
# Measures what is promised about speed: bench/run.sh [memory] [os] [fsync] [layers] [go]   (default: memory os fsync)
#
# Starts an nsqd for each durability mode, prints tables, and leaves JSON in bench/results/<mode>.json.
# NSQD and NSQKIT name the programs, ROUNDS the measured rounds of each case.
set -eu

NSQD=${NSQD:-nsqd}
NSQKIT=${NSQKIT:-nsqkit}
ROUNDS=${ROUNDS:-3}
RESULTS=$(dirname "$0")/results
IN_MEMORY=--mem-queue-size=2000000
failed=0

mkdir -p "$RESULTS"

# measure <name> <nsqd command> <arguments of the bench...>
measure() {
    name=$1 command=$2
    shift 2
    echo "== $name: $command"
    # $NSQKIT may be several words, such as "python -m nsqkit".
    $NSQKIT bench --spawn "$command" --rounds "$ROUNDS" --json "$RESULTS/$name.json" "$@" || failed=1
    echo
}

[ $# -gt 0 ] || set -- memory os fsync
for mode; do
    case $mode in
    memory) measure memory "$NSQD --durability=memory $IN_MEMORY" pub consume latency --batch 200,1 ;;
    os) measure os "$NSQD --durability=os" pub consume latency --batch 200,1 ;;
    fsync) measure fsync "$NSQD --durability=fsync" fsync ;;
    layers)
        made=$(mktemp -d)
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
            -keyout "$made/key" -out "$made/certificate" 2>/dev/null
        for layers in "" --tls --snappy --deflate "--tls --snappy" "--tls --deflate"; do
            # shellcheck disable=SC2086  # several words
            measure "layers$(echo "$layers" | tr -d ' ')" "$NSQD --tls-cert=$made/certificate --tls-key=$made/key" \
                $layers pub consume --batch 200
        done
        rm -r "$made"
        ;;
    go) measure go "$NSQD $IN_MEMORY" pub consume latency --batch 200,1 ;;
    *) echo "unknown mode $mode" >&2; exit 2 ;;
    esac
done
exit $failed
