//! Volumes as Windows has them, filled by drivers that are not ours, there and back again.
//!
//! Each is made by its own tools on a partition full of noise, filled, thinned out and fragmented
//! through a FUSE driver, sealed with its free space left out, and restored onto a larger disk full
//! of other noise. Then its own checker, its files and `partclone` are the judges.
//!
//! They need root, loop devices and `/dev/fuse`; without them they fail and say so.
#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "windows_volumes/room.rs"]
mod room;

use room::{MIB, Room, Volume};

#[test]
fn an_ntfs_volume_comes_back_as_it_was() {
    let room = Room::new();
    for cluster in ["4096", "65536"] {
        let volume = Volume {
            name: "ntfs",
            table_type: "7",
            bytes: 200 * MIB,
            maker: &["mkntfs", "-F", "-f", "-q", "-L", "Schule", "-c", cluster],
            mount: "ntfs-3g",
            partclone: "partclone.ntfs",
            checker: &["ntfsfix", "-n"],
        };
        let judged = room.judge(&volume, FILL);
        assert_eq!(judged.label, "Schule");
        let said = room.run("ntfsinfo", &["-m", "-f", &judged.original]);
        let free = number_after(&said, "Free Clusters:") * cluster.parse::<u64>().unwrap();
        assert!(judged.used_bytes >= volume.bytes - free, "{cluster}");
        judged.assert_near_partclone();
    }
}

#[test]
fn an_ntfs_volume_whose_file_table_lies_in_pieces_comes_back() {
    let room = Room::new();
    let volume = Volume {
        name: "ntfs",
        table_type: "7",
        bytes: 32 * MIB,
        maker: &["mkntfs", "-F", "-f", "-q", "-c", "512"],
        mount: "ntfs-3g",
        partclone: "partclone.ntfs",
        checker: &["ntfsfix", "-n"],
    };
    // Full but for holes of three clusters, into which the table then grows.
    let judged = room.judge(
        &volume,
        r#"
        mkdir "$M/d"
        for i in $(seq 1 5000); do head -c 1500 "$NOISE" >"$M/d/h$i"; done
        head -c 60000000 "$NOISE" >"$M/rest" 2>/dev/null || true
        rm "$M"/d/h*[02468]
        for i in $(seq 1 4200); do : >"$M/d/n$i"; done
        rm "$M/rest"
        "#,
    );
    let said = room.run("ntfsinfo", &["-i", "0", "-f", "-v", &judged.original]);
    assert!(
        said.contains("$ATTRIBUTE_LIST"),
        "the table is in one record:\n{said}"
    );
    judged.assert_near_partclone();
}

#[test]
fn fat_volumes_come_back_as_they_were() {
    let room = Room::new();
    for (bits, bytes, sectors) in [
        ("12", 12 * MIB, "8"),
        ("16", 120 * MIB, "8"),
        ("32", 200 * MIB, "2"),
    ] {
        let volume = Volume {
            name: "vfat",
            table_type: if bits == "32" { "c" } else { "e" },
            bytes,
            maker: &["mkfs.fat", "-F", bits, "-s", sectors, "-n", "SCHULE"],
            mount: "mtools",
            partclone: "partclone.fat",
            checker: &["fsck.fat", "-n"],
        };
        let judged = room.judge(&volume, FILL);
        assert_eq!(judged.label, "SCHULE");
        let said = room.run("fsck.fat", &["-n", "-v", &judged.original]);
        let (used, cluster) = said
            .lines()
            .last()
            .and_then(|line| line.rsplit_once(", ")?.1.split_once('/'))
            .map(|(used, _)| {
                (
                    used.parse::<u64>().unwrap(),
                    sectors.parse::<u64>().unwrap() * 512,
                )
            })
            .unwrap();
        assert!(judged.used_bytes >= used * cluster, "FAT{bits}");
        // Of FAT12, partclone 0.3.23 copies less than the files have: it is no judge there.
        if bits != "12" {
            judged.assert_near_partclone();
        }
    }
}

#[test]
fn an_exfat_volume_comes_back_as_it_was() {
    let room = Room::new();
    for cluster in ["4K", "32K"] {
        let volume = Volume {
            name: "exfat",
            table_type: "7",
            bytes: 200 * MIB,
            maker: &["mkfs.exfat", "-L", "Schule", "-c", cluster],
            mount: "mount.exfat-fuse",
            partclone: "partclone.exfat",
            checker: &["fsck.exfat", "-n"],
        };
        let judged = room.judge(&volume, FILL);
        assert_eq!(judged.label, "Schule");
        let said = room.run("dump.exfat", &[&judged.original]);
        let used = number_after(&said, "Total Clusters:") - number_after(&said, "Free Clusters:");
        assert!(
            judged.used_bytes >= used * number_after(&said, "Cluster size:"),
            "{cluster}"
        );
        judged.assert_near_partclone();
    }
}

/// Files of all sizes; every second goes, larger ones take their place, and two grow in turn.
const FILL: &str = r#"
    mkdir "$M/dir"
    for i in $(seq 1 50); do head -c $((i * UNIT / 50 + 1)) "$NOISE" >"$M/f$i"; done
    for i in $(seq 1 2 50); do rm "$M/f$i"; done
    for i in 1 2 3; do tail -c $((i * UNIT * 2)) "$NOISE" >"$M/dir/big$i"; done
    for i in $(seq 1 40); do
        head -c 20000 "$NOISE" >>"$M/dir/left"
        tail -c 20000 "$NOISE" >>"$M/dir/right"
    done
    rm "$M/dir/big2"
"#;

fn number_after(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in:\n{said}"))
}
