//! Sealing on the way to somewhere else: nothing is kept here but the manifest as it grows.
//!
//! Used where the image does not fit: a machine sends its disk to the server out of its memory. What
//! [`seal`](super::seal) reads back from its file is read from the source once more here. A source
//! that changed in between gives an image that does not verify; whoever takes the image verifies it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::manifest::Manifest;
use crate::scan::{scan, scan_tables};
use crate::seal::consent::{check_consent, told, told_of_source, unchanged};
use crate::seal::{Draft, SealError, SealOptions, SealProgress, Sealed, check_size, tail};
use crate::source::Source;

/// Seals `source` and hands the bytes of the image to `out`, front to back.
///
/// Memory: some frames for each thread, and about 50 bytes for each frame of the disk.
///
/// # Errors
/// See [`SealError`]; a stream cannot be sealed so. What `out` has got by then is no image.
pub fn seal_to(
    mut source: Source,
    out: &mut dyn Write,
    options: &SealOptions,
    observer: &mut dyn FnMut(SealProgress),
    stop: &AtomicBool,
) -> Result<Sealed, SealError> {
    let disk = source.disk().ok_or(SealError::Stream)?;
    let read_error = |source| SealError::Read { offset: 0, source };
    check_size(&source)?;
    let sector_bytes = disk.sector_bytes();
    let before =
        scan(disk, sector_bytes, &options.whole, options.only.as_ref()).map_err(read_error)?;
    check_consent(&before, options)?;
    let free = before.skipped(options.used_only);

    let mut notes = told_of_source(&source);
    let mut draft = Draft::default();
    let sink_error = |source| SealError::Sink { source };
    let mut write = |stored: &[u8]| out.write_all(stored).map_err(sink_error);
    draft.fill(&mut source, &free, options, &mut write, observer, stop)?;

    let disk = source.disk().ok_or(SealError::Stream)?;
    let after = scan_tables(disk, sector_bytes).map_err(read_error)?;
    let found = unchanged(before, &after)?;
    let (data_end, hashes) = draft.mask_tables(disk, &found.tables).map_err(read_error)?;
    draft.hashes = hashes;
    let manifest = Manifest::new(&draft.parts(&found, data_end, options))?;
    let tail = tail(&manifest).map_err(sink_error)?;
    out.write_all(&tail)
        .and_then(|()| out.flush())
        .map_err(sink_error)?;
    notes.extend(told(found));
    Ok(Sealed {
        manifest: Arc::new(manifest),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::seal::seal;
    use crate::testing::{MIB, blank, ext, noise, tool};
    use crate::whole::Whole;

    fn options() -> SealOptions {
        SealOptions {
            used_only: true,
            whole: Whole::default(),
            only: None,
            level: 1,
            note: "of a test".into(),
            parent: None,
            created: 1_800_000_000,
            threads: 2,
        }
    }

    #[test]
    fn the_bytes_are_those_that_sealing_into_a_file_gives() {
        let directory = TempDir::new().unwrap();
        let path = blank(&directory, "disk", 24 * MIB);
        tool("sgdisk", &["--clear", "--new=1:2048:+16M", &path], "");
        let mut raw = fs::read(&path).unwrap();
        let (_, fs_bytes) = ext(&directory, 16 * MIB, &["-t", "ext4"]);
        raw[MIB as usize..17 * MIB as usize].copy_from_slice(&fs_bytes);
        raw[18 * MIB as usize..20 * MIB as usize].copy_from_slice(&noise(3, 2 * MIB as usize));
        fs::write(&path, raw).unwrap();

        let open = || Source::open(path.as_ref(), directory.path()).unwrap();
        let file = directory.path().join("file.img.zst");
        let stop = AtomicBool::new(false);
        let sealed = seal(open(), &file, &options(), &mut |_| {}, &stop).unwrap();
        let mut streamed = Vec::new();
        let again = seal_to(open(), &mut streamed, &options(), &mut |_| {}, &stop).unwrap();
        assert_eq!(again.manifest.id(), sealed.manifest.id());
        assert!(streamed == fs::read(&file).unwrap(), "other bytes");
    }

    #[test]
    fn a_sink_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("full"))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, noise(1, 3 * MIB as usize)).unwrap();
        let source = Source::open(&path, directory.path()).unwrap();
        let stop = AtomicBool::new(false);
        let outcome = seal_to(source, &mut Full, &options(), &mut |_| {}, &stop);
        assert!(matches!(outcome, Err(SealError::Sink { .. })));
    }
}
