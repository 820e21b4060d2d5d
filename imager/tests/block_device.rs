//! Deploys to real block devices: loop devices with sectors of 512 and of 4096 bytes.
//!
//! They need root; without it they fail and say so.
#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use netflash_imager::{
    AuditDepth, Deploy, DeployError, DeployObserver, DeployOptions, DeployReport, DiskUse,
    ExtractError, FitError, FreePolicy, Image, SealOptions, Source, Target, TargetError,
    TargetOptions, audit, extract_to_disk, seal,
};

const MIB: u64 = 1 << 20;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {complaint} (needs root: sudo ./scripts/test)"
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether this kernel reads partition tables at all: small ones for virtual machines do not, and are told by hand.
fn reads_gpt() -> bool {
    let built = Command::new("zcat").arg("/proc/config.gz").output();
    !built.is_ok_and(|config| {
        String::from_utf8_lossy(&config.stdout).contains("# CONFIG_EFI_PARTITION is not set")
    })
}

/// A loop device over a sparse file; gone when dropped.
struct Loop {
    device: PathBuf,
    backing: PathBuf,
    _dir: tempfile::TempDir,
}

impl Loop {
    fn new(bytes: u64, sector_bytes: u32) -> Loop {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("disk");
        File::create(&backing).unwrap().set_len(bytes).unwrap();
        let sector = sector_bytes.to_string();
        let file = backing.to_str().unwrap();
        let device = run(
            "losetup",
            &[
                "--find",
                "--show",
                "--partscan",
                "--sector-size",
                &sector,
                file,
            ],
        );
        Loop {
            device: device.into(),
            backing,
            _dir: dir,
        }
    }

    fn open(&self) -> Result<Target, TargetError> {
        Target::open(&self.device, TargetOptions::default())
    }

    /// What the kernel has counted of writes, sectors written, discards and flushes.
    fn changes(&self) -> Vec<u64> {
        let name = self.device.file_name().unwrap();
        let stat = fs::read_to_string(Path::new("/sys/block").join(name).join("stat")).unwrap();
        let fields: Vec<u64> = stat
            .split_whitespace()
            .map(|field| field.parse().unwrap())
            .collect();
        [4, 6, 11, 13, 15].map(|field| fields[field]).to_vec()
    }

    /// A node for the first partition, as the kernel sees it: nobody else may make one here.
    fn partition(&self) -> PathBuf {
        let device = self.device.to_str().unwrap();
        let name = device.rsplit('/').next().unwrap();
        let dev = PathBuf::from(format!("/sys/block/{name}/{name}p1/dev"));
        if !dev.exists() && !reads_gpt() {
            run("addpart", &[device, "1", "2048", "38912"]);
        }
        let number = fs::read_to_string(dev).expect("the kernel has read the new table");
        let (major, minor) = number.trim().split_once(':').unwrap();
        let node = self.backing.with_file_name("partition");
        if !node.exists() {
            run("mknod", &[node.to_str().unwrap(), "b", major, minor]);
        }
        node
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.device.to_str().unwrap()]);
    }
}

/// The image of a GPT disk of 24 MiB with one ext4 file system from 1 to 20 MiB, and the raw disk.
fn image(dir: &Path) -> (Image, Vec<u8>) {
    let raw = dir.join("raw");
    let system = dir.join("ext4");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let files = dir.join("files");
    fs::create_dir(&files).unwrap();
    for number in 0..40u32 {
        let bytes: Vec<u8> = (0..9000 * number)
            .map(|at| (at.wrapping_mul(number) >> 7) as u8)
            .collect();
        fs::write(files.join(number.to_string()), bytes).unwrap();
    }
    run(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-d",
            &text(&files),
            &text(&system),
            "19456k",
        ],
    );
    let mut disk = vec![0; MIB as usize];
    disk.extend(fs::read(&system).unwrap());
    disk.resize(24 * MIB as usize, 0);
    fs::write(&raw, disk).unwrap();
    run("sgdisk", &["-n", "1:2048:+19M", &text(&raw)]);
    let image = sealed(&raw, dir);
    (image, fs::read(&raw).unwrap())
}

