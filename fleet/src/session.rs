//! Running multicast sessions: one for each batch of jobs, from the first machine to the last.
//!
//! A session stays as long as its batch has an active job: machines come late, are switched off and return, and find
//! the same session. When sending fails (an unplugged cable), the next try is a new session, for sequence numbers
//! must not begin again under an old number.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender as Channel, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use netflash_imager::Image;
use netflash_multicast::{
    Audience, Family, Interface, InterfaceChoice, Membership, Phase, RateBudget, SendConfig,
    SendError, SendEvent, random_session, send,
};
use netflash_pxe::{Hex32, plain};

use crate::adapter::ImageSource;
use crate::config::MulticastConfig;
use crate::fallback::{Board, Desk};
use crate::machine::StoredImage;
use crate::units;

mod group;
mod keys;

use group::group_of;
use keys::{Keys, Secrets};

pub(crate) use keys::Cipher;

/// Sessions at once; each has its own group.
const SESSIONS_MAX: usize = 64;
/// How long opening the image and the socket may take.
const OPENING: Duration = Duration::from_secs(30);
/// Characters of the reason for a rate; it may name a machine, which names itself.
const REASON_MAX: usize = 200;
/// Pause before a failed session is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// A session of the server ends when its jobs are over, not when nobody is heard.
const LINGER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Why a session did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// Too many at once.
    #[error("{SESSIONS_MAX} sessions are running; wait for one to end")]
    Full,
    /// It could not be opened.
    #[error("opening session: {0}")]
    Open(String),
}

/// A running session, as machines and people need it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    /// The batch of jobs it is for.
    pub(crate) batch: i64,
    /// Name of the image.
    pub(crate) image_name: String,
    /// The image.
    pub(crate) image_id: Hex32,
    /// The session's number.
    pub(crate) session: u32,
    /// Group and port.
    pub(crate) group: SocketAddr,
    /// Signs its announces.
    pub(crate) verify_key: Hex32,
    /// Machines that are waited for before the payload flows: those whose jobs are not over.
    #[serde(default)]
    pub(crate) awaited: u32,
    /// Machines heard of late.
    pub(crate) receivers: u32,
    /// Machines that have everything, also those that have left since.
    pub(crate) receivers_done: u32,
    /// Bits per second on the wire.
    pub(crate) rate_bits: u64,
    /// Why the rate changed last; empty while it has not.
    pub(crate) rate_reason: String,
    /// Bytes of datagrams sent.
    pub(crate) sent_bytes: u64,
    /// Source symbols sent.
    pub(crate) source_symbols: u64,
    /// Repair symbols sent.
    pub(crate) repair_symbols: u64,
    /// Blocks that somebody lacks, as far as is known.
    pub(crate) blocks_left: u32,
    /// Why it does not run now; empty when it does.
    pub(crate) trouble: String,
}

/// What happens when a session cannot be sent at the first try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Somebody waits for the answer: say so and end.
    GiveUp,
    /// Jobs depend on it, and the network of a server that starts may not be up yet: try again and again.
    KeepTrying,
}

struct Live {
    slot: u32,
    /// Machines waited for before the payload flows.
    expected: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<SessionStatus>>,
    image: Arc<Image>,
    board: Board,
    secrets: Arc<Mutex<Option<Secrets>>>,
}

/// All running sessions.
pub(crate) struct Sessions {
    config: MulticastConfig,
    budget: Arc<OnceLock<RateBudget>>,
    desk: Option<Arc<Desk>>,
    live: Mutex<BTreeMap<i64, Live>>,
}

impl Sessions {
    /// No session yet. What `desk` sends counts in the cap of them all.
    pub(crate) fn new(config: MulticastConfig, desk: Option<Arc<Desk>>) -> Sessions {
        Sessions {
            config,
            budget: Arc::default(),
            desk,
            live: Mutex::new(BTreeMap::new()),
        }
    }

    /// The session of `batch`, if it runs.
    pub(crate) fn status(&self, batch: i64) -> Option<SessionStatus> {
        let live = lock(&self.live);
        live.get(&batch)
            .map(|session| lock(&session.status).clone())
    }

    /// What machines that multicast does not reach fetch of the session of `batch`: its image and its announces.
    pub(crate) fn beside(&self, batch: i64) -> Option<(Arc<Image>, Board)> {
        let live = lock(&self.live);
        live.get(&batch)
            .map(|session| (Arc::clone(&session.image), session.board.clone()))
    }

