//! The text `THIRD-PARTY`: an appliance contains other people's work, and who passes it on must say so.

use crate::package::KernelPackage;
use crate::signed::{LoaderPackage, SignedLoaders};

/// The text, from the kernel's own copyright file and the firmware that was added.
pub(crate) fn render(
    kernel: &KernelPackage,
    copyright: &str,
    loaders: &[LoaderPackage],
    firmware: &[String],
) -> String {
    let (source, version) = source_package(&kernel.source, &kernel.package_version);
    let mut text = format!(
        "What this appliance contains, and under which terms
===================================================

vmlinuz, and lib/modules/{release} inside initramfs.img
    The Linux kernel {release}, unchanged from the package
    {name} {package_version}.
    Licence: GPL-2.0-only WITH Linux-syscall-note; parts of it under compatible
    licences, see the copyright file below.
    Source: Debian source package {source} {version},
        apt-get source {source}={version}
        https://snapshot.debian.org/package/{source}/{version}/
    Who passes the appliance on must pass this source on too, or offer it.

init inside initramfs.img
    The netflash agent. Licence: MIT OR Apache-2.0. It is linked statically
    with the GNU C library (LGPL-2.1-or-later, https://sourceware.org/glibc/) and
    with the crates listed in netflash's Cargo.lock, each under its own licence.

",
        release = kernel.version,
        name = kernel.name,
        package_version = kernel.package_version,
    );
    if !loaders.is_empty() {
        let (shim, net, disk) = (
            SignedLoaders::SHIM,
            SignedLoaders::GRUB_NET,
            SignedLoaders::GRUB_DISK,
        );
        text += &format!(
            "{shim}, {net}, {disk}
    shim (BSD-2-Clause) and GNU GRUB (GPL-3.0-or-later), unchanged from the
    packages below. Who passes them on must pass the source of GRUB on too, or
    offer it.
"
        );
        for loader in loaders {
            let (source, version) = source_package(&loader.source, &loader.version);
            text += &format!(
                "    {} {}: apt-get source {source}={version}\n",
                loader.package, loader.version
            );
        }
        text.push('\n');
    }
    if !firmware.is_empty() {
        text += "lib/firmware inside initramfs.img\n";
        text +=
            "    Taken from the directory given to the builder. Each vendor's terms stand in the\n";
        text += "    file WHENCE of https://git.kernel.org/pub/scm/linux/kernel/git/firmware/linux-firmware.git\n";
        for name in firmware {
            text += &format!("    {name}\n");
        }
        text.push('\n');
    }
    text += &format!("The copyright file of {}\n", kernel.name);
    text += "--------------------------------------------------\n\n";
    text += copyright;
    text
}

/// `linux (= 6.1.192-2)`, `linux-signed-amd64 (6.1.192+2)` or `linux`: name and version of the source package.
fn source_package<'a>(source: &'a str, package_version: &'a str) -> (&'a str, &'a str) {
    let first = source.split(',').next().unwrap_or_default().trim();
    match first.split_once(" (") {
        Some((name, version)) => (name, version.trim_end_matches(')').trim_start_matches("= ")),
        None if first.is_empty() => ("linux", package_version),
        None => (first, package_version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_package_is_named_with_its_version() {
        assert_eq!(
            source_package("linux (= 6.1.192-2)", "x"),
            ("linux", "6.1.192-2")
        );
        assert_eq!(
            source_package("linux-signed-amd64 (6.1.192+2), a (= 1)", "x"),
            ("linux-signed-amd64", "6.1.192+2")
        );
        assert_eq!(source_package("linux", "6.12-1"), ("linux", "6.12-1"));
        assert_eq!(source_package("", "6.12-1"), ("linux", "6.12-1"));
    }
}
