//! The loop of [`send`](super::send): take reports and blocks in, send batches out, sleep until the next.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver as Answers, SyncSender as Requests},
    },
    thread,
    time::Duration,
};

use super::{Audience, RateChange, SendError, SendEvent, SendReport, tempo::Tempo};
use crate::{
    block::BlockId,
    driver::ticks::Ticks,
    family::Family,
    fec::ReedSolomon,
    sender::{Destination, Sender, SenderEvent},
    udp::{BATCH_SEGMENTS, Endpoint, Inbox},
    wire::Kind,
};

/// The longest sleep, so that a stop is noticed.
const NAP: Duration = Duration::from_millis(50);
/// The longest sleep while a block is being read.
const SOURCE_NAP: Duration = Duration::from_millis(1);
/// How often the observer hears of progress.
const PROGRESS: Duration = Duration::from_millis(500);
/// How long a network that refuses to send (link down, no route) is tried again.
const OUTAGE: Duration = Duration::from_secs(15);
/// Pause between two of these tries.
const OUTAGE_PAUSE: Duration = Duration::from_millis(20);
/// How long the farewell of a stopped session may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes in one batch: less than an IP packet can count, whatever the symbol size.
const BATCH_BYTES: usize = 64_000;

/// Both ends of the queues to the thread that reads blocks.
pub(super) type SourceQueues = (Requests<BlockId>, Answers<(BlockId, io::Result<Vec<u8>>)>);

/// The state of one run of [`send`](super::send).
pub(super) struct Run {
    sender: Sender<ReedSolomon>,
    endpoint: Endpoint,
    group: SocketAddr,
    ticks: Ticks,
    tempo: Tempo,
    batch: Vec<u8>,
    /// The last announce, until the observer has heard of it.
    announced: Option<Vec<u8>>,
    requests: Requests<BlockId>,
    answers: Answers<(BlockId, io::Result<Vec<u8>>)>,
    /// Blocks asked for whose payload has not come.
    reading: usize,
    rate_changes: VecDeque<RateChange>,
    /// Since when the network has refused.
    outage: Option<Duration>,
    finished: bool,
}

impl Run {
    pub(super) fn new(
        sender: Sender<ReedSolomon>,
        endpoint: Endpoint,
        group: SocketAddr,
        tempo: Tempo,
        ticks: Ticks,
        (requests, answers): SourceQueues,
    ) -> Run {
        Run {
            sender,
            endpoint,
            group,
            ticks,
            tempo,
            batch: Vec::with_capacity(BATCH_BYTES * 2),
            announced: None,
            requests,
            answers,
            reading: 0,
            rate_changes: VecDeque::new(),
            outage: None,
            finished: false,
        }
    }

    /// Runs until the session is over; see [`send`](super::send).
    pub(super) fn run(
        mut self,
        observer: &mut impl FnMut(SendEvent),
        audience: &Audience,
        stop: &AtomicBool,
    ) -> Result<SendReport, SendError> {
        let mut inbox = Inbox::new();
        let mut next_progress = PROGRESS;
        let mut stopped_at = None;
        loop {
            if stopped_at.is_none() && stop.load(Ordering::Relaxed) {
                stopped_at = Some(self.ticks.elapsed());
                self.sender.end(self.ticks.now());
            }
            self.take_reports(&mut inbox)?;
            self.take_blocks()?;
            let now = self.ticks.now();
            if let Audience::Count(machines) = audience {
                self.sender.expect(now, machines.load(Ordering::Relaxed));
            }
            if self.sender.poll_timeout().is_some_and(|due| due <= now) {
                self.sender.handle_timeout(now);
            }
            self.pass_events(observer)?;
            if self.finished {
                break;
            }
            if stopped_at.is_some_and(|at| self.ticks.elapsed() > at + FAREWELL) {
                break;
            }
            if self.ticks.elapsed() >= next_progress {
                next_progress = self.ticks.elapsed() + PROGRESS;
                observer(SendEvent::Progress {
                    rate_bits: self.sender.rate_bits(),
                    stats: self.sender.stats(),
                    receivers: self.sender.receivers(now),
                    blocks_left: self.sender.blocks_left(),
                });
            }
            self.keep_tempo();
            let pause = self.tempo.pacer.wait(self.ticks.elapsed());
            if !pause.is_zero() {
                self.sleep(pause)?;
            } else if !self.send_batch()? {
                self.pass_events(observer)?;
                if !self.finished {
                    self.sleep(self.idle_nap())?;
                }
            }
            if let Some(datagram) = self.announced.take() {
                observer(SendEvent::Announced { datagram });
            }
        }
        if stopped_at.is_some() {
            return Err(SendError::Interrupted);
        }
        let stats = self.sender.stats();
        Ok(SendReport {
            rate_bits: self.sender.rate_bits(),
            rate_changes: self.rate_changes.into(),
            took: self.ticks.elapsed(),
            stats,
            wire_bytes: stats.datagram_bytes
                + stats.datagrams * Family::of(&self.group).outer_bytes(),
            receivers: self.sender.receivers(self.ticks.now()),
        })
    }

    fn keep_tempo(&mut self) {
        let stats = self.sender.stats();
        let data = stats.source_symbols + stats.repair_symbols;
        let (now, bits) = (self.ticks.elapsed(), self.sender.rate_bits());
        self.tempo.keep(now, bits, data, &self.endpoint);
    }

