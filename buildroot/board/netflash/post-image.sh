#!/bin/sh
# Gives the images the names that `netflash serve` expects. The initramfs is padded to a multiple of 4 bytes, so that
# trust.img and token.img can follow it.
set -eu
images=$1
cd "$images"
for kernel in bzImage Image; do
    if [ -e "$kernel" ]; then cp "$kernel" vmlinuz; fi
done
cp rootfs.cpio.zst initramfs.img
bytes=$(wc -c <initramfs.img)
truncate -s $(((bytes + 3) / 4 * 4)) initramfs.img
sha256sum vmlinuz initramfs.img >SHA256SUMS
