//! LVM2 on one physical volume, judged by `pvs`, and each logical volume by its own tools.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::bench::{Bench, Loop, MIB, copy, fill, noise, tool};

const EXTENT: u64 = 4 * MIB;
/// Where `vgcreate` lets extents begin.
const EXTENTS_AT: u64 = MIB;

/// Name and pieces, first extent and count, of each logical volume.
const VOLUMES: [(&str, &[(u64, u64)]); 3] = [
    ("root", &[(3, 30), (50, 20)]),
    ("swap", &[(40, 8)]),
    ("data", &[(75, 4)]),
];

/// A physical volume with [`VOLUMES`]. What `lvcreate` would do needs device-mapper in the kernel;
/// restoring a backup of the metadata does not.
fn physical_volume(bench: &Bench) -> String {
    let path = bench.blank("volume", 400 * MIB);
    let looped = Loop::new(&path);
    lvm(&looped, "pvcreate", &["-y", looped.device()]);
    lvm(
        &looped,
        "vgcreate",
        &["-y", "-A", "n", "room", looped.device()],
    );
    let backup = bench.path("backup");
    lvm(&looped, "vgcfgbackup", &["-f", &backup, "room"]);
    let text = fs::read_to_string(&backup).unwrap();
    // The section of physical volumes ends before the second line of a lone brace after them.
    let volumes = text.find("pe_count").unwrap();
    let pv_end = volumes + text[volumes..].find("}\n").unwrap() + 2;
    let end = pv_end + text[pv_end..].find("}\n").unwrap() + 2;
    let logical: String = VOLUMES
        .iter()
        .enumerate()
        .map(|(index, (name, pieces))| logical_volume(index, name, pieces))
        .collect();
    let changed = [
        &text[..end],
        "logical_volumes {\n",
        &logical,
        "}\n",
        &text[end..],
    ]
    .concat();
    fs::write(&backup, changed).unwrap();
    lvm(&looped, "vgcfgrestore", &["-f", &backup, "--force", "room"]);
    path
}

/// Runs a tool of LVM2 that sees this device only, and none of the host.
fn lvm(looped: &Loop, program: &str, arguments: &[&str]) -> String {
    tool(
        program,
        &[&["--devices", looped.device()], arguments].concat(),
    )
}

fn logical_volume(index: usize, name: &str, pieces: &[(u64, u64)]) -> String {
    let mut start = 0;
    let mut segments = String::new();
    for (number, (first, count)) in pieces.iter().enumerate() {
        segments += &format!(
            "segment{} {{ start_extent = {start} extent_count = {count} type = \"striped\" \
             stripe_count = 1 stripes = [\"pv0\", {first}] }}\n",
            number + 1
        );
        start += count;
    }
    format!(
        "{name} {{ id = \"AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAA{index}\" \
         status = [\"READ\", \"WRITE\", \"VISIBLE\"] flags = [] segment_count = {}\n{segments} }}\n",
        pieces.len()
    )
}

/// Copies logical volume `index` out of `physical`, or into it.
fn transfer(index: usize, physical: &str, file: &str, into: bool) {
    let mut place = 0;
    for (first, count) in VOLUMES[index].1 {
        let (at, bytes) = (EXTENTS_AT + first * EXTENT, count * EXTENT);
        match into {
            true => copy(file, place, physical, at, bytes),
            false => copy(physical, at, file, place, bytes),
        }
        place += bytes;
    }
}

fn extents(index: usize) -> u64 {
    VOLUMES[index].1.iter().map(|(_, count)| count).sum()
}

#[test]
fn logical_volumes_are_the_same_on_a_larger_disk() {
    let bench = Bench::new();
    let physical = physical_volume(&bench);
    let root = bench.blank("root", extents(0) * EXTENT);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", &root]);
    bench.fill(&root, fill);
    let swap = bench.blank("swap", extents(1) * EXTENT);
    tool("mkswap", &[&swap]);
    let data = bench.path("data");
    fs::write(&data, noise(3, (extents(2) * EXTENT) as usize)).unwrap();
    for (index, file) in [&root, &swap, &data].into_iter().enumerate() {
        transfer(index, &physical, file, true);
    }
    let content = bench.content(&root);
    let journey = bench.journey(&physical);
    assert_eq!(journey.partition["fs"], "LVM2_member");
    assert_eq!(
        journey.notes,
        [
            "partition 1 (LVM2_member): its logical volume data is kept whole: \
          no file system is recognised on it"
        ]
    );

    // All that is not an extent, and of extents what each volume uses.
    let outside = 400 * MIB - 99 * EXTENT;
    let rest = outside + 4096 + extents(2) * EXTENT;
    let kept = rest + bench.partclone("extfs", &root);
    journey.assert_used("lvm", kept, rest + crate::ext::allocated(&root));
    let looped = Loop::new(&journey.restored);
    let said = lvm(
        &looped,
        "pvs",
        &[
            "--noheadings",
            "-o",
            "vg_name,pv_pe_alloc_count",
            looped.device(),
        ],
    );
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["room", "62"]);
    drop(looped);
    let restored = bench.blank("root2", extents(0) * EXTENT);
    transfer(0, &journey.restored, &restored, false);
    tool("e2fsck", &["-f", "-n", &restored]);
    assert!(content.len() > 300 && bench.content(&restored) == content);
    let restored = bench.blank("data2", extents(2) * EXTENT);
    transfer(2, &journey.restored, &restored, false);
    assert!(fs::read(&restored).unwrap() == fs::read(&data).unwrap());
}

#[test]
fn a_dirty_logical_volume_is_refused_by_name() {
    let bench = Bench::new();
    let physical = physical_volume(&bench);
    let swap = bench.blank("swap", extents(1) * EXTENT);
    tool("mkswap", &[&swap]);
    transfer(1, &physical, &swap, true);
    let place = EXTENTS_AT + VOLUMES[1].1[0].0 * EXTENT + 4086;
    let file = File::options().write(true).open(&physical).unwrap();
    file.write_all_at(b"S1SUSPEND\0", place).unwrap();
    let said = bench.refusal(&physical);
    assert!(
        said.contains("its logical volume swap (swsuspend): a hibernated Linux"),
        "{said}"
    );
}