/// The image of `source`, in `dir`.
fn sealed(source: &Path, dir: &Path) -> Image {
    let options = SealOptions {
        used_only: true,
        whole: Default::default(),
        only: None,
        level: 1,
        note: String::new(),
        parent: None,
        created: 0,
        threads: 2,
    };
    let path = dir.join("image.img.zst");
    let source = Source::open(source, dir).unwrap();
    seal(
        source,
        &path,
        &options,
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .unwrap();
    Image::open(&path).unwrap()
}

fn deploy(
    image: &Image,
    target: Target,
    options: DeployOptions,
) -> Result<DeployReport, DeployError> {
    let deploy = Deploy::begin(
        Arc::clone(image.manifest()),
        target,
        options,
        Arc::new(|_| {}),
    )?;
    extract_to_disk(image, deploy).map_err(|error| match error {
        ExtractError::Deploy(error) => error,
        other => panic!("{other}"),
    })
}

#[test]
fn a_larger_disk_is_flashed_past_the_page_cache_and_its_new_partitions_appear() {
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = image(dir.path());
    let disk = Loop::new(40 * MIB, 512);
    let options = DeployOptions {
        free: FreePolicy::Discard,
        ..DeployOptions::default()
    };
    let report = deploy(&image, disk.open().unwrap(), options).unwrap();
    assert!(report.changed && report.direct);
    assert_eq!(report.stale_table, None);
    // The kernel has read the new table, fsck and sgdisk are content, and nothing stale is in the page cache.
    let partition = disk.partition();
    assert_eq!(
        run("blockdev", &["--getsize64", partition.to_str().unwrap()]),
        (19 * MIB).to_string()
    );
    run("e2fsck", &["-fn", partition.to_str().unwrap()]);
    assert!(run("sgdisk", &["-v", disk.device.to_str().unwrap()]).contains("No problems found"));
    assert!(
        !deploy(&image, disk.open().unwrap(), DeployOptions::default())
            .unwrap()
            .changed
    );
}

#[test]
fn a_disk_of_4096_byte_sectors_is_imaged_flashed_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let source = Loop::new(24 * MIB, 4096);
    let device = source.device.to_str().unwrap();
    let data: Vec<u8> = (0..5 * MIB)
        .map(|at| (at.wrapping_mul(at) >> 9) as u8)
        .collect();
    FileExt::write_all_at(
        &File::options().write(true).open(device).unwrap(),
        &data,
        MIB,
    )
    .unwrap();
    run("sgdisk", &["-n", "1:256:+19M", device]);
    let image = sealed(&source.device, dir.path());
    assert_eq!(image.manifest().sector_bytes(), 4096);

    let disk = Loop::new(40 * MIB, 4096);
    let report = deploy(&image, disk.open().unwrap(), DeployOptions::default()).unwrap();
    assert!(report.changed && report.direct);
    assert!(run("sgdisk", &["-v", disk.device.to_str().unwrap()]).contains("No problems found"));
    assert!(fs::read(&disk.backing).unwrap()[MIB as usize..][..data.len()] == data);
    let read_only = TargetOptions {
        read_only: true,
        ..TargetOptions::default()
    };
    let target = Target::open(&disk.device, read_only).unwrap();
    let options = DeployOptions::default();
    let found = audit(
        Arc::clone(image.manifest()),
        target,
        &options,
        AuditDepth::Whole,
        &(Arc::new(|_| {}) as _),
    );
    assert!(found.unwrap().is_clean());
}

#[test]
fn a_disk_that_holds_the_image_is_not_written_to_also_a_larger_one() {
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = image(dir.path());
    for bytes in [24 * MIB, 40 * MIB] {
        let disk = Loop::new(bytes, 512);
        let options = DeployOptions::default;
        let new = disk.changes();
        deploy(&image, disk.open().unwrap(), options()).unwrap();
        let before = disk.changes();
        assert!(before > new, "{before:?}: the kernel counts nothing");
        let report = deploy(&image, disk.open().unwrap(), options()).unwrap();
        assert!(!report.changed && report.written_frames == 0);
        for depth in [AuditDepth::Whole, AuditDepth::FirstDifference] {
            let read_only = TargetOptions {
                read_only: true,
                ..TargetOptions::default()
            };
            let target = Target::open(&disk.device, read_only).unwrap();
            let manifest = Arc::clone(image.manifest());
            let observer: DeployObserver = Arc::new(|_| {});
            let found = audit(manifest, target, &options(), depth, &observer);
            assert!(found.unwrap().is_clean());
        }
        assert_eq!(disk.changes(), before);
    }
}

