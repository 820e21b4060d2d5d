//! What happens to a job, told to the server about once a second.
//!
//! Events are numbered and repeated until the server has them, so a server that is restarted
//! in the middle loses nothing. Progress is only worth its newest value: an older one still
//! waiting is replaced. The answers bring orders back: cancel, or another session.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netflash_pxe::{AgentEvent, EventKind, EventsAnswer, Phase};

use crate::console::uptime;
use crate::server::Server;

/// How often the server hears of us.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it hears of us when nothing happens: it must be able to cancel.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pause after the server could not be reached.
const RETRY: Duration = Duration::from_secs(2);
/// Events in one request.
const BATCH_MAX: usize = 64;
/// Events waiting; beyond it only the job's end is taken.
const QUEUE_MAX: usize = 512;

/// What the server wants of the running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Go on.
    None,
    /// It was cancelled.
    Cancel,
    /// The image is being sent in another session now.
    Rejoin,
}

/// Tells the server about one job.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Arc<Server>,
    job: u64,
    session: u32,
    sequence: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<AgentEvent>,
    /// How many of the queue, from its front, were sent and not answered yet.
    in_flight: usize,
    wish: Wish,
    /// The last event was put in; when the queue is empty, all is told.
    closed: bool,
    /// All is told, or the server does not want to hear it.
    over: bool,
}

