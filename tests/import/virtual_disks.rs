//! Disks of virtual machines, made by `qemu-img` and judged by it.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};

use crate::bench::{Bench, MIB, tool};
use crate::trial::{assert_becomes, assert_becomes_with, assert_refused, output_of, some_disk};

/// The disk, and a file of it in the format that `qemu-img` is asked for.
fn made(bench: &Bench, name: &str, format: &str, options: &str) -> (Vec<u8>, String) {
    let mut raw = some_disk();
    // More than one table of grains, and blocks of every kind.
    raw.resize(96 * MIB as usize, 0);
    raw[70 << 20..][..5000].fill(7);
    let (disk, out) = (bench.file("disk", &raw), bench.path(name));
    let options = ["-o", options];
    let options = if options[1].is_empty() {
        &[][..]
    } else {
        &options
    };
    let arguments = [
        &["convert", "-f", "raw", "-O", format],
        options,
        &[&disk, &out],
    ];
    tool("qemu-img", &arguments.concat(), "");
    (raw, out)
}

/// What `qemu-img` makes of a file of its own.
fn judged(bench: &Bench, path: &str, format: &str) -> Vec<u8> {
    let raw = bench.path("judged");
    tool(
        "qemu-img",
        &["convert", "-f", format, "-O", "raw", path, &raw],
        "",
    );
    fs::read(raw).unwrap()
}

const SUBFORMATS: [&str; 5] = [
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "streamOptimized",
];

#[test]
fn every_kind_of_vmdk_is_the_disk_that_qemu_reads() {
    for subformat in SUBFORMATS {
        let bench = Bench::new();
        let (raw, path) = made(
            &bench,
            "disk.vmdk",
            "vmdk",
            &format!("subformat={subformat}"),
        );
        assert!(judged(&bench, &path, "vmdk") == raw);
        assert_becomes(&bench, &path, &raw);
    }
}

#[test]
fn a_vmdk_that_is_not_whole_is_refused() {
    for (subformat, lefts) in [
        ("streamOptimized", [900, 100_000]),
        ("monolithicSparse", [900, 66_000]),
    ] {
        let bench = Bench::new();
        let (_, path) = made(
            &bench,
            "disk.vmdk",
            "vmdk",
            &format!("subformat={subformat}"),
        );
        let whole = fs::read(&path).unwrap();
        for left in lefts {
            assert_refused(&bench, &bench.file("cut.vmdk", &whole[..left]), "");
        }
    }
    let bench = Bench::new();
    let (_, path) = made(&bench, "disk.vmdk", "vmdk", "subformat=streamOptimized");
    let mut damaged = fs::read(&path).unwrap();
    let middle = damaged.len() / 3;
    damaged[middle] ^= 0x55;
    assert_refused(&bench, &bench.file("damaged.vmdk", &damaged), "damaged");
}

#[test]
fn a_descriptor_reaches_no_file_but_those_beside_it() {
    let bench = Bench::new();
    let (_, path) = made(&bench, "disk.vmdk", "vmdk", "subformat=monolithicFlat");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"disk-flat.vmdk\""));
    fs::create_dir(bench.path("sub")).unwrap();
    fs::copy(bench.path("disk-flat.vmdk"), bench.path("sub/flat")).unwrap();
    symlink("/etc/passwd", bench.path("link")).unwrap();
    let absolute = bench.path("disk-flat.vmdk");
    for (name, word) in [
        ("../disk-flat.vmdk", "only files beside it"),
        ("sub/flat", "only files beside it"),
        (&absolute[..], "only files beside it"),
        ("link", "no plain file"),
        ("gone.vmdk", "gone.vmdk"),
    ] {
        let changed = text.replace("disk-flat.vmdk", name);
        let changed = bench.file("changed.vmdk", changed.as_bytes());
        assert_refused(&bench, &changed, word);
    }
    // Each time it is named its directory would be kept once more.
    made(&bench, "sparse.vmdk", "vmdk", "subformat=monolithicSparse");
    let twice =
        "# Disk DescriptorFile\n".to_owned() + &"RW 2048 SPARSE \"sparse.vmdk\"\n".repeat(2);
    let twice = bench.file("twice.vmdk", twice.as_bytes());
    assert_refused(&bench, &twice, "twice");
    fs::remove_file(&path).unwrap();
    let flat = fs::File::options()
        .write(true)
        .open(bench.path("disk-flat.vmdk"));
    flat.unwrap().set_len(95 * MIB).unwrap();
    assert_refused(
        &bench,
        &bench.file("again.vmdk", text.as_bytes()),
        "cut short",
    );
}