    /// The session of `batch`, if it runs, and what machine number `machine` needs to take part if it is sealed.
    pub(crate) fn ticket(
        &self,
        batch: i64,
        machine: u32,
    ) -> Option<(SessionStatus, Option<Membership>)> {
        let live = lock(&self.live);
        let session = live.get(&batch)?;
        // Both locks at once: number and keys are of the same sender.
        let (status, secrets) = (lock(&session.status), lock(&session.secrets));
        let membership = secrets.as_ref().map(|secrets| secrets.membership(machine));
        Some((status.clone(), membership))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<SessionStatus> {
        lock(&self.live)
            .values()
            .map(|session| lock(&session.status).clone())
            .collect()
    }

    /// Begin a session that sends `image` to `receivers` machines. Returns when it can be joined.
    ///
    /// # Errors
    /// When the image cannot be opened; when sending fails at once and `patience` says to give up then.
    pub(crate) fn begin(
        &self,
        batch: i64,
        image: &StoredImage,
        receivers: u32,
        patience: Patience,
    ) -> Result<(), SessionError> {
        let mut live = lock(&self.live);
        if live.contains_key(&batch) {
            return Ok(());
        }
        let taken: Vec<u32> = live.values().map(|session| session.slot).collect();
        let slot = (0..SESSIONS_MAX as u32)
            .find(|slot| !taken.contains(slot))
            .ok_or(SessionError::Full)?;
        let group = group_of(self.config.group, slot);
        let stop = Arc::new(AtomicBool::new(false));
        let expected = Arc::new(AtomicU32::new(receivers));
        let status = Arc::new(Mutex::new(SessionStatus {
            batch,
            image_name: image.name.clone(),
            image_id: image.image_id,
            session: 0,
            group,
            verify_key: Hex32([0; 32]),
            awaited: receivers,
            receivers: 0,
            receivers_done: 0,
            rate_bits: 0,
            rate_reason: String::new(),
            sent_bytes: 0,
            source_symbols: 0,
            repair_symbols: 0,
            blocks_left: 0,
            trouble: String::new(),
        }));
        let secrets = Arc::new(Mutex::new(None));
        let (opened, opening) = channel();
        let (image, board) = (open_image(image)?, Board::default());
        let runner = Runner {
            config: self.config.clone(),
            budget: Arc::clone(&self.budget),
            desk: self.desk.clone(),
            image: Arc::clone(&image),
            board: board.clone(),
            expected: Arc::clone(&expected),
            stop: Arc::clone(&stop),
            status: Arc::clone(&status),
            secrets: Arc::clone(&secrets),
        };
        thread::Builder::new()
            .name(format!("session-{batch}"))
            .spawn(move || runner.run(&opened))
            .map_err(|error| SessionError::Open(error.to_string()))?;
        let outcome = match opening.recv_timeout(OPENING) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err("it takes too long".to_owned()),
            Err(RecvTimeoutError::Disconnected) => Err("it ended at once".to_owned()),
        };
        if let (Err(reason), Patience::GiveUp) = (outcome, patience) {
            stop.store(true, Ordering::Relaxed);
            return Err(SessionError::Open(reason));
        }
        live.insert(
            batch,
            Live {
                slot,
                expected,
                stop,
                status,
                image,
                board,
                secrets,
            },
        );
        Ok(())
    }

    /// A machine of `batch` will not come any more, its job is over: the others need not wait for it.
    pub(crate) fn expect_one_less(&self, batch: i64) {
        if let Some(session) = lock(&self.live).get(&batch) {
            let mut status = lock(&session.status);
            status.awaited = status.awaited.saturating_sub(1).max(1);
            session.expected.store(status.awaited, Ordering::Relaxed);
            log::info!("session batch={batch} awaited={}", status.awaited);
        }
    }

    /// End every session whose batch is not in `batches`.
    pub(crate) fn keep_only(&self, batches: &[i64]) {
        lock(&self.live).retain(|batch, session| {
            let keep = batches.contains(batch);
            if !keep {
                session.stop.store(true, Ordering::Relaxed);
                log::info!("session batch={batch} state=ended");
            }
            keep
        });
    }
}

/// A poisoned lock only means that another thread died; every value behind these locks is valid at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the file of an image.
///
/// # Errors
/// When it cannot be opened, or is another image than when it was added.
pub(crate) fn open_image(image: &StoredImage) -> Result<Arc<Image>, SessionError> {
    let opened = Image::open(Path::new(&image.path))
        .map_err(|error| SessionError::Open(error.to_string()))?;
    if opened.id().0 != image.image_id.0 {
        let text = format!("{} is another image than when it was added", image.path);
        return Err(SessionError::Open(text));
    }
    Ok(Arc::new(opened))
}

struct Runner {
    config: MulticastConfig,
    budget: Arc<OnceLock<RateBudget>>,
    desk: Option<Arc<Desk>>,
    image: Arc<Image>,
    board: Board,
    expected: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<SessionStatus>>,
    secrets: Arc<Mutex<Option<Secrets>>>,
}

