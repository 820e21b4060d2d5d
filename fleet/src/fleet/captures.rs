//! Capture jobs: a machine's disk becomes an image of the server.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use netflash_pxe::{
    CAPTURE_NOTES_MAX, CaptureEnd, CaptureHow, CaptureStage, CaptureState, Hex32, plain,
};

use super::stock::described;
use super::{Fleet, FleetError, event, find_machine, job_event, now};
use crate::capture::CaptureError;
use crate::job::{CaptureWish, Job, JobState};
use crate::machine::{ImageState, Machine, StoredImage};
use crate::secret;
use crate::store::{JobDraft, Store};

/// Jobs looked through for captures that failed.
const LOOKED_AT: u32 = 1_000;
/// zstd levels that may be asked for.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// Longest note kept, in bytes.
const NOTE_MAX: usize = 1_000;

/// A wish to make an image of a machine's disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureRequest {
    /// Name of the image to be.
    pub(crate) image: String,
    /// Name of the machine.
    pub(crate) machine: String,
    /// What is asked for.
    #[serde(default)]
    pub(crate) wish: CaptureWish,
}

impl Fleet {
    /// Enter a capture job.
    pub(crate) fn capture(&self, request: &CaptureRequest) -> Result<Job, FleetError> {
        let mut store = self.store();
        let name = &request.image;
        self.check_capture(store.as_ref(), name, &request.wish.how)?;
        let machine = find_machine(store.machines()?, &request.machine)?;
        let text = format!("capture of {}, disk {}", machine.name, request.wish.disk);
        let entered = event("jobs_entered", None, None, text);
        let draft = JobDraft {
            image: 0,
            image_name: name,
            wish: &Default::default(),
            capture: Some(&request.wish),
            verify: None,
        };
        let mut jobs = store.add_jobs(&draft, &[machine], &entered)?;
        let mut job = jobs.pop().expect("one machine, one job");
        job.arm();
        store.update_job(&job, Some(&job_event(&job)))?;
        Ok(job)
    }

    fn check_capture(
        &self,
        store: &dyn Store,
        name: &str,
        how: &CaptureHow,
    ) -> Result<(), FleetError> {
        let refuse = |text: String| Err(FleetError::Refused(text));
        if !Machine::is_name(name) {
            return refuse(format!("{name:?} is no name for an image"));
        }
        if !LEVELS.contains(&how.level) || how.note.len() > NOTE_MAX {
            return Err(FleetError::Malformed(format!(
                "levels go from {} to {}, notes to {NOTE_MAX} bytes",
                LEVELS.start(),
                LEVELS.end()
            )));
        }
        if store.images()?.iter().any(|image| image.name == name) {
            return refuse(format!("there is an image {name} already"));
        }
        let place = self.captures.final_path(name);
        if place.exists() {
            return refuse(format!("{} exists already", place.display()));
        }
        let mut active = store.active_jobs()?.into_iter();
        if let Some(job) = active.find(|job| job.capture.is_some() && job.image_name == name) {
            return refuse(format!("job {} captures {name} already", job.id));
        }
        Ok(())
    }

    /// How far the capture `id` is, for its agent.
    pub(crate) fn capture_state(&self, bearer: &str, id: u64) -> Result<CaptureState, FleetError> {
        let job = self.capture_of(bearer, id)?;
        let over = |stage| CaptureState {
            stage,
            bytes: 0,
            hash: Hex32([0; 32]),
            reason: job.reason.clone(),
        };
        Ok(match job.state {
            JobState::Done => over(CaptureStage::Ready),
            JobState::Failed | JobState::Cancelled => over(CaptureStage::Failed),
            JobState::Sealing if job.captured.is_some() => over(CaptureStage::Sealing),
            _ => there(self.captures.state(id)?),
        })
    }

    /// Take a part of a captured image.
    pub(crate) fn capture_part(
        &self,
        bearer: &str,
        id: u64,
        offset: u64,
        part: &[u8],
    ) -> Result<CaptureState, FleetError> {
        let job = self.capture_of(bearer, id)?;
        if !job.state.is_active() || job.captured.is_some() {
            return Err(FleetError::Refused(format!(
                "job {id} is {}: it takes no parts",
                job.state
            )));
        }
        Ok(there(self.captures.append(id, offset, part)?))
    }

    /// Take the last word about a captured image, and check it in the background.
    pub(crate) fn capture_end(
        self: &Arc<Fleet>,
        bearer: &str,
        id: u64,
        end: CaptureEnd,
    ) -> Result<CaptureState, FleetError> {
        let job = self.capture_of(bearer, id)?;
        let awaited = |job: &Job| job.state.is_active() && job.captured.is_none();
        if awaited(&job) {
            // Seconds, perhaps: nothing is locked meanwhile.
            self.captures.flush(id)?;
            let mut store = self.store();
            if let Some(mut job) = store.job(id)?.filter(awaited) {
                job.captured = Some(CaptureEnd {
                    disk: plain(&end.disk, 64),
                    notes: shown(&end.notes),
                    ..end
                });
                job.state = JobState::Sealing;
                job.reason.clear();
                job.updated = now();
                store.update_job(&job, Some(&job_event(&job)))?;
            }
        }
        self.seal_captured(id);
        self.capture_state(bearer, id)
    }

