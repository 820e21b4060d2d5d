//! Comparing as a job of its own (*verify*), and before a flash that is ordered *if different*.

use serde::{Deserialize, Serialize};

use netflash_pxe::{
    CompareOrder, CompareReport, DiskSelector, FreePolicy, LastAction, PLACES_MAX, plain,
};

use super::{Job, JobState};
use crate::machine::StoredImage;

/// What a verify job asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyWish {
    /// Which disk is read.
    #[serde(default)]
    pub(crate) disk: DiskSelector,
    /// With [`FreePolicy::Zero`], unallocated space counts too.
    #[serde(default)]
    pub(crate) free: FreePolicy,
    /// What the machine does afterwards.
    #[serde(default)]
    pub(crate) last: LastAction,
}

impl Job {
    /// Whether an image is to be sent for it now. A machine that compares first needs it when its disk differs.
    pub(crate) fn needs_session(&self) -> bool {
        let compares = self.wish.if_different && self.compared.is_none();
        self.capture.is_none() && self.verify.is_none() && !compares
    }

    /// What its agent is to compare now, if anything, and what it does after an equal disk.
    pub(crate) fn compare_order(&self, image: &StoredImage) -> Option<(CompareOrder, LastAction)> {
        let (disk, free, last, brief) = match &self.verify {
            Some(wish) => (&wish.disk, wish.free, wish.last, false),
            None if self.capture.is_none() && !self.needs_session() => {
                let wish = &self.wish;
                (&wish.disk, wish.free, wish.last, true)
            }
            None => return None,
        };
        let order = CompareOrder {
            image_name: image.name.clone(),
            image_id: image.image_id,
            disk: disk.clone(),
            free,
            brief,
        };
        Some((order, last))
    }

    /// Take the result of a comparison; false when none was asked for.
    pub(super) fn take_compared(&mut self, report: &CompareReport) -> bool {
        let report = cleaned(report);
        let waits = self.wish.if_different && self.compared.is_none();
        match (&self.verify, report.equal) {
            (Some(_), true) => self.state = JobState::Done,
            (Some(_), false) => self.state = JobState::Differs,
            (None, _) if !waits || self.capture.is_some() => return false,
            (None, true) => self.state = JobState::Done,
            (None, false) => {
                // What was compared is done: the flash begins from nothing.
                (self.best_done_bytes, self.fruitless_boots) = (0, 0);
                self.progress = None;
            }
        }
        self.disk = Some(report.disk.clone());
        self.reason = match (&self.verify, report.equal) {
            (None, true) => format!("{} already; nothing was written", report.sentence()),
            _ => report.sentence(),
        };
        self.compared = Some(report);
        true
    }
}

/// A report without control characters, and with no more than the contract allows.
fn cleaned(report: &CompareReport) -> CompareReport {
    let mut clean = report.clone();
    clean.disk = plain(&clean.disk, 64);
    clean.places.truncate(PLACES_MAX);
    for place in &mut clean.places {
        place.fs = plain(&place.fs, 32);
        place.label = plain(&place.label, 64);
    }
    clean
}

#[cfg(test)]
mod tests {
    use netflash_pxe::{AgentEvent, EventKind, Hex32, Progress};

    use super::super::tests::job;
    use super::*;

    fn compared(sequence: u64, equal: bool) -> AgentEvent {
        let event = EventKind::Compared(CompareReport {
            image_id: Hex32([0; 32]),
            disk: "/dev/vda\x1b".to_owned(),
            seconds: 1.0,
            equal,
            complete: true,
            tables_right: true,
            right_frames: 3,
            differing_frames: u64::from(!equal),
            differing_bytes: u64::from(!equal) << 20,
            places: Vec::new(),
        });
        AgentEvent {
            sequence,
            uptime_ms: 0,
            event,
        }
    }

    fn verify_job() -> Job {
        let mut job = job();
        job.verify = Some(VerifyWish::default());
        job.taken("agent");
        assert_eq!(job.state, JobState::Verifying);
        assert!(!job.needs_session());
        job
    }

    #[test]
    fn a_verify_job_ends_as_done_or_differs() {
        let mut equal = verify_job();
        assert!(equal.take_event(&compared(0, true)));
        assert_eq!(equal.state, JobState::Done);
        let mut differs = verify_job();
        assert!(differs.take_event(&compared(0, false)));
        assert_eq!(differs.state, JobState::Differs);
        assert!(!differs.state.is_active());
        assert_eq!(differs.disk.as_deref(), Some("/dev/vda"));
    }

    #[test]
    fn a_flash_if_different_needs_a_session_only_then() {
        let mut job = job();
        job.wish.if_different = true;
        job.taken("agent");
        assert!(!job.needs_session());
        let far = EventKind::Progress(Progress {
            done_bytes: 1 << 30,
            ..Progress::default()
        });
        let far = AgentEvent {
            sequence: 0,
            uptime_ms: 0,
            event: far,
        };
        job.take_event(&far);
        let mut equal = job.clone();
        assert!(equal.take_event(&compared(1, true)));
        assert_eq!(equal.state, JobState::Done);
        assert!(equal.report.is_none() && equal.reason.contains("nothing was written"));

        assert!(job.take_event(&compared(1, false)));
        assert!(job.state.is_active() && job.needs_session());
        assert_eq!(
            job.best_done_bytes, 0,
            "comparing is no progress of the flash"
        );
        assert!(!job.take_event(&compared(2, true)), "nobody asked");
        assert!(job.state.is_active());
    }

    #[test]
    fn a_comparison_that_nobody_asked_for_changes_nothing() {
        let mut job = job();
        job.taken("agent");
        let before = job.state;
        assert!(!job.take_event(&compared(0, true)));
        assert_eq!(job.state, before);
        assert!(job.compared.is_none());
    }
}
