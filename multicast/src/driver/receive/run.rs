//! The loop of [`receive`](super::receive): take datagrams in, hand blocks to the sink, send reports, sleep.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, Scope, ScopedJoinHandle},
    time::Duration,
};

use super::{ReceiveEvent, ReceiveReport, decoder::Decoder, detour::Detour};
use crate::{
    block::{BlockId, BlockSink, ObjectId, SinkError, Start, Verdict},
    clock::Instant,
    driver::ticks::Ticks,
    family::Family,
    fec::{FecError, ReedSolomon},
    receiver::{Obstacle, Receiver, ReceiverError, ReceiverEvent},
    udp::{Endpoint, Inbox},
};

/// The longest sleep, so that a stop is noticed.
const NAP: Duration = Duration::from_millis(50);
/// The longest sleep while the sink has something to say soon.
const SINK_NAP: Duration = Duration::from_millis(2);
/// Sleep after datagrams came: more gather meanwhile in the kernel's buffer, which holds far more than this, and
/// one wake-up for a hundred datagrams costs a fraction of a hundred wake-ups.
const GATHER: Duration = Duration::from_millis(1);
/// Batches taken in a row before the sink gets its turn.
const ROUNDS_MAX: usize = 4;
/// How often the observer hears of progress.
const PROGRESS: Duration = Duration::from_millis(500);
/// Longest report; a datagram of one Ethernet frame.
const REPORT_BYTES: usize = 1_500;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// Why a run ended early.
pub(super) enum RunError {
    NoSession {
        searched: Duration,
        datagrams: u64,
        obstacle: Option<Obstacle>,
    },
    Session(ReceiverError),
    Network(io::Error),
    Interrupted,
}

/// Where the sink is: its survey runs on a thread of its own.
enum SinkPlace<'scope, S> {
    Here(S),
    Surveying(ScopedJoinHandle<'scope, Survey<S>>),
    /// Only while it moves from one to the other.
    Moving,
}

type Survey<S> = (S, Result<Start, SinkError>);

/// How the session ends, once it does.
enum Ending {
    Finished,
    Failed(ReceiverError),
}

/// The state of one run of [`receive`](super::receive).
pub(super) struct Run<'scope, 'env, S> {
    scope: &'scope Scope<'scope, 'env>,
    pub(super) receiver: Receiver<ReedSolomon>,
    decoder: Decoder,
    endpoint: Endpoint,
    pub(super) ticks: Ticks,
    sink: SinkPlace<'scope, S>,
    pub(super) detour: Detour,
    pub(super) session: Option<(u32, ObjectId, Duration)>,
    pub(super) took: Option<Duration>,
    heard: u64,
    wire_bytes: u64,
    settling: bool,
    /// What was said last of announces that are of no use.
    obstacle: Option<Obstacle>,
    ending: Option<Ending>,
    report: Vec<u8>,
}