#[test]
fn a_disk_that_looks_like_a_packed_file_is_a_disk_all_the_same() {
    for magic in [&b"\x1f\x8b\x08"[..], b"QFI\xfb\0\0\0\x03"] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Loop::new(4 * MIB, 512);
        let device = File::options().write(true).open(&disk.device).unwrap();
        FileExt::write_all_at(&device, magic, 0).unwrap();
        device.sync_all().unwrap();
        let image = sealed(&disk.device, dir.path());
        assert_eq!(image.manifest().raw_bytes(), 4 * MIB);
        let file = dir.path().join("image.img.zst");
        assert!(Source::device(&file).is_err(), "a file is no device");
    }
}

#[test]
fn what_the_page_cache_held_before_does_not_hide_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (image, raw) = image(dir.path());
    let disk = Loop::new(24 * MIB, 512);
    let reader = File::open(&disk.device).unwrap();
    let mut before = vec![1; 4096];
    FileExt::read_exact_at(&reader, &mut before, MIB + 1024).unwrap();
    assert!(before.iter().all(|byte| *byte == 0));
    deploy(&image, disk.open().unwrap(), DeployOptions::default()).unwrap();
    let mut after = vec![0; 4096];
    FileExt::read_exact_at(&reader, &mut after, MIB + 1024).unwrap();
    assert_eq!(after, raw[(MIB + 1024) as usize..][..4096]);
}

#[test]
fn a_disk_of_other_sectors_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = image(dir.path());
    let disk = Loop::new(40 * MIB, 4096);
    let refused = deploy(&image, disk.open().unwrap(), DeployOptions::default()).unwrap_err();
    let expected = FitError::SectorSize {
        image: 512,
        disk: 4096,
    };
    assert!(matches!(refused, DeployError::Fit { cause, .. } if cause == expected));
    assert!(
        fs::read(&disk.backing)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn a_mounted_disk_is_refused_and_its_mount_point_named() {
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = image(dir.path());
    let disk = Loop::new(24 * MIB, 512);
    deploy(&image, disk.open().unwrap(), DeployOptions::default()).unwrap();
    let on = dir.path().join("mnt");
    fs::create_dir(&on).unwrap();
    run(
        "mount",
        &[
            "-o",
            "ro",
            disk.partition().to_str().unwrap(),
            on.to_str().unwrap(),
        ],
    );
    let refused = disk.open();
    let read_only = Target::open(
        &disk.device,
        TargetOptions {
            read_only: true,
            ..Default::default()
        },
    );
    run("umount", &[on.to_str().unwrap()]);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("is mounted on") && refused.contains("/mnt"),
        "{refused}"
    );
    assert!(read_only.is_ok());
    disk.open().unwrap();
}

#[test]
fn a_disk_open_elsewhere_and_a_partition_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = image(dir.path());
    let disk = Loop::new(24 * MIB, 512);
    deploy(&image, disk.open().unwrap(), DeployOptions::default()).unwrap();
    let first = disk.open().unwrap();
    let refused = disk.open().unwrap_err();
    assert!(
        matches!(
            refused,
            TargetError::InUse {
                usage: DiskUse::Busy,
                ..
            }
        ),
        "{refused}"
    );
    drop(first);
    let refused = Target::open(&disk.partition(), TargetOptions::default()).unwrap_err();
    assert!(
        matches!(refused, TargetError::Partition { .. }),
        "{refused}"
    );
}

#[test]
fn a_write_protected_disk_is_refused() {
    let disk = Loop::new(MIB, 512);
    run("blockdev", &["--setro", disk.device.to_str().unwrap()]);
    let refused = disk.open();
    run("blockdev", &["--setrw", disk.device.to_str().unwrap()]);
    assert!(
        matches!(refused, Err(TargetError::ReadOnly { .. })),
        "{refused:?}"
    );
}
