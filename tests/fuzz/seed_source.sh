#!/bin/sh
# Makes the seeds of the fuzz target `source`: one small disk of each format, by its own program.
#   tests/fuzz/seed_source.sh
set -eu
seeds=$(cd "$(dirname "$0")" && pwd)/seeds/source
mkdir -p "$seeds"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
{ printf 'netflash'; head -c 65528 /dev/zero; printf '%4096s' end; } > raw
truncate -s 128K raw
for format in gz xz bz2 zst; do
    case $format in
        gz) gzip -c raw ;;
        xz) xz -c raw ;;
        bz2) bzip2 -c raw ;;
        zst) zstd -q -c raw ;;
    esac > "$seeds/$format"
done
for subformat in monolithicSparse streamOptimized; do
    qemu-img convert -O vmdk -o subformat=$subformat raw disk.vmdk
    cp disk.vmdk "$seeds/vmdk-$subformat"
done
qemu-img convert -O vmdk -o subformat=monolithicFlat raw flat.vmdk
cp flat.vmdk "$seeds/vmdk-descriptor"
qemu-img convert -O vpc raw disk.vhd
head -c 4096 disk.vhd > "$seeds/vhd" # without its one block of 2 MiB
qemu-img convert -O vpc -o subformat=fixed raw "$seeds/vhd-fixed"
qemu-img convert -O vhdx -o block_size=1M raw disk.vhdx
# The places of disk_sums.rs.
{
    printf '\376'
    for at in 64 192 2048 3072 3136; do
        dd if=disk.vhdx bs=512 count=1 skip=$((at * 2)) status=none
    done
} > "$seeds/vhdx"
/usr/sbin/mkfs.vfat -C fat 64 > /dev/null
/usr/sbin/partclone.vfat -q -c -L log -s fat -O saved
cp saved "$seeds/partclone"
gzip -c saved > "$seeds/partclone-gz"
cat > machine.ovf <<XML
<Envelope><References><File ovf:id="f" ovf:href="raw.gz"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f"/></DiskSection></Envelope>
XML
gzip -n -c raw > raw.gz
for file in machine.ovf raw.gz; do
    printf 'SHA256(%s)= %s\n' "$file" "$(sha256sum < "$file" | cut -d ' ' -f 1)"
done > machine.mf
tar --format=ustar -cf "$seeds/ova" machine.ovf machine.mf raw.gz
