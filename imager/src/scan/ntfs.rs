//! Which clusters of an NTFS volume are free.
//!
//! `$Bitmap` says it; it is believed when the volume was closed cleanly, when nothing of Windows
//! waits in a hibernation file, and when the master file table, its mirror and the bitmap agree.
//! What Windows itself throws away at its next start is left out too: the contents of
//! `pagefile.sys`, `swapfile.sys` and of a `hiberfil.sys` that holds no session.
//!
//! Layout: the NTFS documentation of the Linux-NTFS project, and `ntfs-3g` where that is silent.

use std::ops::Range;

use crate::read_at::{Fields, ReadAt};
use crate::scan::bitmap::Bitmap;
use crate::scan::volume::{Free, Obstacle};

use file::Volume;
use record::{DATA, VOLUME_INFORMATION, VOLUME_NAME};

mod boot;
mod file;
mod log;
mod record;
mod root;
mod runs;
mod session;

const FLAG_DIRTY: u16 = 0x0001;
const FLAG_CHECKING: u16 = 0x4000;

/// Records of the table that the mirror repeats.
const MIRRORED: u64 = 4;

const CHECK: &str = "run `chkdsk /f` on it in Windows";

/// The free clusters of an NTFS volume.
pub(super) fn free(view: &dyn ReadAt) -> Result<Free, Obstacle> {
    let volume = Volume::open(view)?;
    check_mirror(&volume)?;
    let label = check_flags(&volume)?;
    log::check(&volume)?;

    let geometry = volume.geometry;
    let record = volume.record(file::BITMAP)?;
    let bitmap = volume
        .stream(&record, file::BITMAP, DATA, &[])?
        .filter(|stream| stream.is_plain() && stream.bytes >= geometry.clusters.div_ceil(8))
        .ok_or_else(|| Obstacle::unknown("its bitmap is damaged"))?;
    let map = Bitmap::new(geometry.clusters, |at, buffer: &mut [u8]| {
        volume.read(&bitmap, at, buffer)
    });
    let taken = |clusters: &Range<u64>| map.all_set(clusters);
    for range in bitmap
        .clusters()
        .chain(volume.table().clusters())
        .chain([0..1, geometry.mirror..geometry.mirror + 1])
    {
        if !taken(&range)? {
            return Err(Obstacle::unknown("its bitmap calls its own tables free"));
        }
    }

    let mut free = Free::default();
    free.label = label;
    let bytes = |clusters: Range<u64>| {
        let end = clusters.end * geometry.cluster_bytes;
        clusters.start * geometry.cluster_bytes..end.min(geometry.end_bytes)
    };
    map.clear(&mut |clusters| free.push(bytes(clusters)))?;
    for file in session::worthless(&volume)? {
        let mut all = true;
        for clusters in &file.clusters {
            all &= taken(clusters)?;
        }
        if all {
            file.clusters
                .into_iter()
                .for_each(|clusters| free.push(bytes(clusters)));
            free.notes
                .push(format!("the contents of {} are left out", file.name));
        }
    }
    Ok(free)
}

/// The first records of the table must be the same in its mirror.
fn check_mirror(volume: &Volume<'_>) -> Result<(), Obstacle> {
    let record = volume.record(file::MIRROR)?;
    let mirror = volume
        .stream(&record, file::MIRROR, DATA, &[])?
        .filter(|stream| {
            stream.is_plain()
                && stream.clusters().next().map(|run| run.start) == Some(volume.geometry.mirror)
        })
        .ok_or_else(|| Obstacle::unknown("the copy of its file table is not where it should be"))?;
    for number in 0..MIRRORED {
        let (original, copy) = (volume.record(number)?, volume.mirrored(&mirror, number)?);
        if original.bytes() != copy.bytes() {
            return Err(Obstacle::unsafe_until(
                CHECK,
                format!("its file record {number} differs from the copy of it"),
            ));
        }
    }
    Ok(())
}

/// Refuses a volume that waits for a check; gives its label.
fn check_flags(volume: &Volume<'_>) -> Result<Option<String>, Obstacle> {
    let record = volume.record(file::VOLUME)?;
    let damaged = || Obstacle::unknown("its volume information is damaged");
    let attributes = record.attributes().ok_or_else(damaged)?;
    let value = |kind| {
        let found = attributes.iter().find(|a| a.is(kind, &[]));
        found.and_then(|a| a.resident())
    };
    let information = value(VOLUME_INFORMATION)
        .filter(|value| value.len() >= 12)
        .ok_or_else(damaged)?;
    let flags = Fields(information).u16(10);
    if flags & (FLAG_DIRTY | FLAG_CHECKING) != 0 {
        return Err(Obstacle::unsafe_until(
            CHECK,
            "it is mounted, was not closed cleanly, or waits for a check",
        ));
    }
    let label = value(VOLUME_NAME).unwrap_or_default();
    let label = String::from_utf16_lossy(&record::utf16(label));
    Ok(Some(label).filter(|label| !label.is_empty()))
}

#[cfg(test)]
mod tests;
