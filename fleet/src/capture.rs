//! Images on their way into the server's directory, part by part.
//!
//! ```text
//!  images/.job-7.part ── parts appended ──▶ complete ── every frame checked ──▶ images/NAME.img.zst
//!        └── cancelled, failed, or not an image: removed
//! ```
//! A part file outlives the server. What is in it is hashed again then, and the agent compares.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use netflash_imager::{Image, ImageError, VerifyError, verify};
use netflash_pxe::{CaptureEnd, Hex32};

/// Bytes hashed at once when a part file is found again.
const HASH_BYTES: usize = 1 << 20;
/// Bytes taken before they are flushed to the medium: what a power cut of the server costs at most.
const UNFLUSHED_MAX: u64 = 64 << 20;

/// Why a part is not taken, or a file is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The directory cannot be used, or is full.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The part does not follow what is there.
    #[error("the image has {bytes} bytes here; a part at {offset} does not follow them")]
    Gap {
        /// Bytes there.
        bytes: u64,
        /// Where the part begins.
        offset: u64,
    },
    /// It is no image.
    #[error("what the machine sent is no image")]
    Image(#[from] ImageError),
    /// It could not be checked.
    #[error("checking what the machine sent")]
    Verify(#[from] VerifyError),
    /// It is an image, but not the one that was announced, or not whole.
    #[error("what the machine sent is damaged: {0}; its disk may have changed while it was read")]
    Damaged(String),
}

/// All images on their way.
pub(crate) struct Captures {
    directory: PathBuf,
    uploads: Mutex<BTreeMap<u64, Arc<Mutex<Upload>>>>,
}

/// One of them.
struct Upload {
    file: File,
    bytes: u64,
    /// Of these, the last that may not be on the medium.
    unflushed: u64,
    hasher: blake3::Hasher,
}

impl Captures {
    /// Images go to `directory`, which is made when the first one comes.
    pub(crate) fn new(directory: PathBuf) -> Captures {
        Captures {
            directory,
            uploads: Mutex::new(BTreeMap::new()),
        }
    }

    /// Where the image called `name` will lie.
    pub(crate) fn final_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.img.zst"))
    }

    /// How many bytes of the image of `job` are there, and their hash.
    ///
    /// # Errors
    /// When the file cannot be made or read.
    pub(crate) fn state(&self, job: u64) -> Result<(u64, Hex32), CaptureError> {
        let upload = self.upload(job)?;
        let upload = upload.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(upload.state())
    }

    /// Appends a part that begins at `offset`; 0 begins the image anew.
    ///
    /// # Errors
    /// When it does not follow what is there, or cannot be written: then nothing of it is kept.
    pub(crate) fn append(
        &self,
        job: u64,
        offset: u64,
        part: &[u8],
    ) -> Result<(u64, Hex32), CaptureError> {
        let upload = self.upload(job)?;
        let mut upload = upload.lock().unwrap_or_else(PoisonError::into_inner);
        let file_error = |source| CaptureError::File {
            path: self.part_path(job),
            source,
        };
        if offset == 0 && upload.bytes > 0 {
            upload.file.set_len(0).map_err(file_error)?;
            (upload.bytes, upload.unflushed) = (0, 0);
            upload.hasher = blake3::Hasher::new();
        }
        if offset != upload.bytes {
            return Err(CaptureError::Gap {
                bytes: upload.bytes,
                offset,
            });
        }
        if let Err(error) = upload.file.write_all_at(part, offset) {
            upload.file.set_len(offset).map_err(file_error)?;
            return Err(file_error(error));
        }
        upload.bytes += part.len() as u64;
        upload.unflushed += part.len() as u64;
        upload.hasher.update(part);
        if upload.unflushed >= UNFLUSHED_MAX {
            upload.flush().map_err(file_error)?;
        }
        Ok(upload.state())
    }

    /// Brings what was taken of the image of `job` to the medium: a row that says it is all there must not be older.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn flush(&self, job: u64) -> Result<(), CaptureError> {
        let upload = self.upload(job)?;
        let mut upload = upload.lock().unwrap_or_else(PoisonError::into_inner);
        upload
            .flush()
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|source| CaptureError::File {
                path: self.part_path(job),
                source,
            })
    }

    /// Checks every frame of the image of `job` and gives it its place; an image that is in that place already, from
    /// before a crash, is fine.
    ///
    /// # Errors
    /// When it is not the image `end` speaks of, whole in every frame, or cannot be put there.
    pub(crate) fn finish(
        &self,
        job: u64,
        name: &str,
        end: &CaptureEnd,
    ) -> Result<PathBuf, CaptureError> {
        let (part, place) = (self.part_path(job), self.final_path(name));
        if !part.exists() && place.exists() {
            check(&place, end)?;
            return Ok(place);
        }
        check(&part, end)?;
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| CaptureError::File { path, source }
        };
        File::open(&part)
            .and_then(|file| file.sync_all())
            .map_err(file_error(&part))?;
        // A link, because a rename would replace what somebody else has put there.
        match fs::hard_link(&part, &place) {
            Err(error) if !same_file(&part, &place) => return Err(file_error(&place)(error)),
            _ => {}
        }
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(file_error(&self.directory))?;
        self.forget(job);
        Ok(place)
    }

    /// Gives up the image of `job`.
    pub(crate) fn forget(&self, job: u64) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.remove(&job);
        match fs::remove_file(self.part_path(job)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{}: {error}", self.part_path(job).display());
            }
            _ => {}
        }
    }

    fn upload(&self, job: u64) -> Result<Arc<Mutex<Upload>>, CaptureError> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = uploads.get(&job) {
            return Ok(Arc::clone(upload));
        }
        let path = self.part_path(job);
        let upload = fs::create_dir_all(&self.directory)
            .and_then(|()| Upload::open(&path))
            .map_err(|source| CaptureError::File { path, source })?;
        let upload = Arc::new(Mutex::new(upload));
        uploads.insert(job, Arc::clone(&upload));
        Ok(upload)
    }

    fn part_path(&self, job: u64) -> PathBuf {
        self.directory.join(format!(".job-{job}.part"))
    }
}

