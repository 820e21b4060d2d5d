//! Orders: one plan for many machines, several at a time, their starts apart.
//!
//! An order runs in threads of its own, and whoever gave it looks at it: a room of a thousand machines takes longer
//! than any request should.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::driver::Keyring;
use super::failure::{Failure, PowerError};
use super::profile::PowerProfile;
use super::switchboard::{PowerOutcome, PowerTarget, Switchboard};
use super::{NextBoot, PowerAction};

/// Most machines at a time in one order.
const PARALLEL_MAX: usize = 256;
/// Orders under way at a time.
const RUNNING_MAX: usize = 16;
/// Orders remembered, the ones under way among them.
const ORDERS_MAX: usize = 64;
/// Longest pause between two starts.
const STAGGER_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a machine to be seen.
const WITHIN_MAX: u64 = 3600;

/// What is asked of each machine, and how many at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) action: PowerAction,
    /// Off asks the operating system first.
    #[serde(default)]
    pub(crate) soft: bool,
    /// What `bootdev`, and what a boot from the network, chooses.
    #[serde(default)]
    pub(crate) boot: NextBoot,
    /// Boot from the network once, and wait until the machine is seen.
    #[serde(default)]
    pub(crate) netboot: bool,
    /// How long to wait for that.
    #[serde(default)]
    pub(crate) within_seconds: u64,
    /// Keep the certificates that `trust` finds.
    #[serde(default)]
    pub(crate) accept: bool,
    /// Machines at a time.
    pub(crate) parallel: usize,
    /// Pause between the starts of two machines, in milliseconds.
    pub(crate) stagger_ms: u64,
}

impl Plan {
    /// The plan within its bounds.
    pub(crate) fn bounded(self) -> Plan {
        let stagger_max = u64::try_from(STAGGER_MAX.as_millis()).unwrap_or(u64::MAX);
        let starts = self.action.starts();
        Plan {
            parallel: self.parallel.clamp(1, PARALLEL_MAX),
            stagger_ms: if starts {
                self.stagger_ms.min(stagger_max)
            } else {
                0
            },
            netboot: self.netboot && starts,
            within_seconds: self.within_seconds.min(WITHIN_MAX),
            ..self
        }
    }
}

/// An order under way, or over.
#[derive(Debug)]
pub(crate) struct Order {
    id: u64,
    plan: Plan,
    targets: Vec<PowerTarget>,
    /// Longest time-out of the machines' ladders, in seconds.
    deadline_seconds: u64,
    begun: Instant,
    next: AtomicUsize,
    /// When the next machine may start.
    start: Mutex<Instant>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    outcomes: Vec<Option<PowerOutcome>>,
    /// Seconds the whole order took.
    over: Option<f64>,
}

/// What is told of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OrderView {
    /// The order's number.
    pub(crate) order: u64,
    /// Machines in it.
    pub(crate) machines: usize,
    /// What is asked of them, as bounded by the server.
    pub(crate) plan: Plan,
    /// Longest time-out of one way to one machine, in seconds.
    pub(crate) deadline_seconds: u64,
    /// Seconds since it began, or that it took.
    pub(crate) seconds: f64,
    /// Whether it is over.
    pub(crate) over: bool,
    /// The outcomes so far, in the order of the machines.
    pub(crate) outcomes: Vec<PowerOutcome>,
}

impl Order {
    /// How it stands.
    pub(crate) fn view(&self) -> OrderView {
        let progress = self.progress();
        OrderView {
            order: self.id,
            machines: self.targets.len(),
            plan: self.plan.clone(),
            deadline_seconds: self.deadline_seconds,
            seconds: progress
                .over
                .unwrap_or_else(|| self.begun.elapsed().as_secs_f64()),
            over: progress.over.is_some(),
            outcomes: progress.outcomes.iter().flatten().cloned().collect(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carry it out. `done` hears of each machine as its outcome is there.
    pub(crate) fn carry_out(
        &self,
        switchboard: &Switchboard,
        profiles: &BTreeMap<String, PowerProfile>,
        keys: &dyn Keyring,
        done: &(dyn Fn(&Plan, &PowerOutcome) + Sync),
    ) {
        // Also when a thread dies: nobody waits for what will not come.
        let _over = Over(self);
        thread::scope(|scope| {
            for _ in 0..self.plan.parallel.min(self.targets.len()) {
                scope.spawn(|| {
                    while let Some((at, target)) = self.take() {
                        let outcome = switchboard.perform(profiles, keys, target, &self.plan);
                        done(&self.plan, &outcome);
                        self.progress().outcomes[at] = Some(outcome);
                    }
                });
            }
        });
    }

    /// The next machine, when it may start.
    fn take(&self) -> Option<(usize, &PowerTarget)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let target = self.targets.get(at)?;
        let stagger = Duration::from_millis(self.plan.stagger_ms);
        let mine = {
            let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = (*start).max(Instant::now());
            *start = mine + stagger;
            mine
        };
        thread::sleep(mine.saturating_duration_since(Instant::now()));
        Some((at, target))
    }
}

/// Ends an order when it is dropped.
struct Over<'a>(&'a Order);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let took = self.0.begun.elapsed().as_secs_f64();
        self.0.progress().over = Some(took);
    }
}

/// The orders under way and the last ones that are over.
#[derive(Debug, Default)]
pub(super) struct Orders(Mutex<(u64, VecDeque<Arc<Order>>)>);

impl Switchboard {
    /// Note an order; `carry_out` is the caller's to call.
    pub(crate) fn enter(
        &self,
        plan: Plan,
        targets: Vec<PowerTarget>,
        deadline: Duration,
    ) -> Result<Arc<Order>, PowerError> {
        let mut orders = self.orders.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, known) = &mut *orders;
        let is_over = |order: &Arc<Order>| order.progress().over.is_some();
        if known.iter().filter(|order| !is_over(order)).count() >= RUNNING_MAX {
            let text = format!("{RUNNING_MAX} orders are under way already");
            return Err(Failure::Busy.because(text));
        }
        if known.len() >= ORDERS_MAX
            && let Some(oldest) = known.iter().position(is_over)
        {
            known.remove(oldest);
        }
        *last += 1;
        let outcomes = vec![None; targets.len()];
        let order = Arc::new(Order {
            id: *last,
            plan: plan.bounded(),
            targets,
            deadline_seconds: deadline.as_secs(),
            begun: Instant::now(),
            next: AtomicUsize::new(0),
            start: Mutex::new(Instant::now()),
            progress: Mutex::new(Progress {
                outcomes,
                over: None,
            }),
        });
        known.push_back(Arc::clone(&order));
        Ok(order)
    }

    /// An order by its number.
    pub(crate) fn order(&self, id: u64) -> Option<Arc<Order>> {
        let orders = self.orders.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.1.iter().find(|order| order.id == id).cloned()
    }
}
