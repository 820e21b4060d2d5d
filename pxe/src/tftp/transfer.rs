//! One file on its way to one client.
//!
//! ```text
//!              options asked for                 block 0 acknowledged
//!   new ──────────────────────────▶ Negotiating ─────────────────────▶ Sending ──▶ Done
//!    └───────────── none ──────────────────────────────────────────────▶ │
//!                                        time out, too often: Silent ◀───┴──▶ Aborted by the client
//! ```
//!
//! A window of blocks is under way. An acknowledgement inside the window says that what follows was lost: sending
//! goes back behind it. One that repeats the last does so once for each window, and never with a window of one, where
//! a delayed duplicate would double every following block (the "sorcerer's apprentice" of RFC 1123 section 4.2.3.1).

use std::time::{Duration, Instant};

use super::{BLOCK_BYTES_DEFAULT, OPTIONS, TftpHeard, TftpRead};

/// Wait before the first repetition, without option.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait a client may ask for, in seconds; a longer one is not confirmed, and one of ours taken. Who asks
/// may be forged, and would hold a place for hours.
const RETRY_SECONDS_MAX: u8 = 8;
/// Doublings of that wait at most.
const DOUBLINGS_MAX: u32 = 3;
/// Repetitions without an answer before a client is given up: a minute and a half by the above.
const RETRIES_MAX: u32 = 14;
/// The same before its first answer: the sender of a request may be forged, and another would get the repetitions.
const RETRIES_UNHEARD_MAX: u32 = 4;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TftpTransmit {
    /// This datagram.
    Options(Vec<u8>),
    /// A block: `length` bytes of the file from `offset`, under this number.
    Block {
        /// Its number on the wire, modulo 2¹⁶.
        number: u16,
        /// Where it begins in the file, in bytes.
        offset: u64,
        /// Its length in bytes; the last one is shorter than the others, perhaps empty.
        length: usize,
    },
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TftpOutcome {
    /// The client has the whole file.
    Done,
    /// The client did not want to go on.
    Aborted {
        /// Its error code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The client was not heard any more.
    Silent {
        /// Whether everything was sent at least once: some clients do not acknowledge the last block.
        all_sent: bool,
    },
}

/// One file on its way to one client.
#[derive(Debug)]
pub struct TftpTransfer {
    file_bytes: u64,
    block_bytes: u16,
    window: u16,
    retry: Duration,
    /// The answer to the request's options, as long as it is not acknowledged.
    offer: Option<Vec<u8>>,
    offer_is_due: bool,
    /// Blocks the client has; they count from 1.
    acknowledged: u64,
    /// The block to send next.
    next: u64,
    /// Highest block ever sent.
    highest: u64,
    went_back: bool,
    retries: u32,
    is_heard: bool,
    deadline: Instant,
    outcome: Option<TftpOutcome>,
}

impl TftpTransfer {
    /// Answer a request with a file of `file_bytes`.
    pub fn new(now: Instant, read: &TftpRead, file_bytes: u64) -> TftpTransfer {
        let offer = offer(read, file_bytes);
        let retry =
            retry_seconds(read).map_or(RETRY, |seconds| Duration::from_secs(seconds.into()));
        TftpTransfer {
            file_bytes,
            block_bytes: read.block_bytes.unwrap_or(BLOCK_BYTES_DEFAULT),
            window: read.window_blocks.unwrap_or(1),
            retry,
            offer_is_due: offer.is_some(),
            offer,
            acknowledged: 0,
            next: 1,
            highest: 0,
            went_back: false,
            retries: 0,
            is_heard: false,
            deadline: now + retry,
            outcome: None,
        }
    }

    /// Take what the client says.
    pub fn handle(&mut self, now: Instant, heard: TftpHeard) {
        match heard {
            TftpHeard::Acknowledged(number) => self.acknowledge(now, number),
            TftpHeard::Abort { code, message } => {
                self.outcome
                    .get_or_insert(TftpOutcome::Aborted { code, message });
            }
            // A request from the port of a running transfer is a repeated one, and the answer is under way.
            TftpHeard::Read(_) | TftpHeard::Unfit(_) => {}
        }
    }

    fn acknowledge(&mut self, now: Instant, number: u16) {
        if self.offer.is_some() {
            // The first block acknowledges the options as block 0 (RFC 2347).
            if number == 0 {
                self.offer = None;
                self.progress(now);
            }
            return;
        }
        // After a time-out `next` is back at the beginning, and what was sent before may still arrive.
        let mut window = self.acknowledged..=self.highest;
        let Some(block) = window.find(|&block| wire_number(block) == number) else {
            return;
        };
        if block > self.acknowledged {
            self.acknowledged = block;
            self.next = block + 1;
            self.went_back = false;
            self.progress(now);
            if block == self.blocks() {
                self.outcome.get_or_insert(TftpOutcome::Done);
            }
        } else if self.window > 1 && !self.went_back {
            self.went_back = true;
            self.next = block + 1;
        }
    }

    fn progress(&mut self, now: Instant) {
        self.is_heard = true;
        self.retries = 0;
        self.deadline = now + self.retry;
    }

    /// Time has passed: what was not acknowledged is due again.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.outcome.is_some() || now < self.deadline {
            return;
        }
        let retries_max = match self.is_heard {
            true => RETRIES_MAX,
            false => RETRIES_UNHEARD_MAX,
        };
        if self.retries == retries_max {
            self.outcome = Some(TftpOutcome::Silent {
                all_sent: self.highest == self.blocks(),
            });
            return;
        }
        self.retries += 1;
        self.deadline = now + self.retry * (1 << self.retries.min(DOUBLINGS_MAX));
        self.offer_is_due = self.offer.is_some();
        self.next = self.acknowledged + 1;
        self.went_back = false;
    }

    /// When [`TftpTransfer::handle_timeout`] is due, if nothing is heard before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.outcome.is_none().then_some(self.deadline)
    }

    /// What to send now, if anything.
    pub fn poll_transmit(&mut self) -> Option<TftpTransmit> {
        if self.outcome.is_some() {
            return None;
        }
        if let Some(offer) = &self.offer {
            let due = std::mem::take(&mut self.offer_is_due);
            return due.then(|| TftpTransmit::Options(offer.clone()));
        }
        let last = self
            .blocks()
            .min(self.acknowledged + u64::from(self.window));
        if self.next > last {
            return None;
        }
        let block = self.next;
        self.next += 1;
        self.highest = self.highest.max(block);
        let offset = (block - 1) * u64::from(self.block_bytes);
        let rest = self.file_bytes - offset;
        let full = usize::from(self.block_bytes);
        Some(TftpTransmit::Block {
            number: wire_number(block),
            offset,
            length: usize::try_from(rest).map_or(full, |rest| rest.min(full)),
        })
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&TftpOutcome> {
        self.outcome.as_ref()
    }

    /// Number of blocks; the last one is shorter than the others, perhaps empty.
    fn blocks(&self) -> u64 {
        self.file_bytes / u64::from(self.block_bytes) + 1
    }
}

/// The wait before a repetition that a client asks for, as far as it gets it (RFC 2349).
fn retry_seconds(read: &TftpRead) -> Option<u8> {
    read.timeout_seconds
        .filter(|seconds| *seconds <= RETRY_SECONDS_MAX)
}

/// The answer to the options of a request; none for a request without any that we know.
fn offer(read: &TftpRead, file_bytes: u64) -> Option<Vec<u8>> {
    let options = [
        ("blksize", read.block_bytes.map(u64::from)),
        ("timeout", retry_seconds(read).map(u64::from)),
        ("tsize", read.wants_size.then_some(file_bytes)),
        ("windowsize", read.window_blocks.map(u64::from)),
    ];
    let mut datagram = OPTIONS.to_be_bytes().to_vec();
    for (name, value) in options {
        if let Some(value) = value {
            datagram.extend(format!("{name}\0{value}\0").bytes());
        }
    }
    (datagram.len() > 2).then_some(datagram)
}

/// The number of a block on the wire. After 65 535 comes 0, as all clients expect that take such files at all.
fn wire_number(block: u64) -> u16 {
    (block & 0xffff) as u16
}

#[cfg(test)]
mod tests;
