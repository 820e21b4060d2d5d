//! A switch that bundles cables by LACP (IEEE 802.1AX) and tags them: a machine of its own with Debian's kernel, whose
//! bonding, VLAN and bridge modules know nothing of ours.
//!
//! ```text
//!   machine  nic1 ══ eth1 ┐
//!            nic2 ══ eth2 ┴─ trunk ── trunk.20 ── br0 ── eth0 ══ t8, the room's switch
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tests::lab::{given, sh};

/// Modules it is made of, besides those they need.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "bonding", "8021q", "bridge"];

/// What it does as process 1.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in /modules/*; do insmod $module; done
echo +trunk >/sys/class/net/bonding_masters
bond=/sys/class/net/trunk/bonding
echo 802.3ad >$bond/mode
echo 100 >$bond/miimon
echo fast >$bond/lacp_rate
echo +eth1 >$bond/slaves
echo +eth2 >$bond/slaves
ip link set trunk up
ip link add link trunk name trunk.VLAN type vlan id VLAN
brctl addbr br0
brctl addif br0 eth0
brctl addif br0 trunk.VLAN
for link in eth0 trunk.VLAN br0; do ip link set $link up; done
while :; do
  echo "switch: partner=$(cat $bond/ad_partner_mac) ports=$(cat $bond/ad_num_ports)"
  sleep 1
done
"#;

/// A cable between the machine and the switch: two UDP ports of the loopback.
pub(crate) struct Cable {
    machine: u16,
    switch: u16,
}

impl Cable {
    /// The machine's end, in QEMU's words.
    pub(crate) fn machine_end(&self) -> String {
        Cable::end(self.machine, self.switch)
    }

    fn switch_end(&self) -> String {
        Cable::end(self.switch, self.machine)
    }

    fn end(own: u16, other: u16) -> String {
        let place =
            |kind: &str, port| format!("{kind}.type=inet,{kind}.host=127.0.0.1,{kind}.port={port}");
        format!("dgram,{},{}", place("local", own), place("remote", other))
    }
}

/// The switch, switched on; it ends with this value.
pub(crate) struct Switch {
    serial: PathBuf,
    qemu: Child,
}

impl Switch {
    /// The tag of everything behind the cables.
    pub(crate) const VLAN: u16 = 20;

    /// What the machine is plugged into.
    pub(crate) const CABLES: [Cable; 2] = [
        Cable {
            machine: 7101,
            switch: 7201,
        },
        Cable {
            machine: 7102,
            switch: 7202,
        },
    ];

    /// Switches it on; its files are in `directory`.
    pub(crate) fn start(directory: &Path) -> Result<Switch> {
        let directory = directory.join("switch");
        fs::create_dir_all(&directory).context("making room for the switch")?;
        let initrd = pack(&directory)?;
        sh("ip tuntap add t8 mode tap")?;
        sh("ip link set t8 master br0 up")?;
        let serial = directory.join("serial.log");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", "256"])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .arg("-kernel")
            .arg(given("NETFLASH_APPLIANCE")?.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initrd)
            .args([
                "-append",
                "console=ttyS0 no_timer_check mitigations=off nokaslr quiet",
            ])
            .arg("-chardev")
            .arg(format!("file,id=serial,path={}", serial.display()))
            .args(["-serial", "chardev:serial"]);
        let room = "tap,ifname=t8,script=no,downscript=no".to_owned();
        let ends = Switch::CABLES.iter().map(Cable::switch_end);
        for (number, end) in [room].into_iter().chain(ends).enumerate() {
            command
                .arg("-netdev")
                .arg(format!("{end},id=net{number}"))
                .arg("-device")
                .arg(format!(
                    "virtio-net-pci,netdev=net{number},speed=1000,duplex=full,romfile=,\
                     mac=52:54:00:78:00:0{number}"
                ));
        }
        let log = fs::File::create(directory.join("qemu.log")).context("creating QEMU's log")?;
        let qemu = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing QEMU's log")?)
            .stderr(log)
            .spawn()
            .context("starting the switch")?;
        Ok(Switch { serial, qemu })
    }

    /// What it wrote so far.
    pub(crate) fn says(&self) -> String {
        fs::read_to_string(&self.serial).unwrap_or_default()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Its initramfs: busybox, the modules in the order they load, and what it does.
fn pack(directory: &Path) -> Result<PathBuf> {
    let (kernel, root) = (directory.join("kernel"), directory.join("root"));
    sh(&format!(
        "dpkg-deb -x {} {}",
        kernel_package()?.display(),
        kernel.display()
    ))?;
    let tree = kernel.join("lib/modules");
    let version = fs::read_dir(&tree)
        .context("looking for the kernel's modules")?
        .next()
        .context("the kernel's package has no modules")??
        .file_name();
    let version = version
        .to_str()
        .context("the kernel's version is no text")?;
    let base = kernel.display();
    sh(&format!("depmod -b {base} {version}"))?;
    for folder in ["bin", "modules"] {
        fs::create_dir_all(root.join(folder)).context("making the switch's root")?;
    }
    let mut order: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let listed = sh(&format!(
            "modprobe -d {base} -S {version} --show-depends {module}"
        ))?;
        // A line may end with options of this machine's own configuration.
        let files = listed.lines().filter_map(|line| {
            let words = line.strip_prefix("insmod ")?;
            words.split_whitespace().next()
        });
        for file in files.map(PathBuf::from) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    ensure!(order.len() >= MODULES.len(), "modprobe names {order:?}");
    for (position, file) in order.iter().enumerate() {
        let to = root.join(format!("modules/{position:02}.ko"));
        fs::copy(file, to).with_context(|| format!("copying {}", file.display()))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("copying busybox (package busybox-static)")?;
    let init = root.join("init");
    fs::write(&init, INIT.replace("VLAN", &Switch::VLAN.to_string())).context("writing init")?;
    sh(&format!("chmod 755 {}", init.display()))?;
    let archive = directory.join("initrd.img");
    let pack = format!(
        "cd {} && find . | cpio --quiet -o -H newc >{}",
        root.display(),
        archive.display()
    );
    let packed = Command::new("sh").args(["-c", &pack]).status()?;
    ensure!(packed.success(), "cpio: {packed}");
    Ok(archive)
}

/// The package the appliance's kernel was taken from, where `netflash appliance build` keeps it.
fn kernel_package() -> Result<PathBuf> {
    let home = env::var_os("HOME").context("HOME is not set")?;
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&home).join(".cache"),
    };
    let folder = cache.join("netflash/kernel");
    let mut packages: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("{}: run netflash appliance build", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("linux-image-") && name.ends_with(".deb"))
        })
        .collect();
    packages.sort();
    packages
        .pop()
        .context("no kernel package: run netflash appliance build")
}
