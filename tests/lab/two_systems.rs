//! A disk with two systems, each a kernel and a small world of its own in a partition of its own, and a boot menu.
//!
//! ```text
//!   LBA 0: GRUB's boot.img │ partition 1: one, with the menu │ partition 2: two │ partition 3: GRUB's core.img
//! ```
//!
//! No partition begins or ends on a mebibyte. The GUIDs are always the same, as on disks flashed with one image.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{room::Machine, shell};

/// Size of the disk in bytes.
pub const TWO_SYSTEMS_BYTES: u64 = 64 << 20;

/// First sector and number of sectors of each partition.
const PARTITIONS: [(u64, u64); 3] = [(2056, 49_160), (51_224, 49_168), (100_400, 2048)];
const GRUB: &str = "/usr/lib/grub/i386-pc";
/// What GRUB's core needs for BIOS disks, GPT, ext4, the menu and Linux.
const MODULES: &str = "biosdisk part_gpt ext2 linux normal echo";
/// Where boot.img has the sector of core.img, and a jump that distrusts the drive number of the BIOS.
const BOOT_SECTOR_AT: usize = 0x5c;
const BOOT_JUMP_AT: usize = 0x66;
/// Where the first sector of core.img says which sector its rest begins at.
const CORE_REST_AT: usize = 512 - 12;
const BOOT_CODE_BYTES: usize = 440;
/// How long QEMU may take to answer.
const QEMU_PATIENCE: Duration = Duration::from_secs(5);

/// Makes the disk at `path`. The systems ask for a login by the names given; `kernel` starts both.
pub fn two_systems(path: &Path, kernel: &Path, names: [&str; 2]) -> Result<()> {
    let disk = fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    disk.set_len(TWO_SYSTEMS_BYTES)
        .context("sizing the disk of two systems")?;
    let shown = path.display();
    let mut table = "sgdisk -a 1 -U 11111111-1111-4111-8111-111111111111".to_owned();
    for (index, (first, sectors)) in PARTITIONS.iter().enumerate() {
        let (number, last) = (index + 1, first + sectors - 1);
        let kind = if number == 3 { "ef02" } else { "8300" };
        let guid = format!("22222222-2222-4222-8222-00000000000{number}");
        table.push_str(&format!(
            " -n {number}:{first}:{last} -t {number}:{kind} -u {number}:{guid}"
        ));
    }
    shell::sh(&format!("{table} {shown}"))?;
    for (index, name) in names.iter().enumerate() {
        let tree = tempfile::tempdir().context("making room for a system")?;
        system(tree.path(), kernel, name)?;
        let (first, sectors) = PARTITIONS[index];
        // The features left out are newer than the GRUB of Debian 12.
        shell::sh(&format!(
            "mke2fs -q -t ext4 -F -O ^orphan_file,^metadata_csum_seed -d {} -E offset={} {shown} {}k",
            tree.path().display(),
            first * 512,
            sectors / 2
        ))?;
    }
    install_grub(&disk, path)
}

/// Presses a key of the machine's keyboard, by QEMU's name for it.
///
/// # Errors
/// When QEMU does not listen, yet or any more.
pub fn press_key(machine: &Machine, key: &str) -> Result<()> {
    let mut socket = UnixStream::connect(machine.qmp_socket()).context("reaching QEMU")?;
    socket
        .set_read_timeout(Some(QEMU_PATIENCE))
        .context("giving QEMU a time")?;
    let keys = serde_json::json!([{"type": "qcode", "data": key}]);
    let press = serde_json::json!({"execute": "send-key", "arguments": {"keys": keys}});
    let greet = serde_json::json!({"execute": "qmp_capabilities"});
    writeln!(socket, "{greet}\n{press}").context("pressing a key")?;
    // Its greeting and two answers: a command whose sender has hung up may be dropped.
    let answers = BufReader::new(socket).lines().take(3);
    answers
        .collect::<Result<Vec<String>, _>>()
        .context("waiting for QEMU")?;
    Ok(())
}

/// The files of a system: kernel, initramfs, and the boot menu of the disk.
fn system(tree: &Path, kernel: &Path, name: &str) -> Result<()> {
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub")).context("making a directory")?;
    fs::copy(kernel, boot.join("vmlinuz")).context("copying the kernel")?;
    fs::write(boot.join("grub/grub.cfg"), MENU).context("writing the boot menu")?;
    let world = tempfile::tempdir().context("making room for an initramfs")?;
    for directory in ["bin", "dev", "etc"] {
        fs::create_dir(world.path().join(directory)).context("making a directory")?;
    }
    let busybox = "/bin/busybox";
    fs::copy(busybox, world.path().join("bin/busybox"))
        .with_context(|| format!("copying {busybox}: run ./scripts/setup"))?;
    let init = world.path().join("init");
    fs::write(
        &init,
        format!("#!/bin/busybox sh\n{INIT}").replace("NAME", name),
    )
    .context("writing an init")?;
    let script = format!(
        "cd {} && chmod 755 init && find . | cpio -o -H newc --quiet | zstd -q > {}",
        world.path().display(),
        boot.join("initrd.img").display()
    );
    let packed = Command::new("sh").args(["-c", &script]).status();
    anyhow::ensure!(
        packed.context("packing an initramfs")?.success(),
        "{script}"
    );
    Ok(())
}

const MENU: &str = "\
set timeout=30
menuentry one --hotkey=1 {
  echo 'starting system one'
  linux (hd0,gpt1)/boot/vmlinuz console=ttyS0 no_timer_check quiet
  initrd (hd0,gpt1)/boot/initrd.img
}
menuentry two --hotkey=2 {
  echo 'starting system two'
  linux (hd0,gpt2)/boot/vmlinuz console=ttyS0 no_timer_check quiet
  initrd (hd0,gpt2)/boot/initrd.img
}
";

const INIT: &str = "\
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox hostname NAME
while :; do /bin/busybox getty -L 115200 ttyS0 vt100; done
";

/// What `grub-install` would do, on a file: boot.img finds core.img, core.img its rest.
fn install_grub(disk: &fs::File, path: &Path) -> Result<()> {
    let first = PARTITIONS[2].0;
    let core_path = path.with_extension("core");
    let core_shown = core_path.display();
    shell::sh(&format!(
        "grub-mkimage -d {GRUB} -O i386-pc -o {core_shown} -p (hd0,gpt1)/boot/grub {MODULES}"
    ))?;
    let mut core = fs::read(&core_path).context("reading core.img")?;
    core[CORE_REST_AT..CORE_REST_AT + 8].copy_from_slice(&(first + 1).to_le_bytes());
    disk.write_all_at(&core, first * 512)
        .context("writing core.img")?;
    let mut boot = fs::read(format!("{GRUB}/boot.img")).context("reading boot.img")?;
    boot[BOOT_SECTOR_AT..BOOT_SECTOR_AT + 8].copy_from_slice(&first.to_le_bytes());
    boot[BOOT_JUMP_AT..BOOT_JUMP_AT + 2].copy_from_slice(&[0x90, 0x90]);
    disk.write_all_at(&boot[..BOOT_CODE_BYTES], 0)
        .context("writing the boot sector")
}
