//! Jobs that compare: *verify*, and the question before a flash *if different*.
//!
//! No session is needed to compare. A machine gets the manifest over TLS, through the queue of those that multicast
//! does not reach.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use netflash_imager::Image;
use serde::{Deserialize, Serialize};

use super::orders::chosen;
use super::{Fleet, FleetError, event, find_image, job_event};
use crate::fallback::Desk;
use crate::job::{Job, VerifyWish};
use crate::machine::StoredImage;
use crate::session::open_image;
use crate::store::JobDraft;

/// A wish to compare the disks of machines with an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// Name of the image.
    pub(crate) image: String,
    /// Names of the machines; `None` means all.
    pub(crate) machines: Option<Vec<String>>,
    /// What is asked for.
    #[serde(default)]
    pub(crate) wish: VerifyWish,
}

impl Fleet {
    /// Enter a verify job for each machine.
    pub(crate) fn verify(&self, request: &VerifyRequest) -> Result<Vec<Job>, FleetError> {
        self.desk_for_manifests()?;
        let mut store = self.store();
        let image = find_image(store.images()?, &request.image)?;
        let machines = chosen(store.as_ref(), request.machines.as_deref())?;
        let text = format!(
            "verify {} on {} machines, disk {}",
            image.name,
            machines.len(),
            request.wish.disk
        );
        let draft = JobDraft {
            image: image.id,
            image_name: &image.name,
            wish: &Default::default(),
            capture: None,
            verify: Some(&request.wish),
        };
        // A file that is gone is said now, not by every machine.
        self.shelf.take(&image)?;
        let mut jobs =
            store.add_jobs(&draft, &machines, &event("jobs_entered", None, None, text))?;
        for job in &mut jobs {
            job.arm();
            store.update_job(job, Some(&job_event(job)))?;
        }
        Ok(jobs)
    }

    /// Who hands out manifests.
    ///
    /// # Errors
    /// When nothing is sent over HTTP: then nothing can be compared on a machine.
    pub(super) fn desk_for_manifests(&self) -> Result<Arc<Desk>, FleetError> {
        self.desk.clone().ok_or_else(|| {
            let text = "fallback.machines is 0: nothing is sent over HTTP, and whoever compares needs the manifest";
            FleetError::Refused(text.to_owned())
        })
    }
}

/// The image that was asked for last, held open: a room that compares asks for the same again and again.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Option<Arc<Image>>>);

impl Shelf {
    /// The image, opened unless it is at hand.
    ///
    /// # Errors
    /// When its file cannot be opened, or is another image than when it was added.
    pub(super) fn take(&self, image: &StoredImage) -> Result<Arc<Image>, FleetError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |held: &&Arc<Image>| {
            held.id().0 == image.image_id.0 && held.path() == Path::new(&image.path)
        };
        if let Some(held) = held.as_ref().filter(same) {
            return Ok(Arc::clone(held));
        }
        let opened = open_image(image)?;
        *held = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Nobody compares any more.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests;
