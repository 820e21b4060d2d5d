//! Volumes made by `mkntfs` and filled by `ntfscp`, and what `ntfscat` reads on them.

use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::scan::volume::prove;
use crate::testing::{MIB, Memory, blank, noise, tool};

/// A volume with some files, made by `mkntfs` with `options`.
fn made(directory: &TempDir, bytes: u64, options: &[&str]) -> String {
    let path = blank(directory, "ntfs", bytes);
    tool(
        "mkntfs",
        &[&["-F", "-f", "-q", "-L", "Klassenraum"], options, &[&path]].concat(),
        "",
    );
    for index in 1..20u8 {
        put(
            directory,
            &path,
            &format!("file{index}"),
            &noise(index.into(), usize::from(index) * 20_001),
        );
    }
    path
}

fn put(directory: &TempDir, path: &str, name: &str, content: &[u8]) {
    let file = directory.path().join("content");
    std::fs::write(&file, content).unwrap();
    tool(
        "ntfscp",
        &["-q", "-f", path, file.to_str().unwrap(), name],
        "",
    );
}

/// What is free by the reader, or the words of its obstacle.
fn told(raw: &[u8]) -> Result<Vec<Range<u64>>, String> {
    let free = prove(free, &Memory(raw)).map(|proof| proof.free);
    free.map_err(|obstacle| match obstacle {
        Obstacle::Unknown(reason) => reason,
        Obstacle::Unsafe { found, remedy } => format!("unsafe: {found}; {remedy}"),
        Obstacle::Read(error) => panic!("{error}"),
    })
}

/// What is free by the bitmap that `ntfscat` reads.
fn free_of_ntfscat(path: &str, cluster_bytes: u64, bytes: u64) -> Vec<Range<u64>> {
    let output = Command::new("ntfscat")
        .args(["-q", "-f", "-i", "6", path])
        .output()
        .unwrap_or_else(|error| panic!("ntfscat: {error}; run ./scripts/setup"));
    assert!(output.status.success());
    // Nothing of the last sector is in a cluster.
    let clusters = (bytes - 512) / cluster_bytes;
    let mut free: Vec<Range<u64>> = Vec::new();
    for cluster in 0..clusters {
        if output.stdout[cluster as usize / 8] >> (cluster % 8) & 1 == 0 {
            let start = cluster * cluster_bytes;
            match free.last_mut() {
                Some(last) if last.end == start => last.end += cluster_bytes,
                _ => free.push(start..start + cluster_bytes),
            }
        }
    }
    free
}

#[test]
fn the_free_clusters_are_those_of_the_bitmap_that_ntfscat_reads() {
    for (cluster_bytes, bytes) in [
        (512, 8 * MIB),
        (4096, 40 * MIB),
        (65_536, 60 * MIB),
        (2 << 20, 120 * MIB),
    ] {
        let directory = TempDir::new().unwrap();
        let size = cluster_bytes.to_string();
        let path = made(&directory, bytes, &["-c", &size]);
        let raw = std::fs::read(&path).unwrap();
        let free = told(&raw).unwrap_or_else(|reason| panic!("{size}: {reason}"));
        assert_eq!(free, free_of_ntfscat(&path, cluster_bytes, bytes), "{size}");
    }
}

#[test]
fn the_label_lies_in_the_volume_information() {
    let directory = TempDir::new().unwrap();
    let raw = std::fs::read(made(&directory, 8 * MIB, &[])).unwrap();
    let free = free(&Memory(&raw)).unwrap();
    assert_eq!(free.label.as_deref(), Some("Klassenraum"));
}

/// A volume whose bytes are changed, as a crash or another program would.
struct Edited {
    raw: Vec<u8>,
}

impl Edited {
    fn new(raw: &[u8]) -> Edited {
        Edited { raw: raw.to_vec() }
    }

    fn geometry(&self) -> boot::Geometry {
        boot::Geometry::read(&Memory(&self.raw)).unwrap()
    }