impl Upload {
    fn open(path: &Path) -> io::Result<Upload> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_BYTES];
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        Ok(Upload {
            file,
            bytes,
            unflushed: bytes,
            hasher,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.unflushed = 0;
        Ok(())
    }

    fn state(&self) -> (u64, Hex32) {
        (self.bytes, Hex32(*self.hasher.finalize().as_bytes()))
    }
}

/// Whether both names are of one file: a former server may have linked it and died.
fn same_file(a: &Path, b: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).map(|of| (of.dev(), of.ino()));
    matches!((number(a), number(b)), (Ok(a), Ok(b)) if a == b)
}

/// Whether the file at `path` is the image `end` speaks of, in every frame.
fn check(path: &Path, end: &CaptureEnd) -> Result<(), CaptureError> {
    let damaged = |text: String| Err(CaptureError::Damaged(text));
    let found = fs::metadata(path).map_err(|source| CaptureError::File {
        path: path.to_owned(),
        source,
    })?;
    if found.len() != end.bytes {
        return damaged(format!("{} bytes instead of {}", found.len(), end.bytes));
    }
    let image = Image::open(path)?;
    if image.id().0 != end.image_id.0 {
        return damaged(format!("its id is {}, not {}", image.id(), end.image_id));
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let verification = verify(&image, threads, &|_| {}, &AtomicBool::new(false))?;
    if !verification.tables_right {
        return damaged("its partition tables are not those of its data".to_owned());
    }
    match verification.bad.first() {
        Some(bad) => damaged(format!(
            "{} frames, the first at byte {} of the disk: {}",
            verification.bad_frames, bad.raw_offset, bad.reason
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use netflash_imager::{SealOptions, Source, seal_to};
    use tempfile::TempDir;

    use super::*;

    fn image(directory: &TempDir) -> (Vec<u8>, CaptureEnd) {
        let disk = directory.path().join("disk");
        let raw: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
        fs::write(&disk, raw).unwrap();
        let source = Source::open(&disk, directory.path()).unwrap();
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
        let mut bytes = Vec::new();
        let stop = AtomicBool::new(false);
        let sealed = seal_to(source, &mut bytes, &options, &mut |_| {}, &stop).unwrap();
        let end = CaptureEnd {
            bytes: bytes.len() as u64,
            image_id: Hex32(sealed.manifest.id().0),
            disk: "/dev/vda".to_owned(),
            took_ms: 1,
            notes: Vec::new(),
        };
        (bytes, end)
    }

    fn hash(bytes: &[u8]) -> Hex32 {
        Hex32(*blake3::hash(bytes).as_bytes())
    }

    #[test]
    fn parts_become_an_image_also_across_a_start_of_the_server() {
        let directory = TempDir::new().unwrap();
        let (bytes, end) = image(&directory);
        let images = directory.path().join("images");
        let captures = Captures::new(images.clone());
        assert_eq!(captures.state(7).unwrap(), (0, hash(b"")));
        captures.append(7, 0, &bytes[..1000]).unwrap();
        drop(captures);

        let captures = Captures::new(images);
        assert_eq!(captures.state(7).unwrap(), (1000, hash(&bytes[..1000])));
        let gap = captures.append(7, 1001, &bytes[1001..]);
        assert!(matches!(gap, Err(CaptureError::Gap { bytes: 1000, .. })));
        captures.append(7, 1000, &bytes[1000..]).unwrap();
        let place = captures.finish(7, "room", &end).unwrap();
        assert_eq!(fs::read(&place).unwrap(), bytes);
        // A crash between its place and the database: once more.
        assert_eq!(captures.finish(7, "room", &end).unwrap(), place);
        let names: Vec<_> = fs::read_dir(place.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "the part is gone");
    }

    #[test]
    fn what_is_not_whole_is_no_image() {
        let directory = TempDir::new().unwrap();
        let (bytes, end) = image(&directory);
        let captures = Captures::new(directory.path().join("images"));
        let mut wrong = bytes.clone();
        wrong[100_000] ^= 1;
        let short = &bytes[..bytes.len() - 1];
        for damaged in [wrong.as_slice(), short, b"no image at all"] {
            captures.append(7, 0, damaged).unwrap();
            assert!(captures.finish(7, "room", &end).is_err());
            assert!(!captures.final_path("room").exists());
        }
        captures.append(7, 0, &bytes).unwrap();
        captures.finish(7, "room", &end).unwrap();
    }

    #[test]
    fn an_image_that_is_there_is_never_replaced() {
        let directory = TempDir::new().unwrap();
        let (bytes, end) = image(&directory);
        let captures = Captures::new(directory.path().join("images"));
        captures.append(7, 0, &bytes).unwrap();
        fs::write(captures.final_path("room"), b"somebody's").unwrap();
        assert!(captures.finish(7, "room", &end).is_err());
        assert_eq!(
            fs::read(captures.final_path("room")).unwrap(),
            b"somebody's"
        );
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let directory = TempDir::new().unwrap();
        let captures = Captures::new(directory.path().join("images"));
        captures.append(7, 0, b"abc").unwrap();
        captures.forget(7);
        assert_eq!(captures.state(7).unwrap().0, 0);
    }
}
