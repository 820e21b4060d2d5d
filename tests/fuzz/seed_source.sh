#!/bin/sh
# Makes the seeds of the fuzz target `source`: small disks of each format, by its own program. Each
# format has a directory, to be fuzzed by itself.
#   tests/fuzz/seed_source.sh
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
here=$(cd "$(dirname "$0")" && pwd)
seeds=$here/seeds/source
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
for format in gz xz bz2 zst vmdk vhd vhdx ova partclone clonezilla qcow2; do
    rm -rf "$seeds/$format"
    mkdir -p "$seeds/$format"
done

# The encodings of disk_sums.rs: the sectors of a file that are no zeros; the files of a directory.
sectors() {
    python3 -c '
import sys
raw = open(sys.argv[1], "rb").read()
out = open(sys.argv[2], "wb")
out.write(b"\xfc")
for at in range(0, len(raw), 512):
    sector = raw[at:at + 512]
    if any(sector) or at + 512 >= len(raw):
        out.write((at // 512).to_bytes(3, "little") + sector)
' "$1" "$2"
}
directory() {
    python3 -c '
import os, sys
out = open(sys.argv[2], "wb")
out.write(b"\xfb")
for name in sorted(os.listdir(sys.argv[1])):
    content = open(os.path.join(sys.argv[1], name), "rb").read()
    out.write(bytes([len(name)]) + len(content).to_bytes(2, "little") + name.encode() + content)
' "$1" "$2"
}

{ printf 'netflash'; head -c 65528 /dev/zero; printf '%4096s' end; } > raw
truncate -s 128K raw
gzip -n -c raw > "$seeds/gz/one"
cat "$seeds/gz/one" "$seeds/gz/one" > "$seeds/gz/two"
xz -c raw > "$seeds/xz/one"
xz --check=crc32 --block-size=64KiB -c raw > "$seeds/xz/blocks"
bzip2 -c raw > "$seeds/bz2/one"
cat "$seeds/bz2/one" "$seeds/bz2/one" > "$seeds/bz2/two"
zstd -q -c raw > "$seeds/zst/one"
zstd -q --long=27 -19 -c raw > "$seeds/zst/long"

for subformat in monolithicSparse streamOptimized; do
    qemu-img convert -O vmdk -o subformat=$subformat raw disk.vmdk
    sectors disk.vmdk "$seeds/vmdk/$subformat"
done
printf '# Disk DescriptorFile\nparentCID=ffffffff\nRW 256 ZERO\nRW 2048 ZERO\n' > "$seeds/vmdk/zero"
qemu-img convert -O vpc raw disk.vhd
sectors disk.vhd "$seeds/vhd/dynamic"
qemu-img convert -O vpc -o subformat=fixed raw fixed.vhd
sectors fixed.vhd "$seeds/vhd/fixed"
qemu-img convert -O vhdx -o block_size=1M raw disk.vhdx
# The places of disk_sums.rs.
{
    printf '\376'
    for at in 64 192 2048 3072 3136; do
        dd if=disk.vhdx bs=512 count=1 skip=$((at * 2)) status=none
    done
} > "$seeds/vhdx/blocks"
qemu-img convert -O qcow2 raw disk.qcow2
head -c 512 disk.qcow2 > "$seeds/qcow2/header"

mkfs.vfat -C fat 64 > /dev/null
for sum in 0 1; do
    partclone.vfat -q -c -a$sum -L log -s fat -O saved-$sum 2> /dev/null
    sectors saved-$sum "$seeds/partclone/sum-$sum"
done
gzip -n -c saved-1 > "$seeds/partclone/gz"

mkdir saved
truncate -s 4M disk
printf 'label: gpt\nstart=2048,size=128\nstart=4096,size=1024,type=S\n' | sfdisk -q disk
dd if=fat of=disk bs=512 seek=2048 conv=notrunc status=none
echo sda > saved/disk
parted -s disk unit s print | sed 's,/.*/disk,/dev/sda,' > saved/sda-pt.parted
sfdisk -d disk > saved/sda-pt.sf
head -c 512 disk > saved/sda-mbr
head -c 17408 disk > saved/sda-gpt-1st
cp "$seeds/partclone/gz" saved/sda1.vfat-ptcl-img.gz.aa
printf 'UUID="92d422f0-3a17-4e69-93f0-f8fd1091e5eb"\nLABEL="swap"\n' > saved/swappt-sda2.info
directory saved "$seeds/clonezilla/gpt"
rm saved/*-gpt-* saved/*.info
truncate -s 0 disk && truncate -s 8M disk
printf 'label: dos\nstart=2048,size=128,bootable\nstart=4096,size=8192,type=5\nstart=6144,size=1024\nstart=10240,size=1024\n' |
    sfdisk -q disk
parted -s disk unit s print | sed 's,/.*/disk,/dev/sda,' > saved/sda-pt.parted
sfdisk -d disk | sed 's,/[^ ]*/disk,/dev/sda,' > saved/sda-pt.sf
head -c 512 disk > saved/sda-mbr
head -c 2048 /dev/zero > saved/sda-hidden-data-after-mbr
gzip -n -c fat > saved/sda5.dd-ptcl-img.gz
directory saved "$seeds/clonezilla/mbr"

cat > machine.ovf <<XML
<Envelope><References><File ovf:id="f" ovf:href="raw.gz"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f"/></DiskSection></Envelope>
XML
gzip -n -c raw > raw.gz
for file in machine.ovf raw.gz; do
    printf 'SHA256(%s)= %s\n' "$file" "$(sha256sum < "$file" | cut -d ' ' -f 1)"
done > machine.mf
tar --format=ustar -cf "$seeds/ova/sums" machine.ovf machine.mf raw.gz
tar --format=gnu -cf "$seeds/ova/gnu" machine.ovf raw.gz
tar --format=pax -cf "$seeds/ova/pax" machine.ovf raw.gz