    /// Places of record `number`, in the table and in its mirror.
    fn places(&self, number: u64) -> Vec<usize> {
        let geometry = self.geometry();
        [geometry.table, geometry.mirror]
            .into_iter()
            .take(if number < MIRRORED { 2 } else { 1 })
            .map(|cluster| {
                (cluster * geometry.cluster_bytes) as usize
                    + number as usize * geometry.record_bytes
            })
            .collect()
    }

    /// Where the value, or what says where it lies, of attribute `kind` of a record begins.
    fn attribute(&self, number: u64, kind: u32) -> Vec<usize> {
        let places = self.places(number).into_iter().map(|record| {
            let fields = Fields(&self.raw[record..record + 1024]);
            let mut at = usize::from(fields.u16(0x14));
            while fields.u32(at) != kind {
                assert!(fields.u32(at) < kind, "record {number} has no {kind:#x}");
                at += fields.u32(at + 4) as usize;
            }
            record + at
        });
        places.collect()
    }

    fn set_flags(mut self, flags: u16) -> Edited {
        for at in self.attribute(3, VOLUME_INFORMATION) {
            let value = at + usize::from(Fields(&self.raw).u16(at + 0x14));
            self.raw[value + 10..value + 12].copy_from_slice(&flags.to_le_bytes());
        }
        self
    }

    /// Writes restart pages into the journal: sequence, version, client in use, flags.
    fn set_log(mut self, pages: [(u64, u16, u16, u16); 2]) -> Edited {
        let first = {
            let memory = Memory(&self.raw);
            let volume = Volume::open(&memory).unwrap();
            let record = volume.record(file::LOG).unwrap();
            let log = volume
                .stream(&record, file::LOG, DATA, &[])
                .unwrap()
                .unwrap();
            log.clusters().next().unwrap().start * volume.geometry.cluster_bytes
        };
        for (page, (sequence, version, client, flags)) in pages.into_iter().enumerate() {
            let mut raw = vec![0u8; 4096];
            raw[..8].copy_from_slice(&[b'R', b'S', b'T', b'R', 0x1e, 0, 9, 0]);
            raw[0x10..0x18].copy_from_slice(&[0, 0x10, 0, 0, 0, 0x10, 0, 0]);
            raw[0x18] = 0x30;
            raw[0x1a..0x1c].copy_from_slice(&(version & 0xff).to_le_bytes());
            raw[0x1c..0x1e].copy_from_slice(&(version >> 8).to_le_bytes());
            raw[0x30..0x38].copy_from_slice(&sequence.to_le_bytes());
            raw[0x3c..0x3e].copy_from_slice(&client.to_le_bytes());
            raw[0x3e..0x40].copy_from_slice(&flags.to_le_bytes());
            let at = first as usize + page * 4096;
            self.raw[at..at + 4096].copy_from_slice(&raw);
        }
        self
    }

    fn told(&self) -> Result<Vec<Range<u64>>, String> {
        told(&self.raw)
    }

    fn refused(&self, words: &str) {
        let reason = self.told().expect_err(words);
        assert!(reason.contains(words), "{words}: {reason}");
    }
}

