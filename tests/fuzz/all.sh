#!/bin/bash
# Fuzzes every reader by itself and says what came of it. Needs root once, for the volumes.
#   tests/fuzz/all.sh [SECONDS [NAME…]]   600 CPU seconds each, on all cores; five hours of one core
# With NETFLASH_FUZZ_BIN=DIR the fuzzers are taken from there and not built.
# The work of a fuzzer is told in seconds of a processor: seconds by the clock say nothing of it on a busy machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
shift || true
only=" $* "
logs=$(mktemp -d)
echo "logs in $logs"
[ -d tests/fuzz/volumes ] || tests/fuzz/seed_volume.sh > "$logs/volumes" 2>&1
corpus=$PWD/tests/fuzz/corpus
seeds=$PWD/tests/fuzz/seeds

build() { # SANITIZER TARGET…
    local sanitizer=$1 target
    shift
    for target in "$@"; do
        RUSTC_BOOTSTRAP=1 cargo fuzz build -s "$sanitizer" --fuzz-dir tests/fuzz "$target"
        cp "tests/fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$bin/"
    done
}
if [ -z "${NETFLASH_FUZZ_BIN:-}" ]; then
    bin=$PWD/tests/fuzz/target/built
    mkdir -p "$bin"
    # The readers of volumes are safe Rust: without a sanitizer three times as many runs. What unpacks is C.
    build none volume
    build address source manifest wire tftp dhcp igmp cmdline power sender receiver
else
    bin=$NETFLASH_FUZZ_BIN
fi

worked() { # PID: CPU seconds it has taken, 0 when it has ended
    awk -v tick="$(getconf CLK_TCK)" '{ print int(($14 + $15) / tick); told = 1 } END { if (!told) print 0 }' \
        "/proc/$1/stat" 2> /dev/null || echo 0
}

fuzz() { # NAME TARGET SEEDS OPTIONS…
    local name=$1 target=$2 seeds=$3 code=0 cpu=0 now pid
    shift 3
    mkdir -p "$corpus/$name"
    # shellcheck disable=SC2086 # no seeds are no argument
    "$bin/$target" "$corpus/$name" $seeds -print_final_stats=1 -rss_limit_mb=2500 -timeout=60 \
        "-artifact_prefix=$logs/$name-" "$@" > "$logs/$name" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2> /dev/null; do
        now=$(worked "$pid")
        [ "$now" -le "$cpu" ] || cpu=$now
        # It ends by itself at this signal, and with 0.
        [ "$cpu" -lt "$seconds" ] || kill -USR1 "$pid" 2> /dev/null || true
        sleep 1
    done
    wait "$pid" || code=$?
    echo "$name: code $code, $(sed -n 's/stat::number_of_executed_units: *//p' "$logs/$name") runs, $cpu CPU s"
    [ "$code" = 0 ] || touch "$logs/failed"
}

begin() { # NAME …: in the background, as soon as a processor is free
    [ "$only" = "  " ] || [[ "$only" == *" $1 "* ]] || return 0
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    fuzz "$@" &
}

for reader in ext xfs btrfs ntfs fat exfat swap lvm luks bitlocker disk; do
    export NETFLASH_READER=$reader
    begin "$reader" volume "" -max_len=400 -len_control=0
done
for format in gz xz bz2 zst vmdk vhd vhdx ova partclone clonezilla qcow2; do
    begin "$format" source "$seeds/source/$format" -max_len=24000
done
begin manifest manifest "$seeds/manifest" -max_len=20000
begin wire wire "$seeds/wire"
begin tftp tftp "$seeds/tftp" -max_len=2048
begin dhcp dhcp "$seeds/dhcp" -max_len=1600
begin igmp igmp "" -max_len=2048
begin cmdline cmdline "$seeds/cmdline"
begin power power "$seeds/power" -max_len=8000
for target in sender receiver; do
    begin "$target" "$target" "" -max_len=4096 -len_control=0
done
wait
[ ! -e "$logs/failed" ]
