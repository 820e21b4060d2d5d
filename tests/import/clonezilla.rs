//! A directory as Clonezilla's `savedisk` leaves it, made by the programs that `ocs-sr` calls with
//! the options it calls them with: `sfdisk -d`, `parted unit s print`, `dd` and partclone.
//!
//! `ocs-sr` itself asks for a booted Clonezilla; its functions `save_part_table_mbr_dm_info`,
//! `save_hidden_data_after_MBR`, `output_swap_partition_uuid_label` and `save_part_by_partclone`
//! say what is here.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::process::{Command, Stdio};

use crate::bench::{Bench, MIB, noise, tool};
use crate::partclone::save;
use crate::trial::{assert_becomes, assert_refused, blank, ext4, output_of};

const SWAP_UUID: &str = "92d422f0-3a17-4e69-93f0-f8fd1091e5eb";

/// A disk and the directory it was saved to.
struct Saved {
    bench: Bench,
    disk: String,
    directory: String,
}

impl Saved {
    /// A disk of 96 MiB with the table that `sfdisk` makes of `script`.
    fn new(script: &str) -> Saved {
        let bench = Bench::new();
        let disk = blank(&bench, "disk", 96 * MIB);
        tool("sfdisk", &["-q", &disk], script);
        let directory = bench.path("lab3");
        fs::create_dir(&directory).unwrap();
        let saved = Saved {
            bench,
            disk,
            directory,
        };
        saved.write("disk", b"sda\n");
        saved.write("clonezilla-img", b"This image was saved by Clonezilla\n");
        saved
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(format!("{}/{name}", self.directory), content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(format!("{}/{name}", self.directory)).unwrap();
    }

    fn put(&self, at: u64, content: &[u8]) {
        let disk = fs::File::options().write(true).open(&self.disk).unwrap();
        disk.write_all_at(content, at).unwrap();
    }

    fn cut(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        let disk = fs::File::open(&self.disk).unwrap();
        disk.read_exact_at(&mut content, at).unwrap();
        content
    }

    /// What `save_part_table_mbr_dm_info` saves of the tables.
    fn tables(&self, gpt: bool) {
        let listed = |program: &str, arguments: &[&str]| {
            // The disk is a file here; names are those of the machine it would be on.
            String::from_utf8(output_of(program, arguments))
                .unwrap()
                .replace(&self.disk, "/dev/sda")
        };
        self.write(
            "sda-pt.sf",
            listed("sfdisk", &["-d", &self.disk]).as_bytes(),
        );
        let parted = listed("parted", &["-s", &self.disk, "unit", "s", "print"]);
        self.write("sda-pt.parted", parted.as_bytes());
        self.write("sda-mbr", &self.cut(0, 512));
        if gpt {
            self.write("sda-gpt-1st", &self.cut(0, 34 * 512));
            // One sector too late, as Clonezilla has it.
            self.write("sda-gpt-2nd", &self.cut(96 * MIB - 32 * 512, 32 * 512));
            let backup = format!("--backup={}/sda-gpt.gdisk", self.directory);
            tool("sgdisk", &[&backup, &self.disk], "");
        }
    }

    /// Puts a file system at `at` and saves it, compressed by `program`, in pieces if so wanted.
    fn partition(
        &self,
        name: &str,
        at: u64,
        system: &str,
        partclone: &str,
        program: &[&str],
        piece: Option<&str>,
    ) {
        self.put(at, &fs::read(system).unwrap());
        let saved = save(&self.bench, partclone, system, &["-a1"]);
        let packed = match program {
            [] => fs::read(&saved).unwrap(),
            [program, options @ ..] => output_of(program, &[options, &[&saved]].concat()),
        };
        let packed = self.bench.file("packed", &packed);
        let out = format!("{}/{name}", self.directory);
        match piece {
            Some(bytes) => {
                let out = format!("{out}.");
                _ = tool("split", &["-a", "2", "-b", bytes, &packed, &out], "");
            }
            None => fs::rename(packed, out).unwrap(),
        }
    }

    fn raw(&self) -> Vec<u8> {
        fs::read(&self.disk).unwrap()
    }

    /// What partclone leaves out is zero in the image: the free blocks of the ext4 at `at`.
    fn expected(&self, parts: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut raw = self.raw();
        for (at, content) in parts {
            raw[*at as usize..*at as usize + content.len()].copy_from_slice(content);
        }
        raw
    }
}

/// What partclone keeps of a file system.
fn kept(bench: &Bench, partclone: &str, system: &str) -> Vec<u8> {
    let saved = save(bench, partclone, system, &[]);
    let bytes = fs::metadata(system).unwrap().len();
    let (out, log) = (blank(bench, "kept", bytes), bench.path("partclone.log"));
    tool(
        "partclone.restore",
        &["-q", "-C", "-L", &log, "-s", &saved, "-O", &out],
        "",
    );
    fs::read(out).unwrap()
}

fn swap(bench: &Bench, bytes: u64) -> Vec<u8> {
    let swap = blank(bench, "swap", bytes);
    tool("mkswap", &["-q", "-U", SWAP_UUID, "-L", "turbo", &swap], "");
    fs::read(swap).unwrap()
}

const GPT: &str = "label: gpt\n\
    start=2048, size=20480, type=uefi, name=ESP\n\
    start=22528, size=98304, name=root\n\
    start=120832, size=20480, type=swap\n\
    start=141312, size=8192, name=odd\n";

fn gpt_disk() -> (Saved, Vec<u8>) {
    let saved = Saved::new(GPT);
    let bench = &saved.bench;
    let fat = blank(bench, "fat", 20480 * 512);
    tool("mkfs.vfat", &[&fat], "");
    let ext = ext4(bench, "ext", 98304 * 512);
    let (esp, root, odd) = (MIB, 22528 * 512, 141312 * 512);
    saved.partition(
        "sda1.vfat-ptcl-img.gz",
        esp,
        &fat,
        "partclone.vfat",
        &["gzip", "-c"],
        Some("5000"),
    );
    saved.partition(
        "sda2.ext4-ptcl-img.zst",
        root,
        &ext,
        "partclone.extfs",
        &["zstd", "-c", "-q"],
        Some("1000000"),
    );
    saved.write(
        "swappt-sda3.info",
        format!("UUID=\"{SWAP_UUID}\"\nLABEL=\"turbo\"\n").as_bytes(),
    );
    saved.put(120832 * 512, &swap(bench, 20480 * 512));
    let content = noise(9, 8192 * 512);
    saved.put(odd, &content);
    let packed = bench.file("content", &content);
    saved.write("sda4.dd-img.aa", &output_of("gzip", &["-c", &packed]));
    saved.tables(true);
    let parts = [
        (esp, kept(bench, "partclone.vfat", &fat)),
        (root, kept(bench, "partclone.extfs", &ext)),
    ];
    let expected = saved.expected(&parts);
    (saved, expected)
}

#[test]
fn a_gpt_disk_saved_by_clonezilla_is_that_disk() {
    let (saved, expected) = gpt_disk();
    let made = assert_becomes(&saved.bench, &saved.directory, &expected);
    assert_eq!(made["partitions"].as_array().unwrap().len(), 4);
    let disk = saved.bench.file("again", &expected);
    let checked = tool("sgdisk", &["--verify", &disk], "");
    assert!(checked.contains("No problems found"), "{checked}");
    // The file of sgdisk alone is enough.
    saved.remove("sda-gpt-1st");
    assert_becomes(&saved.bench, &saved.directory, &expected);
    saved.remove("sda-gpt.gdisk");
    assert_refused(&saved.bench, &saved.directory, "gpt-1st");
}

#[test]
fn an_mbr_disk_with_logical_partitions_is_put_together_as_sfdisk_would() {
    let saved = Saved::new(
        "label: dos\n\
         start=2048, size=40960, type=83, bootable\n\
         start=43008, size=151552, type=5\n\
         start=45056, size=81920, type=83\n\
         start=131072, size=20480, type=82\n\
         start=153600, size=20480, type=c\n",
    );
    let bench = &saved.bench;
    let first = ext4(bench, "first", 40960 * 512);
    let second = ext4(bench, "second", 81920 * 512);
    // A boot loader in the gap, and code in the first EBR.
    saved.put(512, &noise(5, 2047 * 512));
    saved.put(43008 * 512, &noise(6, 446));
    saved.write("sda-hidden-data-after-mbr", &saved.cut(512, 2047 * 512));
    saved.write("sda2-ebr", &saved.cut(43008 * 512, 512));
    saved.partition(
        "sda1.ext4-ptcl-img.xz",
        MIB,
        &first,
        "partclone.extfs",
        &["xz", "-c", "-0"],
        None,
    );
    saved.partition(
        "sda5.ext4-ptcl-img.uncomp",
        45056 * 512,
        &second,
        "partclone.extfs",
        &[],
        Some("9999999"),
    );
    saved.write(
        "swappt-sda6.info",
        format!("UUID=\"{SWAP_UUID}\"\nLABEL=\"turbo\"\n").as_bytes(),
    );
    saved.put(131072 * 512, &swap(bench, 20480 * 512));
    saved.tables(false);
    let parts = [
        (MIB, kept(bench, "partclone.extfs", &first)),
        (45056 * 512, kept(bench, "partclone.extfs", &second)),
    ];
    let mut expected = saved.expected(&parts);
    let out = bench.path("a.img.zst");
    let made = crate::bench::image(&["create", &saved.directory, &out, "--json"]);
    assert!(made.contains("sda7 was not saved"), "{made}");
    let mut unpacked = bench.unpacked(&out);
    let dump = |name: &str, raw: &[u8]| {
        let path = bench.file(name, raw);
        tool("sfdisk", &["-d", &path], "").replace(&path, "disk")
    };
    assert_eq!(dump("theirs", &expected), dump("ours", &unpacked));
    // Addresses in cylinders are nobody's business, and where between its neighbours an EBR lies.
    let boot_code = |raw: &[u8]| raw[43008 * 512..][..446].to_vec();
    assert!(boot_code(&expected) == boot_code(&unpacked));
    for raw in [&mut expected, &mut unpacked] {
        for (from, to) in [(43008, 43009), (126976, 131072), (151552, 153600)] {
            raw[from * 512..to * 512].fill(0);
        }
    }
    assert!(expected == unpacked);
}

#[test]
fn a_directory_that_is_not_whole_becomes_no_image() {
    let (saved, _) = gpt_disk();
    let refused = |word: &str| assert_refused(&saved.bench, &saved.directory, word);
    let away = |name: &str, word: &str| {
        let path = format!("{}/{name}", saved.directory);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        refused(word);
        fs::write(path, content).unwrap();
    };
    away("sda2.ext4-ptcl-img.zst.ab", "missing");
    away("sda-pt.parted", "pt.parted");
    let pieces = fs::read_dir(&saved.directory).unwrap();
    let last = pieces
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("sda2."))
        .max()
        .unwrap();
    away(&last, "cut short");
    saved.write("lvm_vg_dev.list", b"vg0 /dev/sda2 /NOT_FOUND\n");
    refused("LVM");
    saved.write("lvm_vg_dev.list", b"\n");
    saved.write("sda1.ntfs-img.aa", b"x");
    refused("ntfsclone");
    saved.remove("sda1.ntfs-img.aa");
    let empty = saved.bench.path("empty");
    fs::create_dir(&empty).unwrap();
    assert_refused(&saved.bench, &empty, "no partition table");
}