    /// Goes on with captured images whose check the end of a former server interrupted.
    pub(crate) fn resume_sealing(self: &Arc<Fleet>) -> Result<(), FleetError> {
        let active = self.store().active_jobs()?;
        let sealing = |job: &&Job| job.captured.is_some();
        active
            .iter()
            .filter(sealing)
            .for_each(|job| self.seal_captured(job.id));
        Ok(())
    }

    /// Checks the image of job `id` on a thread of its own, unless one is at it.
    fn seal_captured(self: &Arc<Fleet>, id: u64) {
        if !self.sealing().insert(id) {
            return;
        }
        let fleet = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name(format!("seal-{id}"))
            .spawn(move || {
                if let Err(error) = fleet.seal(id) {
                    log::error!("job id={id} {error}");
                }
                fleet.sealing().remove(&id);
            });
        if let Err(error) = spawned {
            log::error!("job id={id} the image waits for its check: {error}");
            self.sealing().remove(&id);
        }
    }

    fn seal(&self, id: u64) -> Result<(), FleetError> {
        let sealing = |job: &Job| job.state.is_active();
        let found = self.store().job(id)?.filter(sealing);
        let Some((job, end)) = found.and_then(|job| Some((job.clone(), job.captured?))) else {
            return Ok(());
        };
        // Minutes for a large disk: nothing is locked meanwhile.
        let checked = self.captures.finish(id, &job.image_name, &end);
        let mut store = self.store();
        let Some(mut job) = store.job(id)?.filter(sealing) else {
            // Cancelled meanwhile; the file may be there already.
            if let Ok(path) = checked {
                let _ = std::fs::remove_file(path);
            }
            return Ok(());
        };
        let entered = checked
            .map_err(FleetError::from)
            .and_then(|path| described(&path, &job.image_name));
        match entered {
            Ok(image) => {
                let text = format!("{} {}", image.name, image.image_id);
                let known = store.images()?;
                let row = match known.into_iter().find(|known| known.path == image.path) {
                    Some(row) => row,
                    None => store.add_image(&image, &event("image_added", None, Some(id), text))?,
                };
                job.image = row.id;
                job.state = JobState::Done;
                job.reason.clear();
            }
            Err(error) => {
                job.fail(&error.to_string());
                self.captures.forget(id);
            }
        }
        job.updated = now();
        log::info!("job id={id} state={} reason={:?}", job.state, job.reason);
        store.update_job(&job, Some(&job_event(&job)))?;
        Ok(())
    }

    /// All images, and those that are being captured or could not be.
    pub(crate) fn images_and_captures(&self) -> Result<Vec<StoredImage>, FleetError> {
        let store = self.store();
        let mut images = store.images()?;
        let mut names: BTreeSet<String> = images.iter().map(|image| image.name.clone()).collect();
        for job in store.jobs(LOOKED_AT)? {
            let state = match job.state {
                JobState::Failed => ImageState::Failed,
                JobState::Sealing => ImageState::Sealing,
                state if state.is_active() => ImageState::Capturing,
                _ => continue,
            };
            if job.capture.is_some() && names.insert(job.image_name.clone()) {
                images.push(coming(&job, state));
            }
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// The capture job `id`, if the agent with this bearer has it.
    fn capture_of(&self, bearer: &str, id: u64) -> Result<Job, FleetError> {
        let store = self.store();
        let hash = secret::hash(bearer);
        let machine = store.bearer(&hash)?.ok_or(FleetError::Unauthorized)?;
        let job = store
            .job(id)?
            .filter(|job| job.machine == machine && job.capture.is_some());
        let job = job.ok_or_else(|| FleetError::Absent(format!("capture {id} of this machine")))?;
        if job.agent.as_deref() != Some(&hash) {
            return Err(FleetError::Refused(format!(
                "job {id} was not given to this agent"
            )));
        }
        Ok(job)
    }

    fn sealing(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.sealing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<CaptureError> for FleetError {
    fn from(error: CaptureError) -> FleetError {
        match error {
            CaptureError::Gap { .. } => FleetError::Refused(error.to_string()),
            CaptureError::File { .. } => FleetError::Storage(error.to_string()),
            error => FleetError::Refused(format!("{:#}", anyhow::Error::new(error))),
        }
    }
}

fn there((bytes, hash): (u64, Hex32)) -> CaptureState {
    CaptureState {
        stage: CaptureStage::Capturing,
        bytes,
        hash,
        reason: String::new(),
    }
}

fn shown(notes: &[String]) -> Vec<String> {
    let notes = notes.iter().take(CAPTURE_NOTES_MAX);
    notes.map(|note| plain(note, 200)).collect()
}

/// An image that is not there yet, as a row of the list.
fn coming(job: &Job, state: ImageState) -> StoredImage {
    let progress = job.progress.unwrap_or_default();
    StoredImage {
        id: 0,
        name: job.image_name.clone(),
        image_id: Hex32([0; 32]),
        path: String::new(),
        raw_bytes: progress.total_bytes,
        used_bytes: 0,
        stored_bytes: progress.received_bytes,
        min_target_bytes: 0,
        created: job.created,
        state,
    }
}

#[cfg(test)]
mod tests;
