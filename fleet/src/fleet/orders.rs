//! Jobs: entered, resumed, cancelled.

use std::path::Path;

use serde::{Deserialize, Serialize};

use netflash_imager::{Image, Partition, Scope, ScopeError};
use netflash_pxe::FlashScope;

use super::{Fleet, FleetError, event, find_image, find_machine, job_event, now};
use crate::job::{FlashWish, Job, JobState};
use crate::machine::{Machine, StoredImage};
use crate::session::Patience;
use crate::store::{JobDraft, Store};

/// Machines in one request.
const MACHINES_MAX: usize = 10_000;

/// A wish to flash machines with an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlashRequest {
    /// Name of the image.
    pub(crate) image: String,
    /// Names of the machines; `None` means all.
    pub(crate) machines: Option<Vec<String>>,
    /// What is asked for.
    #[serde(default)]
    pub(crate) wish: FlashWish,
}

impl Fleet {
    /// Enter a flash job for each machine. They share one session, which can be joined when this returns; if only
    /// different disks are flashed, it begins with the first of these.
    pub(crate) fn flash(&self, request: &FlashRequest) -> Result<Vec<Job>, FleetError> {
        let scope = &request.wish.scope;
        let compares = request.wish.if_different;
        if compares && !scope.is_plain() {
            let text =
                "single partitions that are right are not written anyway; leave if_different out";
            return Err(FleetError::Malformed(text.to_owned()));
        }
        if compares {
            self.desk_for_manifests()?;
        }
        let mut store = self.store();
        let image = find_image(store.images()?, &request.image)?;
        check_scope(scope, &image)?;
        let machines = chosen(store.as_ref(), request.machines.as_deref())?;
        let mut text = format!(
            "{} on {} machines, disk {}",
            image.name,
            machines.len(),
            request.wish.disk
        );
        if !scope.is_plain() {
            text.push_str(&format!(", partitions: {scope}"));
        }
        let draft = JobDraft {
            image: image.id,
            image_name: &image.name,
            wish: &request.wish,
            capture: None,
            verify: None,
        };
        let entered = event("jobs_entered", None, None, text);
        let mut jobs = store.add_jobs(&draft, &machines, &entered)?;
        let batch = jobs[0].batch;
        let receivers = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        let begun = match compares {
            true => self.shelf.take(&image).map(drop),
            false => self
                .sessions
                .begin(batch, &image, receivers, Patience::GiveUp)
                .map_err(FleetError::from),
        };
        for job in &mut jobs {
            match &begun {
                Ok(()) => job.arm(),
                Err(error) => job.fail(&error.to_string()),
            }
            store.update_job(job, Some(&job_event(job)))?;
        }
        begun?;
        Ok(jobs)
    }

    /// A job.
    pub(crate) fn job(&self, id: u64) -> Result<Job, FleetError> {
        self.store()
            .job(id)?
            .ok_or_else(|| FleetError::Absent(format!("job {id}")))
    }

    /// The last jobs, newest first.
    pub(crate) fn jobs(&self, max: u32) -> Result<Vec<Job>, FleetError> {
        Ok(self.store().jobs(max)?)
    }

    /// Cancel a job. Its agent is told at its next word.
    pub(crate) fn cancel(&self, id: u64) -> Result<Job, FleetError> {
        let mut store = self.store();
        let mut job = store
            .job(id)?
            .ok_or_else(|| FleetError::Absent(format!("job {id}")))?;
        if !job.state.is_active() {
            return Err(FleetError::Refused(format!(
                "job {id} is {} already",
                job.state
            )));
        }
        job.cancel();
        job.updated = now();
        store.update_job(&job, Some(&job_event(&job)))?;
        self.job_is_over(store.as_ref(), &job)?;
        Ok(job)
    }

    /// After a start of the server: every active job that needs a session gets one again, under a new number.
    pub(super) fn resume_jobs(&self) -> Result<(), FleetError> {
        let mut store = self.store();
        let jobs = store.active_jobs()?;
        let images = store.images()?;
        for mut job in jobs.clone() {
            if !job.needs_session() {
                if job.captured.is_none() {
                    job.arm();
                    store.update_job(&job, Some(&job_event(&job)))?;
                }
                continue;
            }
            let receivers = jobs.iter().filter(|other| other.batch == job.batch).count();
            let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
            let begun = match images.iter().find(|image| image.id == job.image) {
                Some(image) => self
                    .sessions
                    .begin(job.batch, image, receivers, Patience::KeepTrying)
                    .map_err(|e| e.to_string()),
                None => Err(format!("there is no image {} any more", job.image_name)),
            };
            match begun {
                Ok(()) if job.state == JobState::Queued => job.arm(),
                Ok(()) => {
                    job.arm();
                    job.reason = "the server was started again".to_owned();
                }
                Err(reason) => job.fail(&reason),
            }
            job.updated = now();
            store.update_job(&job, Some(&job_event(&job)))?;
        }
        Ok(())
    }

    /// What follows from the end of `job`: a session that nobody needs any more ends, and one that has not begun
    /// does not wait for a machine that failed.
    pub(super) fn job_is_over(&self, store: &dyn Store, job: &Job) -> Result<(), FleetError> {
        if job.capture.is_some() {
            self.captures.forget(job.id);
            return Ok(());
        }
        // It failed, or its disk was the image already: the others need not wait for it.
        if job.report.is_none() {
            self.sessions.expect_one_less(job.batch);
        }
        let active = store.active_jobs()?;
        if active.iter().all(Job::needs_session) {
            self.shelf.clear();
        }
        let needed: Vec<i64> = active.iter().map(|job| job.batch).collect();
        self.sessions.keep_only(&needed);
        Ok(())
    }
}

/// Refuses a part that the image does not have, before a machine boots for it. What is kept may be the disk's alone.
fn check_scope(scope: &FlashScope, image: &StoredImage) -> Result<(), FleetError> {
    let malformed = |error: ScopeError| FleetError::Malformed(error.to_string());
    let wish = Scope::of(&scope.only, &scope.keep).map_err(malformed)?;
    let Ok(opened) = Image::open(Path::new(&image.path)) else {
        // The session says why it cannot be sent.
        return Ok(());
    };
    let partitions = opened.manifest().partitions();
    let absent = |number: &&u32| {
        partitions
            .iter()
            .all(|partition| partition.number != **number)
    };
    if let Some(number) = scope.only.iter().find(absent) {
        return Err(FleetError::Refused(format!(
            "{} has no partition {number}",
            image.name
        )));
    }
    let lacking = |partition: &&Partition| partition.left_out && wish.has(partition.number);
    match partitions.iter().find(lacking) {
        Some(partition) if !scope.incomplete => Err(FleetError::Refused(format!(
            "{} was made without the content of partition {}; write only the others, keep it, or order it \
             incomplete",
            image.name, partition.number
        ))),
        _ => Ok(()),
    }
}

/// The machines meant, each once.
pub(super) fn chosen(
    store: &dyn Store,
    names: Option<&[String]>,
) -> Result<Vec<Machine>, FleetError> {
    let all = store.machines()?;
    let Some(names) = names else {
        return if all.is_empty() {
            Err(FleetError::Refused(
                "there is no machine; netflash machine add enters one".to_owned(),
            ))
        } else {
            Ok(all)
        };
    };
    if names.is_empty() || names.len() > MACHINES_MAX {
        return Err(FleetError::Malformed(format!(
            "name 1 to {MACHINES_MAX} machines"
        )));
    }
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names
        .iter()
        .map(|name| find_machine(all.clone(), name))
        .collect()
}

#[cfg(test)]
mod tests;
