#!/bin/sh
# Makes the volumes that the fuzz target `volume` changes: by their own tools, filled and half emptied
# where the kernel can mount them. Needs root, for loop devices.
#   sudo tests/fuzz/seed_volume.sh
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
volumes=$(cd "$(dirname "$0")" && pwd)/volumes
mkdir -p "$volumes"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$volumes"

blank() { # NAME MIB
    rm -f "$1"
    truncate -s "$2M" "$1"
}
fill() { # NAME: many files, every second removed again
    mkdir -p "$work/mounted"
    mount -o loop "$1" "$work/mounted"
    for number in $(seq 120); do
        head -c $((number * 97)) /dev/zero | tr '\0' x > "$work/mounted/$number"
        head -c $((number * 211)) /dev/zero | tr '\0' y > "$work/mounted/$number.gone"
    done
    sync
    rm "$work"/mounted/*.gone
    umount "$work/mounted"
}
le() { # BYTES NUMBER: the number, little-endian
    count=$1 rest=$2
    while [ "$count" -gt 0 ]; do
        printf "\\$(printf %03o $((rest % 256)))"
        rest=$((rest / 256)) count=$((count - 1))
    done
}
put() { # NAME AT: standard input at this byte
    dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

blank ext-plain 8;    mke2fs -q -F -t ext4 -b 1024 -O ^metadata_csum ext-plain;         fill ext-plain
blank ext-crc16 12;   mke2fs -q -F -t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^flex_bg ext-crc16
blank ext-crc32 40;   mke2fs -q -F -t ext4 ext-crc32;                                    fill ext-crc32
blank ext-meta-bg 16; mke2fs -q -F -t ext4 -b 1024 -O ^resize_inode,meta_bg,sparse_super2,metadata_csum_seed ext-meta-bg
blank ext-2 8;        mke2fs -q -F -t ext2 -b 1024 ext-2;                                fill ext-2
blank xfs-4 300;      mkfs.xfs -q -f -m crc=0 xfs-4
blank xfs-5 300;      mkfs.xfs -q -f xfs-5;                                              fill xfs-5
blank xfs-1k 300;     mkfs.xfs -q -f -b size=1024 xfs-1k;                                fill xfs-1k
blank btrfs-dup 120;  mkfs.btrfs -q btrfs-dup;                                           fill btrfs-dup
blank btrfs-4k 120;   mkfs.btrfs -q -n 4096 -m single btrfs-4k;                          fill btrfs-4k
blank btrfs-mixed 120;mkfs.btrfs -q --mixed btrfs-mixed
blank swap-4k 2;      mkswap -q swap-4k
blank swap-64k 2;     mkswap -q -p 65536 swap-64k 2> /dev/null || mkswap -p 65536 swap-64k > /dev/null
for bits in 12 16 32; do
    case $bits in 12) size=2 ;; 16) size=16 ;; 32) size=40 ;; esac
    blank fat-$bits $size
    mkfs.fat -F $bits fat-$bits > /dev/null
    for number in $(seq 30); do
        head -c $((number * 397)) /dev/zero | tr '\0' x > "$work/file"
        mcopy -i fat-$bits "$work/file" "::$number"
    done
    mdel -i fat-$bits ::1 ::7 ::8 ::20
done
blank exfat-512 8;    mkfs.exfat -c 512 exfat-512 > /dev/null
blank exfat-4k 16;    mkfs.exfat exfat-4k > /dev/null
for cluster in 512 4096; do
    blank ntfs-$cluster 8
    mkntfs -q -F -c $cluster ntfs-$cluster > /dev/null
    for number in $(seq 20); do
        head -c $((number * 997)) /dev/zero | tr '\0' x > "$work/file"
        ntfscp -q -f ntfs-$cluster "$work/file" file$number
    done
done
head -c 300000 /dev/zero > "$work/file"
ntfscp -q -f ntfs-4096 "$work/file" pagefile.sys
ntfscp -q -f ntfs-4096 "$work/file" hiberfil.sys

blank lvm-ext 40
device=$(losetup --find --show lvm-ext)
pvcreate -qq -y "$device"
vgcreate -qq -y fuzz$$ "$device"
vgcfgbackup -qq -f "$work/group" fuzz$$
sed -i 's/^\t}$/\t}\nlogical_volumes { a { id = "AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAAA" \
status = ["READ", "WRITE", "VISIBLE"] flags = [] segment_count = 1 \
segment1 { start_extent = 0 extent_count = 3 type = "striped" stripe_count = 1 \
stripes = ["pv0", 2] } } }/' "$work/group"
vgcfgrestore -qq -f "$work/group" --force fuzz$$ > /dev/null
losetup -d "$device"
# Its volume begins at extent 2, behind the first MiB.
blank "$work/inside" 12
mke2fs -q -F -t ext4 -b 1024 "$work/inside"
dd if="$work/inside" of=lvm-ext bs=1M seek=9 conv=notrunc status=none

blank luks-2 20
printf secret | cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 luks-2 -
blank bitlocker 1 # After the libbde project: two keys, the second in the clear.
printf '\353X\220-FVE-FS-' | put bitlocker 0
{ printf '\073\326\147\111\051\056\330\112\203\231\366\243\071\343\320\001'; for copy in 1 2 3; do le 8 262144; done; } | put bitlocker 160
printf -- '-FVE-FS-' | put bitlocker 262144
{ le 4 208; le 4 1; le 4 48; le 4 208; } | put bitlocker 262208
for key in 0 1; do
    { le 2 80; le 2 2; le 2 8; le 2 1; head -c 26 /dev/zero; le 2 $((256 - key * 256)); head -c 44 /dev/zero; } |
        put bitlocker $((262256 + key * 80))
done

blank disk-gpt 20
sgdisk --clear --new=1:2048:+1M --typecode=1:ef02 --new=2:0:+8M --new=7:24576:+2M disk-gpt > /dev/null
dd if=ext-2 of=disk-gpt bs=1M seek=2 conv=notrunc status=none
blank disk-mbr 20
printf 'label: dos\nstart=2048,size=16384,type=83,bootable\nstart=20480,size=16384,type=5\n%s\n%s\n' \
    start=22528,size=4096,type=42 start=28672,size=4096,type=82 | sfdisk --quiet disk-mbr
dd if=ext-2 of=disk-mbr bs=1M seek=1 conv=notrunc status=none
dd if=swap-4k of=disk-mbr bs=1M seek=14 conv=notrunc status=none
