//! The files in which Windows keeps memory: a session that sleeps in one of them forbids capture;
//! without one, what they contain is worth nothing.

use std::ops::Range;

use super::file::{ROOT, Stream, Volume};
use super::record::{DATA, FILE_NAME, REPARSE_POINT, Record, Reference};
use super::root::{is_named, lookup};
use crate::read_at::Fields;
use crate::scan::volume::Obstacle;

const HIBERNATION: &str = "hiberfil.sys";
const NAMES: [&str; 3] = [HIBERNATION, "pagefile.sys", "swapfile.sys"];

/// Kept from the start of each file. Windows looks there for a session or a crash dump: what an
/// earlier system left on the disk must not answer.
const KEPT_BYTES: u64 = 64 << 10;
/// Where a sleeping session says so, and where it is nothing but zeros that there is none.
const HEADER_BYTES: u64 = 4096;
/// A session that was resumed; its pages mean nothing any more.
const RESUMED: [&[u8; 4]; 2] = [b"WAKE", b"wake"];

/// A file whose contents nobody needs.
pub(super) struct Worthless {
    pub(super) name: &'static str,
    pub(super) clusters: Vec<Range<u64>>,
}

/// The files with worthless contents; refuses a volume on which a session sleeps.
pub(super) fn worthless(volume: &Volume<'_>) -> Result<Vec<Worthless>, Obstacle> {
    let mut found = Vec::new();
    for (name, references) in NAMES.into_iter().zip(lookup(volume, NAMES)?) {
        let [reference] = references[..] else {
            if references.is_empty() {
                continue;
            }
            return Err(Obstacle::Unknown(format!("it has more than one {name}")));
        };
        let record = volume.referenced(reference)?;
        let stream = volume.stream(&record, reference.number, DATA, &[])?;
        if name == HIBERNATION {
            check_asleep(volume, stream.as_ref())?;
        }
        let Some(stream) = stream.filter(Stream::is_plain) else {
            continue;
        };
        if is_ordinary(volume, &record, reference, name)? {
            let kept = KEPT_BYTES.div_ceil(volume.geometry.cluster_bytes);
            let clusters: Vec<_> = stream.clusters_after(kept).collect();
            if !clusters.is_empty() {
                found.push(Worthless { name, clusters });
            }
        }
    }
    Ok(found)
}

fn check_asleep(volume: &Volume<'_>, stream: Option<&Stream>) -> Result<(), Obstacle> {
    const REMEDY: &str = "shut Windows down with `shutdown /s /t 0`, \
                          or turn hibernation off with `powercfg /h off` first";
    let Some(stream) = stream.filter(|stream| stream.bytes >= HEADER_BYTES) else {
        // A pointer to the volume that has the rest.
        return Err(Obstacle::unsafe_until(
            REMEDY,
            "Windows hibernates, and this volume belongs to its session",
        ));
    };
    let mut header = [0; HEADER_BYTES as usize];
    volume.read(stream, 0, &mut header)?;
    let resumed = RESUMED.iter().any(|word| header.starts_with(*word));
    if resumed || header.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    Err(Obstacle::unsafe_until(
        REMEDY,
        "Windows sleeps in its hiberfil.sys (hibernation or Fast Startup)",
    ))
}

/// Whether the record is a file of one name, which is `name` in the root directory.
fn is_ordinary(
    volume: &Volume<'_>,
    record: &Record,
    reference: Reference,
    name: &str,
) -> Result<bool, Obstacle> {
    let Some(attributes) = record.attributes() else {
        return Ok(false);
    };
    let root = volume.record(ROOT)?.sequence();
    let base = record.base();
    let mut names = attributes.iter().filter(|a| a.kind == FILE_NAME);
    let named = match (names.next().and_then(|a| a.resident()), names.next()) {
        (Some(key), None) => {
            let parent = Reference::parse(Fields(key).u64(0));
            is_named(key, name) && (parent.number, parent.sequence) == (ROOT, root)
        }
        _ => false,
    };
    Ok(named
        && record.links() == 1
        && !record.is_directory()
        && (base.number, base.sequence) == (0, 0)
        && reference.number > ROOT
        && attributes.iter().all(|a| a.kind != REPARSE_POINT))
}
