#!/bin/sh
# The agent is static and the only program: what Buildroot puts beside it, such as the C library's shared objects, is
# left out of the initramfs. Kept are the agent, modules, firmware and what the overlay holds.
set -eu
target=$1
cd "$target"
find . -mindepth 1 -maxdepth 1 ! -name init ! -name lib ! -name netflash ! -name dev -exec rm -rf {} +
if [ -d lib ]; then
    find lib/ -mindepth 1 -maxdepth 1 ! -name modules ! -name firmware -exec rm -rf {} +
fi
# What the agent mounts.
mkdir -p dev proc sys run tmp
