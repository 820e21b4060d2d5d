//! An image on its way to the server, part by part, while it is being made.
//!
//! Only the part that is not answered yet is kept. What the server has already, from a former start of this machine,
//! is passed over: the same disk gives the same bytes again, and the hashes say whether it did.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netflash_pxe::{CAPTURE_PART_MAX, CaptureStage, CaptureState};

use crate::server::{Server, ServerError};

/// First and longest pause before a part is offered again.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How often the pause looks at the stop flag.
const LOOK: Duration = Duration::from_millis(100);

/// Why an image does not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The server has another beginning of the image, or less of it than it said: begin anew.
    #[error("the server does not have what was sent to it")]
    Diverged,
    /// The server has given the image up.
    #[error("{0}")]
    GivenUp(String),
    /// The server will not have it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The job is over.
    #[error("stopped")]
    Stopped,
}

/// Takes the bytes of an image and brings them to the server.
pub(crate) struct Upload {
    server: Arc<Server>,
    job: u64,
    stop: Arc<AtomicBool>,
    /// What the server had before the first byte.
    had: CaptureState,
    hasher: blake3::Hasher,
    /// Bytes taken so far, those of `part` included.
    taken: u64,
    part: Vec<u8>,
}

impl Upload {
    /// Prepares to send what the server lacks of the image of `job`; with `anew`, all of it.
    ///
    /// # Errors
    /// When the server does not know the job, has given it up, or `stop` is set.
    pub(crate) fn begin(
        server: Arc<Server>,
        job: u64,
        anew: bool,
        stop: Arc<AtomicBool>,
    ) -> Result<Upload, UploadError> {
        let mut had = patiently(&stop, || server.capture_state(job))?;
        if had.stage == CaptureStage::Failed {
            return Err(UploadError::GivenUp(had.reason));
        }
        if anew {
            had.bytes = 0;
        }
        Ok(Upload {
            server,
            job,
            stop,
            had,
            hasher: blake3::Hasher::new(),
            taken: 0,
            part: Vec::with_capacity(CAPTURE_PART_MAX),
        })
    }

    /// Bytes that the server had from a former start.
    pub(crate) fn resumed_bytes(&self) -> u64 {
        self.had.bytes
    }

    /// Bytes taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.hasher.update(bytes);
        self.taken += bytes.len() as u64;
        if self.taken > self.had.bytes || self.had.bytes == 0 {
            self.part.extend_from_slice(bytes);
            if self.part.len() == CAPTURE_PART_MAX {
                self.send()?;
            }
        } else if self.taken == self.had.bytes && !self.agrees(&self.had) {
            return Err(UploadError::Diverged);
        }
        Ok(())
    }

    /// How many bytes may be taken at once, so that a part and what is passed over end where they shall.
    fn stride(&self) -> usize {
        match self.had.bytes.checked_sub(self.taken) {
            Some(left @ 1..) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => CAPTURE_PART_MAX - self.part.len(),
        }
    }

    /// Whether the server has exactly what was taken.
    fn agrees(&self, state: &CaptureState) -> bool {
        state.bytes == self.taken && state.hash.0 == *self.hasher.finalize().as_bytes()
    }

    /// Brings the part to the server, however often the way breaks.
    fn send(&mut self) -> Result<(), UploadError> {
        let offset = self.taken - self.part.len() as u64;
        let sent = patiently(&self.stop, || {
            self.server.capture_part(self.job, offset, &self.part)
        });
        match sent {
            Ok(state) if state.bytes == self.taken => {}
            Ok(_) => return Err(UploadError::Diverged),
            // The answer to an earlier try was lost, or the server is another one now.
            Err(UploadError::Server(error)) if error.status() == Some(409) => {
                let state = patiently(&self.stop, || self.server.capture_state(self.job))?;
                match state.stage {
                    CaptureStage::Failed => return Err(UploadError::GivenUp(state.reason)),
                    _ if self.agrees(&state) => {}
                    _ => return Err(UploadError::Diverged),
                }
            }
            Err(error) => return Err(error),
        }
        self.part.clear();
        Ok(())
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.stride());
        self.take(&bytes[..count]).map_err(io::Error::other)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.taken < self.had.bytes {
            return Err(io::Error::other(UploadError::Diverged));
        }
        match self.part.is_empty() {
            true => Ok(()),
            false => self.send().map_err(io::Error::other),
        }
    }
}