#[test]
fn a_volume_that_was_not_closed_is_unsafe() {
    let directory = TempDir::new().unwrap();
    let raw = std::fs::read(made(&directory, 20 * MIB, &[])).unwrap();
    let clean = told(&raw).unwrap();
    Edited::new(&raw)
        .set_flags(FLAG_DIRTY)
        .refused("unsafe: it is mounted");
    Edited::new(&raw).set_flags(FLAG_CHECKING).refused("chkdsk");
    // What must be upgraded or have its journal resized is as clean as any.
    assert_eq!(
        Edited::new(&raw).set_flags(0x8006).told().as_ref(),
        Ok(&clean)
    );

    const NONE: u16 = 0xffff;
    let log = |pages| Edited::new(&raw).set_log(pages);
    let closed = log([(5, 0x101, NONE, 0), (4, 0x101, 0, 0)]);
    assert_eq!(closed.told().as_ref(), Ok(&clean));
    let closed = log([(5, 0x101, 0, 0), (6, 0x101, 0, 2)]);
    assert_eq!(closed.told().as_ref(), Ok(&clean));
    log([(5, 0x101, 0, 0), (4, 0x101, NONE, 0)]).refused("unsafe: its journal is open");
    log([(5, 0x101, NONE, 0), (6, 0x101, 0, 0)]).refused("unsafe: its journal is open");
    log([(5, 0x200, NONE, 2), (4, 0x101, NONE, 2)]).refused("Fast Startup");
    log([(5, 0x200, 0, 0), (6, 0x200, 0, 0)]).refused("shutdown /s /t 0");
    // A torn newest page: the other one counts.
    let mut torn = log([(5, 0x101, NONE, 2), (6, 0x101, 0, 0)]);
    let at = torn
        .raw
        .windows(4)
        .rposition(|window| window == b"RSTR")
        .unwrap();
    torn.raw[at + 1022] ^= 1;
    assert_eq!(torn.told().as_ref(), Ok(&clean));
    torn.raw[at - 4096 + 510] ^= 1;
    torn.refused("its journal is damaged");
}

#[test]
fn a_sleeping_session_is_unsafe_and_a_resumed_one_is_not() {
    let directory = TempDir::new().unwrap();
    let plain = std::fs::read(made(&directory, 20 * MIB, &[])).unwrap();
    let with = |name: &str, content: &[u8]| {
        let path = directory.path().join("copy");
        std::fs::write(&path, &plain).unwrap();
        put(&directory, path.to_str().unwrap(), name, content);
        std::fs::read(path).unwrap()
    };
    let mut session = noise(7, MIB as usize);
    for word in [b"HIBR", b"hibr", b"RSTR", b"junk"] {
        session[..4].copy_from_slice(word);
        let reason = told(&with("hiberfil.sys", &session)).unwrap_err();
        assert!(reason.contains("sleeps in its hiberfil.sys"), "{reason}");
        assert!(reason.contains("powercfg /h off"), "{reason}");
    }
    let reason = told(&with("HiberFil.sys", b"link")).unwrap_err();
    assert!(reason.contains("belongs to its session"), "{reason}");
    session[..4].copy_from_slice(b"WAKE");
    assert!(told(&with("hiberfil.sys", &session)).is_ok());
    session[..HEADER].fill(0);
    assert!(told(&with("hiberfil.sys", &session)).is_ok());
    // Elsewhere, or under another name, it is a file like any other.
    session[..4].copy_from_slice(b"HIBR");
    assert!(told(&with("hiberfil.sy", &session)).is_ok());
}

const HEADER: usize = 4096;

#[test]
fn contents_of_page_files_are_free_and_their_heads_are_not() {
    let directory = TempDir::new().unwrap();
    let path = made(&directory, 30 * MIB, &[]);
    let mut pages = noise(9, 5 * MIB as usize);
    put(&directory, &path, "pagefile.sys", &pages);
    put(
        &directory,
        &path,
        "SwapFile.sys",
        &pages[..2 * MIB as usize + 5],
    );
    pages[..HEADER].fill(0);
    put(&directory, &path, "hiberfil.sys", &pages[..MIB as usize]);
    let raw = std::fs::read(&path).unwrap();
    let told = prove(free, &Memory(&raw)).unwrap();
    assert_eq!(told.notes.len(), 3, "{:?}", told.notes);
    let ranges = told.free;
    let by_bitmap = free_of_ntfscat(&path, 4096, raw.len() as u64);
    let count = |ranges: &[Range<u64>]| {
        ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>()
    };
    let worthless = (5 + 2 + 1) * MIB + 4096 - 3 * (64 << 10);
    assert_eq!(count(&ranges) - count(&by_bitmap), worthless);
    // The head of every one is still there, and every other file whole.
    let mut without = raw.clone();
    ranges
        .iter()
        .for_each(|range| without[range.start as usize..range.end as usize].fill(0));
    let restored = directory.path().join("restored");
    std::fs::write(&restored, &without).unwrap();
    let content = |of: &str, name: &str| {
        let output = Command::new("ntfscat")
            .args(["-q", "-f", of, name])
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}");
        output.stdout
    };
    let restored = restored.to_str().unwrap();
    for index in 1..20 {
        let name = format!("file{index}");
        assert!(content(restored, &name) == content(&path, &name), "{name}");
    }
    let (before, after) = (
        content(&path, "pagefile.sys"),
        content(restored, "pagefile.sys"),
    );
    assert!(before[..64 << 10] == after[..64 << 10]);
    assert!(after[64 << 10..].iter().all(|&byte| byte == 0));
}

