#!/bin/bash
# Fuzzes every reader by itself, one after the other, and says what came of it. Needs root once, for the volumes.
#   tests/fuzz/all.sh [SECONDS]      600 seconds each, four hours in all
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
export RUSTC_BOOTSTRAP=1
[ -d tests/fuzz/volumes ] || tests/fuzz/seed_volume.sh
logs=$(mktemp -d)
echo "logs in $logs"

fuzz() { # NAME TARGET SANITIZER SEEDS OPTIONS…
    local name=$1 target=$2 sanitizer=$3 seeds=$4
    shift 4
    mkdir -p "tests/fuzz/corpus/$name"
    local code=0
    cargo fuzz run -s "$sanitizer" --fuzz-dir tests/fuzz "$target" "tests/fuzz/corpus/$name" $seeds -- \
        -max_total_time="$seconds" -print_final_stats=1 -rss_limit_mb=2500 -timeout=60 "$@" \
        > "$logs/$name" 2>&1 || code=$?
    echo "$name: code $code, $(sed -n 's/stat::number_of_executed_units: *//p' "$logs/$name") runs"
}

# The readers are safe Rust: without a sanitizer three times as many runs. What unpacks is C.
for reader in ext xfs btrfs ntfs fat exfat swap lvm luks bitlocker disk; do
    NETFLASH_READER=$reader fuzz "$reader" volume none "" -max_len=400 -len_control=0
done
for format in gz xz bz2 zst vmdk vhd vhdx ova partclone clonezilla qcow2; do
    fuzz "$format" source address "tests/fuzz/seeds/source/$format" -max_len=24000
done
fuzz manifest manifest address tests/fuzz/seeds/manifest -max_len=20000
fuzz wire wire address tests/fuzz/seeds/wire
fuzz tftp tftp address tests/fuzz/seeds/tftp -max_len=2048
fuzz dhcp dhcp address tests/fuzz/seeds/dhcp -max_len=1600
for target in sender receiver; do
    fuzz "$target" "$target" address "" -max_len=4096 -len_control=0
done