impl<'scope, S: BlockSink + 'scope> Run<'scope, '_, S> {
    pub(super) fn new<'env>(
        scope: &'scope Scope<'scope, 'env>,
        receiver: Receiver<ReedSolomon>,
        endpoint: Endpoint,
        ticks: Ticks,
        sink: S,
        detour: Detour,
    ) -> Run<'scope, 'env, S> {
        Run {
            scope,
            receiver,
            decoder: Decoder::start(scope),
            endpoint,
            ticks,
            sink: SinkPlace::Here(sink),
            detour,
            session: None,
            took: None,
            heard: 0,
            wire_bytes: 0,
            settling: false,
            obstacle: None,
            ending: None,
            report: Vec::with_capacity(REPORT_BYTES),
        }
    }

    /// Runs until the session is over; see [`receive`](super::receive).
    pub(super) fn run(
        &mut self,
        search: Option<Duration>,
        observer: &mut impl FnMut(ReceiveEvent),
        stop: &AtomicBool,
    ) -> Result<ReceiveReport, RunError> {
        let mut inbox = Inbox::new();
        let mut next_progress = PROGRESS;
        loop {
            if stop.load(Ordering::Relaxed) {
                self.leave("interrupted");
                return Err(RunError::Interrupted);
            }
            let busy = self.take_datagrams(&mut inbox)?;
            self.tend_sink(observer);
            self.tend_detour(observer);
            let now = self.ticks.now();
            if self.receiver.poll_timeout().is_some_and(|due| due <= now) {
                self.receiver.handle_timeout(now);
            }
            self.pass_blocks();
            self.pass_events(observer);
            self.pass_obstacle(observer);
            self.send_reports();
            match self.ending.take() {
                Some(Ending::Finished) => return Ok(self.final_report()),
                Some(Ending::Failed(error)) => {
                    self.leave("failed");
                    return Err(RunError::Session(error));
                }
                None => {}
            }
            if let Some(searched) = search
                && self.session.is_none()
                && self.ticks.elapsed() > searched
            {
                return Err(RunError::NoSession {
                    searched,
                    datagrams: self.heard,
                    obstacle: self.obstacle,
                });
            }
            if self.ticks.elapsed() >= next_progress {
                next_progress = self.ticks.elapsed() + PROGRESS;
                observer(ReceiveEvent::Progress {
                    stats: self.receiver.stats(),
                    lacking: self.receiver.lacking(),
                    backlog_bytes: self.backlog_bytes(),
                });
            }
            self.sleep(busy)?;
        }
    }

    /// Takes what is in the socket; whether there was anything.
    fn take_datagrams(&mut self, inbox: &mut Inbox) -> Result<bool, RunError> {
        let now = self.ticks.now();
        let before = self.heard;
        for _ in 0..ROUNDS_MAX {
            let (receiver, heard) = (&mut self.receiver, &mut self.heard);
            let wire_bytes = &mut self.wire_bytes;
            let taken = self.endpoint.receive(inbox, |from, bytes| {
                *heard += 1;
                *wire_bytes += bytes.len() as u64 + Family::of(&from).outer_bytes();
                receiver.handle_datagram(now, from, bytes);
            });
            match taken {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_echo(&error) => {}
                Err(error) => return Err(RunError::Network(error)),
            }
        }
        Ok(self.heard > before)
    }

    /// Fetches a finished survey, verdicts and failures.
    fn tend_sink(&mut self, observer: &mut impl FnMut(ReceiveEvent)) {
        let now = self.ticks.now();
        if matches!(&self.sink, SinkPlace::Surveying(survey) if survey.is_finished()) {
            self.finish_survey(now, observer);
        }
        if let SinkPlace::Here(sink) = &mut self.sink {
            while let Some(verdict) = sink.poll_verdict() {
                self.receiver.handle_verdict(now, verdict);
            }
            while let Some(memory) = sink.reclaim() {
                self.receiver.recycle(memory);
            }
            if let Some(reason) = sink.poll_failure() {
                self.receiver.fail(now, reason);
            }
        }
    }

    fn finish_survey(&mut self, now: Instant, observer: &mut impl FnMut(ReceiveEvent)) {
        let SinkPlace::Surveying(survey) = std::mem::replace(&mut self.sink, SinkPlace::Moving)
        else {
            return;
        };
        let (sink, start) = match survey.join() {
            Ok(survey) => survey,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.sink = SinkPlace::Here(sink);
        match start {
            Ok(start) => {
                observer(ReceiveEvent::Surveyed {
                    blocks: start.layout.len(),
                    wanted: start.wanted.iter().filter(|&&wanted| wanted).count() as u32,
                });
                self.receiver.begin(now, start);
            }
            Err(error) => self.receiver.fail(now, error.to_string()),
        }
    }

    /// Hands complete blocks to the sink, those that must be decoded by way of the decoder.
    fn pass_blocks(&mut self) {
        loop {
            self.tell_pressure();
            let SinkPlace::Here(sink) = &mut self.sink else {
                return;
            };
            if sink.has_room()
                && let Some((block, opened)) = self.decoder.poll()
            {
                self.deliver(block, opened);
                continue;
            }
            match self.receiver.poll_parcel() {
                Some((block, parcel)) if parcel.needs_decoding() => {
                    self.decoder.submit(block, parcel);
                }
                Some((block, parcel)) => {
                    self.deliver(block, parcel.open(&mut ReedSolomon::new()));
                }
                None => return,
            }
        }
    }

    fn deliver(&mut self, block: BlockId, opened: Result<Vec<u8>, FecError>) {
        match (&mut self.sink, opened) {
            (SinkPlace::Here(sink), Ok(payload)) => sink.deliver(block, payload),
            // Forged symbols made it; the block comes again.
            (_, Err(error)) => {
                log::warn!(
                    "receiver block={} state=broken reason=\"{error}\"",
                    block.index()
                );
                let verdict = Verdict::Rejected(block);
                self.receiver.handle_verdict(self.ticks.now(), verdict);
            }
            // Not handed out before the survey is back; dropped, the block would only come again.
            (SinkPlace::Surveying(_) | SinkPlace::Moving, Ok(_)) => {}
        }
    }

    fn tell_pressure(&mut self) {
        let room = match &self.sink {
            SinkPlace::Here(sink) => sink.has_room() && self.decoder.has_room(),
            SinkPlace::Surveying(_) | SinkPlace::Moving => false,
        };
        let overflow = self.endpoint.overflow();
        self.receiver
            .set_pressure(self.backlog_bytes(), room, overflow);
    }

    fn pass_events(&mut self, observer: &mut impl FnMut(ReceiveEvent)) {
        loop {
            let Some(event) = self.receiver.poll_event() else {
                return;
            };
            self.pass_event(event, observer);
        }
    }

    /// Tells of announces that are of no use, once for each reason.
    fn pass_obstacle(&mut self, observer: &mut impl FnMut(ReceiveEvent)) {
        let obstacle = self.receiver.obstacle();
        if obstacle.is_some() && obstacle != self.obstacle {
            self.obstacle = obstacle;
            obstacle
                .into_iter()
                .map(ReceiveEvent::Obstacle)
                .for_each(observer);
        }
    }

    fn pass_event(&mut self, event: ReceiverEvent, observer: &mut impl FnMut(ReceiveEvent)) {
        match event {
            ReceiverEvent::Joined {
                session,
                object_id,
                verify_key,
                from,
            } => {
                log::debug!("receiver session={session:08x} state=joined from={from}");
                self.session = Some((session, object_id, self.ticks.elapsed()));
                observer(ReceiveEvent::Joined {
                    session,
                    object_id,
                    verify_key,
                });
            }
            ReceiverEvent::Preamble(preamble) => {
                observer(ReceiveEvent::Surveying);
                self.start_survey(preamble);
            }
            ReceiverEvent::Block { block, payload } => self.deliver(block, Ok(payload)),
            ReceiverEvent::Settle => {
                observer(ReceiveEvent::Settling);
                self.settling = true;
                if let SinkPlace::Here(sink) = &mut self.sink {
                    sink.settle();
                }
            }
            ReceiverEvent::Complete => {
                self.settling = false;
                self.took = Some(self.ticks.elapsed());
                observer(ReceiveEvent::Complete);
            }
            ReceiverEvent::Finished => self.ending = Some(Ending::Finished),
            ReceiverEvent::Failed(error) => self.ending = Some(Ending::Failed(error)),
        }
    }

    fn start_survey(&mut self, preamble: Vec<u8>) {
        let object_id = self.session.expect("a preamble comes after its session").1;
        if let SinkPlace::Here(mut sink) = std::mem::replace(&mut self.sink, SinkPlace::Moving) {
            let survey = self.scope.spawn(move || {
                let start = sink.begin(&preamble, &object_id);
                (sink, start)
            });
            self.sink = SinkPlace::Surveying(survey);
        }
    }

    fn send_reports(&mut self) {
        loop {
            self.report.clear();
            let Some(to) = self
                .receiver
                .poll_transmit(self.ticks.now(), &mut self.report)
            else {
                return;
            };
            // A report that does not leave is like one lost on the way: another follows.
            if let Err(error) = self.endpoint.send(to, &self.report, self.report.len()) {
                log::debug!("receiver report=unsent reason=\"{error}\"");
            }
        }
    }

    /// Tells the sender that this machine goes, as far as it can still be told.
    fn leave(&mut self, reason: &str) {
        let end = self.ticks.elapsed() + FAREWELL;
        self.receiver.fail(self.ticks.now(), reason.to_owned());
        while self.ticks.elapsed() < end {
            self.receiver.handle_timeout(self.ticks.now());
            self.send_reports();
            while let Some(event) = self.receiver.poll_event() {
                if matches!(event, ReceiverEvent::Failed(_)) {
                    self.send_reports();
                    return;
                }
            }
            thread::sleep(self.ticks.until(self.receiver.poll_timeout(), SINK_NAP));
        }
    }

    fn final_report(&self) -> ReceiveReport {
        let (session, object_id, joined) = self.session.expect("what is finished was joined");
        ReceiveReport {
            session,
            object_id,
            took: self
                .took
                .unwrap_or_else(|| self.ticks.elapsed())
                .saturating_sub(joined),
            stats: self.receiver.stats(),
            wire_bytes: self.wire_bytes,
            overflow: self.endpoint.overflow(),
            detour: self.detour_report(),
        }
    }

    fn backlog_bytes(&self) -> u64 {
        let sink_bytes = match &self.sink {
            SinkPlace::Here(sink) => sink.backlog_bytes(),
            SinkPlace::Surveying(_) | SinkPlace::Moving => 0,
        };
        sink_bytes + self.decoder.busy_bytes() as u64
    }

    fn sleep(&self, busy: bool) -> Result<(), RunError> {
        if busy {
            thread::sleep(self.ticks.until(self.receiver.poll_timeout(), GATHER));
            return Ok(());
        }
        let waiting = matches!(self.sink, SinkPlace::Surveying(_))
            || self.settling
            || self.detour.is_out()
            || self.decoder.is_busy()
            || self.backlog_bytes() > 0;
        let limit = if waiting { SINK_NAP } else { NAP };
        let pause = self.ticks.until(self.receiver.poll_timeout(), limit);
        self.endpoint
            .wait(pause)
            .map(drop)
            .map_err(RunError::Network)
    }
}

/// Whether an error only says that an earlier report met a closed port or a missing route.
fn is_echo(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}
