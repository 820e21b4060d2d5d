//! Whole builds from a made-up kernel package.

use std::process::Command;

use super::*;
use crate::elf::TYPE_EXECUTABLE;
use crate::elf::tests::made_up;
use crate::modules::tests::{made_up_module, made_up_tree};

const VERSION: &str = "9.9.0-1-amd64";

/// A directory with everything a build needs.
struct Workshop {
    directory: tempfile::TempDir,
    options: BuildOptions,
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let root = at("package");
        let modules = root.join("lib/modules").join(VERSION);
        made_up_tree(&modules);
        fs::create_dir_all(modules.join("kernel/drivers/virtio")).unwrap();
        fs::write(
            modules.join("kernel/drivers/virtio/virtio_pci.ko"),
            made_up_module("depends=mii"),
        )
        .unwrap();
        for (path, content) in [
            (format!("boot/vmlinuz-{VERSION}"), "a kernel"),
            (
                "usr/share/doc/linux-image-made-up/copyright".to_owned(),
                "GPL-2, says the package\n",
            ),
            (
                "DEBIAN/control".to_owned(),
                "Package: linux-image-made-up\nVersion: 9.9-1\nArchitecture: amd64\nMaintainer: a <a@b>\n\
                 Built-Using: linux (= 9.9-1)\nDescription: made up\n",
            ),
        ] {
            fs::create_dir_all(root.join(&path).parent().unwrap()).unwrap();
            fs::write(root.join(path), content).unwrap();
        }
        let package = Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Znone"])
            .arg(&root)
            .arg(at("kernel.deb"))
            .output()
            .expect("the program dpkg-deb is needed: run ./scripts/setup");
        assert!(package.status.success(), "{package:?}");
        fs::write(at("agent"), made_up(TYPE_EXECUTABLE, 0x40_1000, &[1], &[])).unwrap();
        let options = BuildOptions {
            out: at("out"),
            agent: at("agent"),
            kernel_deb: Some(at("kernel.deb")),
            firmware: None,
            trust: None,
            secure_boot: false,
            level: 3,
        };
        Self { directory, options }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn built(&self, name: &str) -> Vec<u8> {
        fs::read(self.options.out.join(name)).unwrap()
    }
}

#[test]
fn an_appliance_has_kernel_agent_modules_and_their_index() {
    let workshop = Workshop::new();
    let report = build(&workshop.options).unwrap();
    assert_eq!(workshop.built("vmlinuz"), b"a kernel");
    assert_eq!(report.kernel_version, VERSION);
    assert!(report.modules.iter().any(|name| name == "sd_mod"));
    assert!(report.missing_modules.iter().any(|name| name == "nvme"));
    let packed = workshop.built("initramfs.img");
    assert_eq!(packed.len() % 4, 0);
    let paths = archive_paths(&zstd::decode_all(unpadded(&packed)).unwrap()).unwrap();
    for path in [
        "dev/console",
        "init",
        "lib/modules/9.9.0-1-amd64/modules.dep",
        "lib/modules/9.9.0-1-amd64/modules.alias",
        "lib/modules/9.9.0-1-amd64/kernel/drivers/scsi/sd_mod.ko",
        "lib/modules/9.9.0-1-amd64/kernel/drivers/net/mii.ko",
    ] {
        assert!(
            paths.iter().any(|found| found == path),
            "{path} in {paths:?}"
        );
    }
    assert!(!paths.iter().any(|path| path.contains("unused")));
}

/// The zstd frame without the zeros behind it.
fn unpadded(packed: &[u8]) -> &[u8] {
    let bytes = zstd::zstd_safe::find_frame_compressed_size(packed).unwrap();
    assert!(packed[bytes..].iter().all(|byte| *byte == 0));
    &packed[..bytes]
}

#[test]
fn two_builds_are_the_same_bytes() {
    let (one, other) = (Workshop::new(), Workshop::new());
    assert_eq!(build(&one.options).unwrap(), build(&other.options).unwrap());
    for name in [
        "vmlinuz",
        "initramfs.img",
        "THIRD-PARTY",
        "appliance.json",
        "SHA256SUMS",
    ] {
        assert!(one.built(name) == other.built(name), "{name} differs");
    }
}

#[test]
fn sha256sum_agrees_and_nothing_else_is_left() {
    let workshop = Workshop::new();
    build(&workshop.options).unwrap();
    let check = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&workshop.options.out)
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    assert_eq!(fs::read_dir(&workshop.options.out).unwrap().count(), 5);
}

#[test]
fn the_text_names_licence_and_source() {
    let workshop = Workshop::new();
    build(&workshop.options).unwrap();
    let text = String::from_utf8(workshop.built("THIRD-PARTY")).unwrap();
    for part in [
        "GPL-2.0-only",
        "apt-get source linux=9.9-1",
        "GPL-2, says the package",
    ] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn trust_is_appended_whole_and_aligned() {
    let mut workshop = Workshop::new();
    build(&workshop.options).unwrap();
    let generic = workshop.built("initramfs.img");
    let mut archive = Cpio::new();
    archive
        .file("netflash/ca.pem", 0o644, b"certificate")
        .unwrap();
    archive
        .file("netflash/server", 0o644, b"10.0.0.1:8443")
        .unwrap();
    let trust = archive.finish();
    fs::write(workshop.at("trust.img"), &trust).unwrap();
    workshop.options.trust = Some(workshop.at("trust.img"));
    assert!(build(&workshop.options).unwrap().trusted);
    assert_eq!(workshop.built("initramfs.img"), [generic, trust].concat());
}

#[test]
fn an_unfit_trust_image_or_agent_leaves_nothing_behind() {
    let mut workshop = Workshop::new();
    let mut archive = Cpio::new();
    archive
        .file("netflash/ca.pem", 0o644, b"certificate")
        .unwrap();
    fs::write(workshop.at("trust.img"), archive.finish()).unwrap();
    workshop.options.trust = Some(workshop.at("trust.img"));
    let error = build(&workshop.options).unwrap_err();
    assert!(error.to_string().contains("/netflash/server"), "{error}");
    workshop.options.trust = None;
    fs::write(&workshop.options.agent, "#!/bin/sh").unwrap();
    assert!(matches!(
        build(&workshop.options),
        Err(BuildError::Agent(_))
    ));
    assert!(!workshop.options.out.exists());
}