    fn take_reports(&mut self, inbox: &mut Inbox) -> Result<(), SendError> {
        let now = self.ticks.now();
        let sender = &mut self.sender;
        let taken = self.endpoint.receive(inbox, |from, bytes| {
            sender.handle_datagram(now, from, bytes);
        });
        taken.map(drop).map_err(SendError::Network)
    }

    fn take_blocks(&mut self) -> Result<(), SendError> {
        while let Ok((block, read)) = self.answers.try_recv() {
            self.reading -= 1;
            let payload = read.map_err(|source| SendError::Read { block, source })?;
            self.sender.provide(block, payload)?;
        }
        Ok(())
    }

    fn pass_events(&mut self, observer: &mut impl FnMut(SendEvent)) -> Result<(), SendError> {
        while let Some(event) = self.sender.poll_event() {
            observer(match event {
                SenderEvent::NeedBlock(block) => {
                    self.requests
                        .send(block)
                        .expect("the source thread lives as long as this end of its queue");
                    self.reading += 1;
                    continue;
                }
                SenderEvent::Spent => {
                    log::warn!(
                        "sender state=spent reason=\"all sequence numbers of one key were used\""
                    );
                    continue;
                }
                SenderEvent::Finished => {
                    self.finished = true;
                    continue;
                }
                SenderEvent::Rate { bits, reason } => {
                    let at = self.ticks.elapsed();
                    let change = RateChange { at, bits, reason };
                    if self.rate_changes.len() == SendReport::MAX_RATE_CHANGES {
                        self.rate_changes.pop_front();
                    }
                    self.rate_changes.push_back(change.clone());
                    SendEvent::Rate(change)
                }
                SenderEvent::Joined { id, name } => SendEvent::Joined { id, name },
                SenderEvent::Ready { id, wanted } => SendEvent::Ready { id, wanted },
                SenderEvent::Started { ready } => SendEvent::Started { ready },
                SenderEvent::Done { id } => SendEvent::Done { id },
                SenderEvent::Lost { id, said_so } => SendEvent::Lost { id, said_so },
            });
        }
        Ok(())
    }

    /// Sends as many datagrams as one batch takes; `false` when there was none.
    fn send_batch(&mut self) -> Result<bool, SendError> {
        let now = self.ticks.now();
        self.batch.clear();
        let mut batch: Option<(SocketAddr, usize)> = None;
        let mut count = 0;
        let most = self.tempo.pacer.batch().clamp(1, BATCH_SEGMENTS);
        while count < most {
            let start = self.batch.len();
            let Some(to) = self.sender.poll_transmit(now, &mut self.batch) else {
                break;
            };
            let to = self.address_of(to);
            let length = self.batch.len() - start;
            if Kind::of(&self.batch[start..]) == Ok(Kind::Announce) {
                self.announced = Some(self.batch[start..].to_vec());
            }
            match batch {
                // Only the last of a batch may be shorter than the others.
                Some((same, segment)) if same == to && length <= segment => {
                    count += 1;
                    if length < segment {
                        break;
                    }
                }
                Some((first, segment)) => {
                    self.transmit(first, 0, start, segment)?;
                    self.transmit(to, start, self.batch.len(), length)?;
                    return Ok(true);
                }
                None => {
                    batch = Some((to, length));
                    count = 1;
                }
            }
            if self.batch.len() + length > BATCH_BYTES {
                break;
            }
        }
        match batch {
            Some((to, segment)) => self
                .transmit(to, 0, self.batch.len(), segment)
                .map(|()| true),
            None => Ok(false),
        }
    }

    /// Sends a part of the batch buffer and pays for it.
    fn transmit(
        &mut self,
        to: SocketAddr,
        from: usize,
        end: usize,
        segment: usize,
    ) -> Result<(), SendError> {
        let bytes = &self.batch[from..end];
        let sent = self.endpoint.send(to, bytes, segment);
        let datagrams = bytes.len().div_ceil(segment.max(1)) as u64;
        let wire_bytes = bytes.len() as u64 + datagrams * Family::of(&to).outer_bytes();
        self.tempo.pacer.spend(self.ticks.elapsed(), wire_bytes);
        match sent {
            Ok(()) => self.outage = None,
            Err(error) => {
                // What did not leave is lost like on the wire; the state machine copes with that.
                let since = *self.outage.get_or_insert_with(|| {
                    log::warn!("sender state=outage reason=\"{error}\"");
                    self.ticks.elapsed()
                });
                if self.ticks.elapsed() > since + OUTAGE {
                    return Err(SendError::Network(error));
                }
                thread::sleep(OUTAGE_PAUSE);
            }
        }
        Ok(())
    }

    fn address_of(&self, to: Destination) -> SocketAddr {
        match to {
            Destination::Peer(address) => address,
            Destination::Group => self.group,
        }
    }

    fn idle_nap(&self) -> Duration {
        let limit = if self.reading > 0 { SOURCE_NAP } else { NAP };
        self.ticks.until(self.sender.poll_timeout(), limit)
    }

    fn sleep(&self, pause: Duration) -> Result<(), SendError> {
        self.endpoint
            .wait(pause.min(NAP))
            .map(drop)
            .map_err(SendError::Network)
    }
}