#[test]
fn what_contradicts_itself_is_not_believed() {
    let directory = TempDir::new().unwrap();
    let raw = std::fs::read(made(&directory, 20 * MIB, &[])).unwrap();
    assert!(told(&raw).is_ok());
    let refused = |words: &str, change: &dyn Fn(&mut Edited)| {
        let mut edited = Edited::new(&raw);
        change(&mut edited);
        edited.refused(words);
    };
    refused("boot sector", &|e| e.raw[0x0d] = 3);
    refused("boot sector", &|e| e.raw[0x10] = 2);
    refused("boot sector", &|e| e.raw[0x2c] = 1);
    refused("boot sector", &|e| e.raw[510] = 0);
    refused("its file table", &|e| e.raw[0x30] ^= 1);
    refused("file table is damaged", &|e| {
        let at = e.places(0)[0];
        e.raw[at + 511] ^= 1;
    });
    refused("not where it should be", &|e| e.raw[0x38] ^= 1);
    refused("differs from the copy", &|e| {
        let at = e.places(1)[1];
        e.raw[at + 8] ^= 1;
    });
    refused("file record 6", &|e| {
        let at = e.places(6)[0];
        e.raw[at] = b'B';
    });
    refused("its bitmap is damaged", &|e| {
        // A bitmap of one byte.
        let at = e.attribute(6, DATA)[0];
        e.raw[at + 0x30..at + 0x38].copy_from_slice(&1u64.to_le_bytes());
    });
    refused("calls its own tables free", &|e| {
        let at = e.attribute(6, DATA)[0];
        let pairs = at + 0x40;
        // One run: its place in one or two bytes.
        let place = usize::from(Fields(&e.raw).u16(pairs + 2));
        let place = if e.raw[pairs] >> 4 == 1 {
            place & 0xff
        } else {
            place
        };
        e.raw[place * 4096] &= !1;
    });
    refused("root directory is damaged", &|e| {
        let at = e.attribute(5, record::INDEX_ROOT)[0];
        let value = at + usize::from(Fields(&e.raw).u16(at + 0x14));
        e.raw[value] = 0x31;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_damage_to_metadata_makes_us_panic_or_leave_the_volume(
        flips in prop::collection::vec((0usize..64 << 10, any::<u8>()), 1..20),
        cut in 0usize..5 << 20,
    ) {
        static VOLUME: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let directory = TempDir::new().unwrap();
            let path = made(&directory, 8 * MIB, &["-c", "1024"]);
            std::fs::read(path).unwrap()
        });
        let mut raw = VOLUME.clone();
        let table = {
            let geometry = boot::Geometry::read(&Memory(&raw)).unwrap();
            (geometry.table * geometry.cluster_bytes) as usize
        };
        for (place, value) in flips {
            // One of four in the boot sector, the others among the first records.
            let at = if place % 4 == 0 { 11 + place / 4 % 80 } else { table + place % (12 << 10) };
            raw[at] = value;
        }
        if cut < raw.len() {
            raw.truncate(cut);
        }
        if let Ok(ranges) = told(&raw) {
            prop_assert!(ranges.iter().all(|range| range.end <= raw.len() as u64));
        }
    }
}