impl Runner {
    fn run(self, opened: &Channel<Result<(), String>>) {
        loop {
            let outcome = self.send_once(opened);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let trouble = outcome
                .err()
                .unwrap_or_else(|| "ended by itself".to_owned());
            // The first failure goes to whoever asked for the session; there is no second listener.
            if opened.send(Err(trouble.clone())).is_err() {
                log::warn!(
                    "session batch={} state=failed reason={trouble:?}",
                    lock(&self.status).batch
                );
            }
            lock(&self.status).trouble = trouble;
            let pauses = RETRY.as_millis() / 100;
            for _ in 0..pauses {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn send_once(&self, opened: &Channel<Result<(), String>>) -> Result<(), String> {
        let source = ImageSource::new(Arc::clone(&self.image)).map_err(chain)?;
        let cipher = self.config.seal.then_some(self.config.cipher);
        let keys = Keys::generate(cipher).map_err(chain)?;
        let session = random_session().map_err(chain)?;
        let group = {
            let (mut status, mut secrets) = (lock(&self.status), lock(&self.secrets));
            status.session = session;
            status.verify_key = Hex32(keys.signing.verify_key().0);
            *secrets = keys.secrets;
            status.group
        };
        let choice = match self.config.interface.as_str() {
            "auto" => InterfaceChoice::Auto,
            name => InterfaceChoice::Named(name.to_owned()),
        };
        let interface = Interface::choose(&choice, Family::of(&group)).map_err(chain)?;
        let rate = units::rate_on(&self.config.rate, &interface)?;
        let config = SendConfig {
            interface: InterfaceChoice::Chosen(interface.clone()),
            group,
            ttl: self.config.ttl,
            loopback: self.config.loopback,
            rate,
            budget: self.budget_on(&interface)?,
            symbol_bytes: None,
            session,
            object_id: source.object_id(),
            signing_key: keys.signing,
            seal: keys.seal,
            audience: Audience::Count(Arc::clone(&self.expected)),
            wait: Duration::from_secs(self.config.wait_seconds),
            linger: LINGER,
        };
        let observer = |event| self.observe(event, opened);
        match send(config, source, observer, &self.stop) {
            Ok(_) | Err(SendError::Interrupted) => Ok(()),
            Err(error) => Err(chain(error)),
        }
    }

    /// The cap that all sessions keep together; it may depend on the interface, which the first of them has found.
    fn budget_on(&self, interface: &Interface) -> Result<Option<RateBudget>, String> {
        let total_bits = units::total_on(&self.config.rate_total, interface)?;
        let open = |bits| {
            let budget = RateBudget::new(bits);
            if let Some(desk) = &self.desk {
                desk.keep_within(budget.share());
            }
            budget
        };
        Ok(total_bits.map(|bits| self.budget.get_or_init(|| open(bits)).clone()))
    }

    fn observe(&self, event: SendEvent, opened: &Channel<Result<(), String>>) {
        let mut status = lock(&self.status);
        let (batch, session) = (status.batch, status.session);
        match event {
            SendEvent::Open {
                interface, address, ..
            } => {
                self.board.open(address);
                status.trouble.clear();
                log::info!(
                    "session batch={batch} session={session:08x} group={} interface={} image={} state=open",
                    status.group,
                    interface.name(),
                    status.image_name
                );
                // Nobody listens any more when a failed session is tried again.
                let _ = opened.send(Ok(()));
            }
            SendEvent::Announced { datagram } => self.board.pin(datagram),
            SendEvent::Rate(change) => {
                let reason = plain(&change.reason.to_string(), REASON_MAX);
                log::info!(
                    "session session={session:08x} rate_bits={} reason={reason:?}",
                    change.bits
                );
                (status.rate_bits, status.rate_reason) = (change.bits, reason);
            }
            SendEvent::Joined { id, name } => {
                log::info!(
                    "session session={session:08x} receiver={id:016x} name={} state=joined",
                    plain(&name, 32)
                );
            }
            SendEvent::Ready { id, wanted } => {
                log::info!(
                    "session session={session:08x} receiver={id:016x} wanted_blocks={wanted} state=ready"
                );
            }
            SendEvent::Started { ready } => {
                log::info!("session session={session:08x} receivers={ready} state=started");
            }
            SendEvent::Done { id } => {
                log::info!("session session={session:08x} receiver={id:016x} state=done");
            }
            SendEvent::Lost { id, said_so } => {
                log::warn!(
                    "session session={session:08x} receiver={id:016x} said_so={said_so} state=lost"
                );
            }
            SendEvent::Progress {
                rate_bits,
                stats,
                receivers,
                blocks_left,
            } => {
                let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let here = receivers.iter().filter(|receiver| !receiver.gone);
                status.receivers = count(here.count());
                let done = receivers
                    .iter()
                    .filter(|receiver| receiver.phase == Phase::Done);
                status.receivers_done = count(done.count());
                status.rate_bits = rate_bits;
                status.sent_bytes = stats.datagram_bytes;
                status.source_symbols = stats.source_symbols;
                status.repair_symbols = stats.repair_symbols;
                status.blocks_left = blocks_left;
                // Only sessions want the part that it gives back.
                self.desk.iter().for_each(|desk| desk.tend());
            }
        }
    }
}

/// An error with its causes in one line.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