/// A name from within it, a link, a pipe: a directory of a stranger makes no image of this machine's files, and nobody
/// wait.
#[test]
fn a_directory_reaches_no_file_outside_of_it() {
    let (saved, _) = gpt_disk();
    let refused = |word: &str| assert_refused(&saved.bench, &saved.directory, word);
    let table = fs::read(format!("{}/sda-pt.parted", saved.directory)).unwrap();
    saved.bench.file("sda-pt.parted", &table);
    saved.write("disk", b"../sda\n");
    refused("../sda-pt.parted is missing");
    saved.write("disk", b"sda\n");
    saved.remove("sda-pt.parted");
    let outside = saved.bench.path("sda-pt.parted");
    symlink(outside, format!("{}/sda-pt.parted", saved.directory)).unwrap();
    refused("sda-pt.parted is missing");
    saved.remove("sda-pt.parted");
    let pipe = format!("{}/sda-pt.parted", saved.directory);
    tool("mkfifo", &[&pipe], "");
    refused("sda-pt.parted is missing");
}

#[test]
fn the_spool_file_goes_when_the_program_is_stopped_or_killed() {
    let (saved, _) = gpt_disk();
    let large = saved.bench.path("large.zst");
    let zeros = "head -c 4000000000 /dev/zero | zstd -q -c";
    let made = Command::new("sh")
        .args(["-c", &format!("{zeros} > {large}")])
        .status();
    assert!(made.unwrap().success());
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let out = saved.bench.path("never.img.zst");
        let mut child = crate::bench::netflash()
            .args(["create", &large, &out])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It says on standard error that it has begun.
        let mut first = [0];
        std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut first).unwrap();
        tool("kill", &[signal, &child.id().to_string()], "");
        assert_eq!(child.wait().unwrap().code(), code);
        let left = fs::read_dir(saved.bench.directory.path()).unwrap();
        let left: Vec<String> = left
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".part") || name.contains("never"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
