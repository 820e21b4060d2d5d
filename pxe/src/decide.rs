//! What a machine that boots over the network is sent to, and why.
//!
//! A pure function, and default deny: only a machine that is known for certain *and* has an active job gets the
//! agent. Everybody else boots the local disk.

use std::fmt;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asking {
    /// A machine that is known.
    Known {
        /// Its name.
        name: String,
    },
    /// Nobody we know.
    Unknown,
    /// A machine that resembles known ones, with what contradicts.
    Doubtful {
        /// Why it is in doubt.
        reason: String,
    },
}

/// The active job of the machine that asks, as far as booting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveJob {
    /// The job's number.
    pub id: u64,
    /// Whether its image can be sent now.
    pub ready: bool,
    /// How often the machine was sent to the agent for this job since the job last made progress.
    pub fruitless_boots: u32,
}

/// Limits of the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPolicy {
    /// How often a machine may boot the agent without any progress, at least 1.
    pub fruitless_boots_max: u32,
}

/// Where a machine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// To its own disk.
    LocalDisk,
    /// To the agent, for this job.
    Agent {
        /// The job's number.
        job: u64,
    },
}

/// Why a machine goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootReason {
    /// The machine is not known.
    UnknownMachine,
    /// The machine is not known for certain.
    Doubtful(String),
    /// There is nothing to do.
    NoJob,
    /// The job is there, its image is not.
    ImageNotReady {
        /// The job's number.
        job: u64,
    },
    /// It booted too often without getting anywhere; the job is to be failed.
    LoopBroken {
        /// The job's number.
        job: u64,
        /// How often.
        boots: u32,
    },
    /// There is a job to do.
    JobActive {
        /// The job's number.
        job: u64,
    },
}

impl fmt::Display for BootReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootReason::UnknownMachine => {
                f.write_str("unknown machine; add it with netflash machine add")
            }
            BootReason::Doubtful(reason) => write!(f, "doubtful machine: {reason}"),
            BootReason::NoJob => f.write_str("no active job"),
            BootReason::ImageNotReady { job } => write!(f, "job {job} waits for its image"),
            BootReason::LoopBroken { job, boots } => {
                write!(f, "job {job}: booted {boots} times without progress")
            }
            BootReason::JobActive { job } => write!(f, "job {job} is active"),
        }
    }
}

/// A boot decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where the machine goes.
    pub boot: Boot,
    /// Why.
    pub reason: BootReason,
}

/// Decide where a machine that asks goes.
pub fn decide(asking: &Asking, job: Option<&ActiveJob>, policy: &BootPolicy) -> Decision {
    let reason = match (asking, job) {
        (Asking::Unknown, _) => BootReason::UnknownMachine,
        (Asking::Doubtful { reason }, _) => BootReason::Doubtful(reason.clone()),
        (Asking::Known { .. }, None) => BootReason::NoJob,
        (Asking::Known { .. }, Some(job)) if !job.ready => {
            BootReason::ImageNotReady { job: job.id }
        }
        (Asking::Known { .. }, Some(job)) if job.fruitless_boots >= policy.fruitless_boots_max => {
            BootReason::LoopBroken {
                job: job.id,
                boots: job.fruitless_boots,
            }
        }
        (Asking::Known { .. }, Some(job)) => BootReason::JobActive { job: job.id },
    };
    let boot = match reason {
        BootReason::JobActive { job } => Boot::Agent { job },
        _ => Boot::LocalDisk,
    };
    Decision { boot, reason }
}

#[cfg(test)]
mod tests {
    use super::{ActiveJob, Asking, Boot, BootPolicy, BootReason, decide};

    const POLICY: BootPolicy = BootPolicy {
        fruitless_boots_max: 3,
    };

    fn job(fruitless_boots: u32) -> ActiveJob {
        ActiveJob {
            id: 7,
            ready: true,
            fruitless_boots,
        }
    }

    fn known() -> Asking {
        Asking::Known {
            name: "lab1".to_owned(),
        }
    }

    #[test]
    fn only_a_known_machine_with_a_job_gets_the_agent() {
        let decision = decide(&known(), Some(&job(0)), &POLICY);
        assert_eq!(decision.boot, Boot::Agent { job: 7 });
        let doubtful = Asking::Doubtful {
            reason: "two of them".to_owned(),
        };
        for (asking, job) in [
            (Asking::Unknown, Some(&job(0))),
            (doubtful, Some(&job(0))),
            (known(), None),
        ] {
            assert_eq!(
                decide(&asking, job, &POLICY).boot,
                Boot::LocalDisk,
                "{asking:?}"
            );
        }
    }

    #[test]
    fn a_machine_that_gets_nowhere_is_stopped() {
        assert_eq!(
            decide(&known(), Some(&job(2)), &POLICY).boot,
            Boot::Agent { job: 7 }
        );
        let decision = decide(&known(), Some(&job(3)), &POLICY);
        assert_eq!(decision.boot, Boot::LocalDisk);
        assert_eq!(decision.reason, BootReason::LoopBroken { job: 7, boots: 3 });
    }

    #[test]
    fn without_its_image_a_job_boots_nobody() {
        let waiting = ActiveJob {
            ready: false,
            ..job(0)
        };
        assert_eq!(
            decide(&known(), Some(&waiting), &POLICY).boot,
            Boot::LocalDisk
        );
    }
}