/// Asks until the server answers; only a refusal or the stop flag ends it.
pub(crate) fn patiently<T>(
    stop: &AtomicBool,
    ask: impl Fn() -> Result<T, ServerError>,
) -> Result<T, UploadError> {
    let mut pause = RETRY_MIN;
    loop {
        match ask() {
            Err(error) if error.may_pass() => log::warn!("{error}; trying again"),
            answer => return Ok(answer?),
        }
        let mut left = pause;
        while !left.is_zero() {
            if stop.load(Ordering::Relaxed) {
                return Err(UploadError::Stopped);
            }
            thread::sleep(LOOK.min(left));
            left = left.saturating_sub(LOOK);
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Answer, FakeServer};

    fn state(bytes: u64, of: &[u8]) -> Answer {
        let hash = blake3::hash(&of[..bytes as usize]).to_hex();
        Answer::json(&format!(
            r#"{{"stage":"capturing","bytes":{bytes},"hash":"{hash}"}}"#
        ))
    }

    fn begin(server: &FakeServer) -> Upload {
        let stop = Arc::new(AtomicBool::new(false));
        Upload::begin(Arc::new(server.client()), 7, false, stop).unwrap()
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    fn sent(server: &FakeServer) -> Vec<u8> {
        server.bodies().concat()
    }

    #[test]
    fn parts_follow_each_other_and_a_broken_way_costs_one_of_them() {
        let image = bytes(CAPTURE_PART_MAX + 1000);
        let server = FakeServer::start(vec![
            state(0, &image),
            Answer::status(503),
            state(CAPTURE_PART_MAX as u64, &image),
            state(image.len() as u64, &image),
        ]);
        let mut upload = begin(&server);
        upload.write_all(&image).unwrap();
        upload.flush().unwrap();
        let bodies: Vec<usize> = server.bodies().iter().map(Vec::len).collect();
        assert_eq!(bodies, [0, CAPTURE_PART_MAX, CAPTURE_PART_MAX, 1000]);
    }

    #[test]
    fn what_the_server_has_is_not_sent_again() {
        let image = bytes(5000);
        let server = FakeServer::start(vec![state(1234, &image), state(5000, &image)]);
        let mut upload = begin(&server);
        upload.write_all(&image).unwrap();
        upload.flush().unwrap();
        assert_eq!(sent(&server), image[1234..]);
    }

    #[test]
    fn a_lost_answer_is_found_out_and_not_sent_twice() {
        let image = bytes(5000);
        let server = FakeServer::start(vec![
            state(0, &image),
            Answer::status(409),
            state(5000, &image),
        ]);
        let mut upload = begin(&server);
        upload.write_all(&image).unwrap();
        upload.flush().unwrap();
        assert_eq!(sent(&server), image);
    }

    #[test]
    fn another_beginning_at_the_server_is_noticed() {
        let image = bytes(5000);
        let server = FakeServer::start(vec![state(1234, &[9; 5000])]);
        let mut upload = begin(&server);
        let error = upload.write_all(&image).unwrap_err();
        assert!(matches!(
            error.get_ref().and_then(|inner| inner.downcast_ref()),
            Some(UploadError::Diverged)
        ));
    }

    #[test]
    fn a_disk_that_became_smaller_is_noticed() {
        let image = bytes(5000);
        let server = FakeServer::start(vec![state(5000, &image)]);
        let mut upload = begin(&server);
        upload.write_all(&image[..4000]).unwrap();
        assert!(upload.flush().is_err());
    }
}