#[test]
fn halves_of_disks_are_refused_with_the_remedy() {
    let bench = Bench::new();
    for (format, word) in [("vmdk", "consolidate"), ("qcow2", "backing file")] {
        let (_, base) = made(&bench, &format!("base.{format}"), format, "");
        let child = bench.path(&format!("child.{format}"));
        let backing = [
            "create", "-q", "-f", format, "-F", format, "-b", &base, &child,
        ];
        tool("qemu-img", &backing, "");
        assert_refused(&bench, &child, word);
    }
    made(&bench, "two.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse");
    assert_refused(&bench, &bench.path("two-s001.vmdk"), "name the descriptor");
}

#[test]
fn vhdx_and_vhd_are_the_disks_that_qemu_reads() {
    for (format, options) in [
        ("vhdx", ""),
        ("vhdx", "block_size=1M"),
        ("vhdx", "subformat=fixed"),
        ("vpc", "force_size=on"),
        ("vpc", ""),
        ("vpc", "subformat=fixed,force_size=on"),
    ] {
        let bench = Bench::new();
        let (raw, path) = made(&bench, "disk.vhd", format, options);
        let expected = judged(&bench, &path, format);
        assert!(expected.starts_with(&raw));
        assert_becomes(&bench, &path, &expected);
    }
}

#[test]
fn a_damaged_or_open_vhdx_is_refused() {
    let bench = Bench::new();
    let (raw, path) = made(&bench, "disk.vhdx", "vhdx", "");
    let whole = fs::read(&path).unwrap();
    let with = |changes: &[(u64, &[u8])]| {
        let path = bench.file("changed.vhdx", &whole);
        let file = fs::File::options().write(true).open(&path).unwrap();
        for (at, bytes) in changes {
            file.write_all_at(bytes, *at).unwrap();
        }
        path
    };
    let both = |at: u64| [(at, &b"X"[..]), (at + (64 << 10), &b"X"[..])];
    // One copy of each is enough.
    assert_becomes(
        &bench,
        &with(&[(65_536, &b"X"[..]), (3 * 65_536 + 20, &b"X"[..])]),
        &raw,
    );
    assert_refused(&bench, &with(&both(65_536 + 16)), "headers are damaged");
    assert_refused(
        &bench,
        &with(&both(3 * 65_536 + 16)),
        "region tables are damaged",
    );
    assert_refused(
        &bench,
        &bench.file("cut.vhdx", &whole[..3 << 20]),
        "cut short",
    );
    // A disk that is in use has the log's number in its newest header.
    for at in [65_536, 2 * 65_536] {
        let mut header = whole[at..at + 4096].to_vec();
        header[48..64].fill(9);
        header[4..8].fill(0);
        let crc = crc32c(&header).to_le_bytes();
        header[4..8].copy_from_slice(&crc);
        let other = 3 * 65_536 - at;
        let open = with(&[(at as u64, &header[..]), (other as u64, &b"X"[..])]);
        assert_refused(&bench, &open, "not closed");
    }
    let (_, path) = made(&bench, "disk.vhd", "vpc", "");
    let whole = fs::read(path).unwrap();
    let mut damaged = whole.clone();
    damaged[50] ^= 1;
    assert_refused(
        &bench,
        &bench.file("damaged.vhd", &damaged),
        "checksum of its footer",
    );
    damaged = whole.clone();
    damaged[600] ^= 1;
    assert_refused(
        &bench,
        &bench.file("damaged.vhd", &damaged),
        "dynamic header",
    );
    assert_refused(&bench, &bench.file("cut.vhd", &whole[..1600]), "cut short");
}

