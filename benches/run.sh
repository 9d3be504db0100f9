#!/usr/bin/env bash
# Makes the tables of README.md. `run.sh WHAT [name=value ...]`, where WHAT is one of
#   accuracy   samples against CPU clocks, 1 to 64 threads            (about 15 minutes)
#   cost       the handler in place, the account, the switch, stack   (about 3 minutes)
#   overhead   the peers, each in a binary of its own                 (about 30 minutes)
#   resident   memory of yolo26-stub, with and without                (15 minutes)
# and the rest goes to the program; each says in its first lines what it takes.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
what="${1:?accuracy, cost, overhead or resident}"
shift

cargo build --locked --release -q -p hsi-profiling-benches --bin "$what"
case "$what" in
    overhead)
        # One at a time: built together they would share features.
        for peer in nothing ours pprof pprof-framehop pyroscope rpprof; do
            cargo build --locked --release -q --manifest-path benches/peers/Cargo.toml \
                --target-dir "$target/peers" -p "peer-$peer"
        done
        set -- "dir=$target/peers/release" "$@" ;;
    resident)
        cargo build --locked --release -q -p yolo26-stub
        set -- "service=$target/release/yolo26-stub" "$@" ;;
esac
exec "$target/release/$what" "$@"
