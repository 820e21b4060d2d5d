//! What is held back so that a half-written disk never boots, and the writes at either end of a deploy.
//!
//! ```text
//!  disk:   | LBA 0,1 | rest of the first MiB | ................. | last MiB |
//!  clear:      1               2                                     3         each followed by a flush
//!  data:                                       4 4 4 4 4 4 4 4 4 4 4 4 4 4     flush, read-back
//!  commit:     7               5                                     6         each followed by a flush
//! ```
//!
//! The last MiB is cleared because firmware restores a bad primary table from the backup there: an old backup could
//! bring a half-written disk to life. A power cut before 1 leaves the former disk, between 1 and 6 a disk without a
//! table or boot sector, after 7 the image. Once the backup table is there (6) all but LBA 0 and 1 is: firmware that
//! restores the table from it starts the whole image (`docs/decisions/0003-commit-order.md`).

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::deploy::error::DeployError;
use crate::deploy::surface::Surface;
use crate::device::AlignedBuffer;
use crate::id::FrameId;
use crate::manifest::FRAME_BYTES;

/// What is cleared at the start and at the end of the disk, in bytes. The first frame is exactly as long.
pub(crate) const EDGE_BYTES: u64 = 1 << 20;
/// The frame that holds the first MiB.
const FIRST: FrameId = FrameId(0);

const _: () = assert!(EDGE_BYTES == FRAME_BYTES as u64);

/// What a deploy keeps in memory until the commit.
pub(crate) struct Hold {
    /// The first MiB as it shall be, tables aside. `None` until its frame is there.
    first: Mutex<Option<AlignedBuffer>>,
}

impl Hold {
    /// A hold that has `held` already: the first frame if it was right, and right frames in the last MiB. The latter
    /// are given back: they are to be written again after the clearing.
    pub(crate) fn new(
        mut held: BTreeMap<FrameId, AlignedBuffer>,
    ) -> (Hold, BTreeMap<FrameId, AlignedBuffer>) {
        let first = held.remove(&FIRST);
        (
            Hold {
                first: Mutex::new(first),
            },
            held,
        )
    }

    /// Whether clearing would hit the frame.
    pub(crate) fn touches(surface: &Surface, frame: FrameId) -> bool {
        let offset = surface.offset(frame);
        let end = offset + surface.bytes_on_disk(frame) as u64;
        frame == FIRST || end > surface.target.bytes().saturating_sub(EDGE_BYTES)
    }

    /// Whether the frame is written at the commit only.
    pub(crate) fn withholds(frame: FrameId) -> bool {
        frame == FIRST
    }

    /// Takes the first frame, unpacked and checked.
    pub(crate) fn put(&self, surface: &Surface, buffer: &AlignedBuffer) {
        let bytes = surface.bytes_on_disk(FIRST);
        let copy = AlignedBuffer::padded(&buffer[..bytes], surface.target.sector_bytes());
        *self
            .first
            .lock()
            .expect("nothing panics while it holds the lock") = Some(copy);
    }

    /// Clears what could boot: LBA 0 and 1, the rest of the first MiB, the last MiB, in this order.
    ///
    /// # Errors
    /// When a write or a flush fails.
    pub(crate) fn clear(&self, surface: &Surface) -> Result<(), DeployError> {
        let disk = surface.target.bytes() / sector(surface) * sector(surface);
        let boot = boot_bytes(surface).min(disk);
        let first = EDGE_BYTES.min(disk);
        let last = disk.saturating_sub(EDGE_BYTES).max(first);
        for (start, end) in [(0, boot), (boot, first), (last, disk)] {
            if start < end {
                let zeros = AlignedBuffer::new((end - start) as usize);
                surface.write_at(&zeros, zeros.len(), start)?;
                // Without it a disk may boot half-written: `every_power_cut_leaves_a_whole_or_a_dead_disk`.
                surface.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the first MiB, the backup table, and last of all LBA 0 and 1, and reads all of it back.
    ///
    /// # Errors
    /// When a write, a flush or a read fails, or the disk reads back something else.
    pub(crate) fn commit(&self, surface: &Surface) -> Result<(), DeployError> {
        let first = self
            .first
            .lock()
            .expect("nothing panics while it holds the lock")
            .take();
        // Without used bytes the first frame is never sent: it is zeros.
        let first_bytes = surface.padded(surface.bytes_on_disk(FIRST));
        let mut first = first.unwrap_or_else(|| AlignedBuffer::new(first_bytes));
        surface.tables.overlay(0, &mut first);

        let boot = (boot_bytes(surface) as usize).min(first.len());
        let sector_bytes = surface.target.sector_bytes();
        let rest = AlignedBuffer::padded(&first[boot..], sector_bytes);
        write_and_check(surface, &[(boot as u64, rest)])?;

        let first_bytes = first.len() as u64;
        let beyond_first = surface.tables.runs.iter().filter_map(|run| {
            let skipped = first_bytes
                .saturating_sub(run.offset)
                .min(run.data.len() as u64);
            let data = AlignedBuffer::padded(&run.data[skipped as usize..], sector_bytes);
            (!data.is_empty()).then_some((run.offset + skipped, data))
        });
        write_and_check(surface, &beyond_first.collect::<Vec<_>>())?;

        let boot = AlignedBuffer::padded(&first[..boot], sector_bytes);
        write_and_check(surface, &[(0, boot)])
    }
}

/// Writes runs, flushes, and compares them with what the disk then holds. Nothing to write needs no flush.
fn write_and_check(surface: &Surface, runs: &[(u64, AlignedBuffer)]) -> Result<(), DeployError> {
    if runs.is_empty() {
        return Ok(());
    }
    for (offset, data) in runs {
        surface.write_at(data, data.len(), *offset)?;
    }
    surface.flush()?;
    for (offset, data) in runs {
        if !surface.holds(*offset, data)? {
            return Err(DeployError::ReadBack {
                path: surface.path(),
                offset: *offset,
            });
        }
    }
    Ok(())
}

fn sector(surface: &Surface) -> u64 {
    u64::from(surface.target.sector_bytes())
}

/// LBA 0 and 1: boot sector and primary table header.
fn boot_bytes(surface: &Surface) -> u64 {
    2 * sector(surface)
}