/// Bit by bit, from the polynomial alone.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[test]
fn a_compressed_disk_of_another_program_is_read_as_well() {
    let bench = Bench::new();
    for (format, name) in [("qcow2", "a.qcow2"), ("vmdk", "a.vmdk"), ("vhdx", "a.vhdx")] {
        let (raw, path) = made(&bench, name, format, "");
        let packed = bench.file("packed", &output_of("gzip", &["-1", "-c", &path]));
        assert_becomes(&bench, &packed, &raw);
    }
}

/// An OVA with `disks` in this order, and checksums by `sums`, a program.
fn ova(bench: &Bench, disks: &[&str], sums: Option<&str>) -> String {
    let mut text = String::from("<?xml version='1.0'?>\n<Envelope><References>\n");
    for (index, disk) in disks.iter().enumerate() {
        text += &format!("<File ovf:id=\"file{index}\" ovf:href=\"{disk}\"/>\n");
    }
    text += "</References><DiskSection>\n";
    for index in 0..disks.len() {
        text += &format!("<Disk ovf:diskId=\"d{index}\" ovf:fileRef=\"file{index}\"/>\n");
    }
    text += "</DiskSection></Envelope>\n";
    bench.file("machine.ovf", text.as_bytes());
    let mut members = vec!["machine.ovf"];
    if let Some(program) = sums {
        let mut list = String::new();
        for name in [&["machine.ovf"], disks].concat() {
            let said = tool(program, &[&bench.path(name)], "");
            let sum = said.split_whitespace().next().unwrap();
            let algorithm = program.trim_end_matches("sum").to_uppercase();
            list += &format!("{algorithm}({name})= {sum}\n");
        }
        bench.file("machine.mf", list.as_bytes());
        members.push("machine.mf");
    }
    members.extend(disks);
    let (out, directory) = (bench.path("machine.ova"), bench.path(""));
    let tar = ["--format=ustar", "-cf", &out, "-C", &directory];
    tool("tar", &[&tar[..], &members].concat(), "");
    out
}

#[test]
fn the_disk_of_an_ova_is_read_in_its_place() {
    let bench = Bench::new();
    let (raw, _) = made(&bench, "one.vmdk", "vmdk", "subformat=streamOptimized");
    let second = &raw[..MIB as usize];
    bench.file("two.raw", second);
    for sums in [None, Some("sha256sum"), Some("sha1sum")] {
        let path = ova(&bench, &["one.vmdk"], sums);
        let made = assert_becomes(&bench, &path, &raw);
        assert_eq!(
            sums.is_none(),
            made["notes"].to_string().contains("no checksums")
        );
    }
    let path = ova(&bench, &["one.vmdk", "two.raw"], Some("sha256sum"));
    let made = assert_becomes(&bench, &path, &raw);
    assert!(made["notes"].to_string().contains("--disk"), "{made}");
    assert_becomes_with(&bench, &path, second, &["--disk=2"]);
    let packed = bench.file("packed", &output_of("gzip", &["-1", "-c", &path]));
    assert_becomes(&bench, &packed, &raw);
}

#[test]
fn an_ova_whose_checksum_is_wrong_or_that_is_cut_short_is_refused() {
    let bench = Bench::new();
    made(&bench, "one.vmdk", "vmdk", "subformat=streamOptimized");
    let path = ova(&bench, &["one.vmdk"], Some("sha256sum"));
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert_refused(
        &bench,
        &bench.file("damaged", &damaged),
        "checksum of one.vmdk is wrong",
    );
    assert_refused(&bench, &bench.file("cut", &whole[..middle]), "cut short");
    damaged = whole;
    damaged[3] ^= 1;
    assert_refused(&bench, &bench.file("damaged", &damaged), "damaged header");
    let other = bench.path("other.tar");
    let directory = bench.path("");
    tool("tar", &["-cf", &other, "-C", &directory, "one.vmdk"], "");
    assert_refused(&bench, &other, "description");
}