impl Events {
    /// Starts telling about `job`, which receives `session`. `stop` is set when the job shall end.
    ///
    /// `sequence` is the agent's, not the job's: the server drops numbers it has seen, and a job
    /// may be tried more than once.
    pub(crate) fn start(
        server: Arc<Server>,
        job: u64,
        session: u32,
        sequence: Arc<AtomicU64>,
        stop: Arc<AtomicBool>,
    ) -> Events {
        let shared = Arc::new(Shared {
            server,
            job,
            session,
            sequence,
            stop,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                in_flight: 0,
                wish: Wish::None,
                closed: false,
                over: false,
            }),
            changed: Condvar::new(),
        });
        let teller = shared.clone();
        let spawned = thread::Builder::new()
            .name("events".into())
            .spawn(move || teller.tell());
        if let Err(error) = spawned {
            log::error!("the server hears nothing of this job: {error}");
            shared.lock().over = true;
        }
        Events { shared }
    }

    /// A new phase.
    pub(crate) fn phase(&self, phase: Phase, disk: Option<String>) {
        self.push(EventKind::Phase { phase, disk });
    }

    /// Anything else that happened.
    pub(crate) fn push(&self, event: EventKind) {
        let mut state = self.shared.lock();
        // Two progress events in a row: the older one says nothing any more, unless it is on its way.
        if matches!(event, EventKind::Progress(_))
            && state.queue.len() > state.in_flight
            && let Some(last) = state.queue.back_mut()
            && matches!(last.event, EventKind::Progress(_))
        {
            last.event = event;
            last.uptime_ms = uptime_ms();
            return;
        }
        if state.queue.len() >= QUEUE_MAX && !event.ends_the_job() {
            return;
        }
        state.closed |= event.ends_the_job();
        // Numbered under the lock, so that the queue is in order.
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        state.queue.push_back(AgentEvent {
            sequence,
            uptime_ms: uptime_ms(),
            event,
        });
        self.shared.changed.notify_all();
    }

    /// What the server wants, as of its last answer.
    pub(crate) fn wish(&self) -> Wish {
        self.shared.lock().wish
    }

    /// Waits until the server knows everything, at most this long; whether it does.
    pub(crate) fn finish(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        state.closed = true;
        while !state.over {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: batches go out in order, each until it is answered.
    fn tell(&self) {
        let mut told = Instant::now();
        loop {
            let Some(batch) = self.next_batch(told + HEARTBEAT) else {
                return;
            };
            match self.server.events(self.job, &batch) {
                Ok(answer) => {
                    told = Instant::now();
                    self.heed(answer);
                }
                Err(error) if error.may_pass() => {
                    log::warn!("job={} {error}", self.job);
                    thread::sleep(RETRY);
                    continue;
                }
                Err(error) => {
                    // The server does not know the job (any more): nothing we say will help.
                    log::error!("job={} {error}", self.job);
                    self.wish(Wish::Cancel);
                    let mut state = self.lock();
                    state.over = true;
                    self.changed.notify_all();
                    return;
                }
            }
            self.rest();
        }
    }

    /// The pause between two requests; the end of the job cuts it short.
    fn rest(&self) {
        let end = Instant::now() + INTERVAL;
        let mut state = self.lock();
        while !state.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for something to tell or for the heartbeat; nothing when all is told.
    fn next_batch(&self, heartbeat: Instant) -> Option<Vec<AgentEvent>> {
        let mut state = self.lock();
        loop {
            if state.queue.is_empty() && state.closed {
                state.over = true;
                self.changed.notify_all();
                return None;
            }
            let left = heartbeat.saturating_duration_since(Instant::now());
            if !state.queue.is_empty() || left.is_zero() {
                let batch: Vec<AgentEvent> = state.queue.iter().take(BATCH_MAX).cloned().collect();
                state.in_flight = batch.len();
                return Some(batch);
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn heed(&self, answer: EventsAnswer) {
        let mut state = self.lock();
        let told = std::mem::take(&mut state.in_flight).min(state.queue.len());
        state.queue.drain(..told);
        drop(state);
        if answer.cancel {
            self.wish(Wish::Cancel);
        } else if answer.session.is_some_and(|now| now != self.session) {
            self.wish(Wish::Rejoin);
        }
    }

    fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        // A job that is over cannot be stopped any more.
        if state.closed || state.wish == Wish::Cancel {
            return;
        }
        state.wish = wish;
        drop(state);
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn uptime_ms() -> u64 {
    u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use netflash_pxe::Progress;

    use super::*;
    use crate::server::tests::{Answer, FakeServer};

    const TOLD: Duration = Duration::from_secs(20);

    fn start(server: &FakeServer) -> (Events, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        let sequence = Arc::new(AtomicU64::new(0));
        let events = Events::start(Arc::new(server.client()), 7, 1, sequence, stop.clone());
        (events, stop)
    }

    fn note(text: &str) -> EventKind {
        EventKind::Note { text: text.into() }
    }

    fn told(server: &FakeServer) -> Vec<(u64, String)> {
        server
            .bodies()
            .iter()
            .flat_map(|body| serde_json::from_slice::<Vec<AgentEvent>>(body).unwrap())
            .map(|event| (event.sequence, format!("{:?}", event.event)))
            .collect()
    }

    #[test]
    fn what_the_server_missed_is_told_again_in_order() {
        let server = FakeServer::start(vec![
            Answer::status(503),
            Answer::json(r#"{"cancel":false,"session":1}"#),
        ]);
        let (events, stop) = start(&server);
        events.push(note("a"));
        events.push(note("b"));
        assert!(events.finish(TOLD));
        let told = told(&server);
        let last: Vec<u64> = told.iter().map(|(sequence, _)| *sequence).collect();
        assert!(last.ends_with(&[0, 1]), "{told:?}");
        assert!(!stop.load(Ordering::Relaxed));
    }

    #[test]
    fn a_second_try_of_a_job_goes_on_counting() {
        let server = FakeServer::start(vec![Answer::json(r#"{"cancel":false,"session":1}"#)]);
        let sequence = Arc::new(AtomicU64::new(0));
        for text in ["first", "second"] {
            let client = Arc::new(server.client());
            let stop = Arc::new(AtomicBool::new(false));
            let events = Events::start(client, 7, 1, sequence.clone(), stop);
            events.push(note(text));
            assert!(events.finish(TOLD));
        }
        let numbers: Vec<u64> = told(&server).iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [0, 1]);
    }

    #[test]
    fn a_cancelled_job_is_stopped() {
        let server = FakeServer::start(vec![Answer::json(r#"{"cancel":true,"session":1}"#)]);
        let (events, stop) = start(&server);
        events.push(note("a"));
        wait_for(&stop);
        assert_eq!(events.wish(), Wish::Cancel);
        assert!(events.finish(TOLD));
    }

    #[test]
    fn another_session_means_joining_again() {
        let server = FakeServer::start(vec![Answer::json(r#"{"cancel":false,"session":2}"#)]);
        let (events, stop) = start(&server);
        events.push(note("a"));
        wait_for(&stop);
        assert_eq!(events.wish(), Wish::Rejoin);
    }

    #[test]
    fn a_job_the_server_forgot_ends_without_waiting_for_it() {
        let server = FakeServer::start(vec![Answer::status(404)]);
        let (events, stop) = start(&server);
        events.push(note("a"));
        wait_for(&stop);
        assert!(events.finish(TOLD));
    }

    #[test]
    fn only_the_newest_of_waiting_progress_is_told() {
        let server = FakeServer::start(vec![Answer::json(r#"{"cancel":false,"session":1}"#)]);
        let (events, _) = start(&server);
        for done_bytes in 0..1000 {
            events.push(EventKind::Progress(Progress {
                done_bytes,
                ..Progress::default()
            }));
        }
        events.push(note("end"));
        assert!(events.finish(TOLD));
        let told = told(&server);
        assert!(told.len() < 20, "{}", told.len());
        assert!(
            told.iter()
                .any(|(_, event)| event.contains("done_bytes: 999"))
        );
    }

    fn wait_for(stop: &AtomicBool) {
        let end = Instant::now() + TOLD;
        while !stop.load(Ordering::Relaxed) {
            assert!(Instant::now() < end, "the job was not stopped");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
