//! The sending run loop: from blocks on a disk to batches of datagrams on a wire.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::Duration,
};

use thiserror::Error;

use super::ticks::Ticks;
use crate::{
    block::{BlockId, BlockSource, ObjectId},
    family::Family,
    fec::ReedSolomon,
    interface::{Interface, InterfaceChoice, InterfaceError},
    keys::{SigningKey, VerifyKey},
    seal::SenderSeal,
    sender::{
        Rate, RateReason, ReceiverInfo, Sender, SenderConfig, SenderError, SenderStats, StartRule,
        symbol_bytes_for_mtu,
    },
    udp::Endpoint,
};

mod budget;
mod run;
mod tempo;

use run::Run;
use tempo::Tempo;

pub use budget::{RateBudget, RateShare};

/// Blocks asked for and not yet sent on; the state machine keeps fewer open.
const SOURCE_QUEUE: usize = 64;
/// Hops of what no router passes on.
const LINK_ONLY: u32 = 1;

/// Whom a session is for: when these are ready, the payload begins to flow.
#[derive(Clone, Debug)]
pub enum Audience {
    /// So many machines, whoever they are. The number may be lowered while the session waits, when it
    /// turns out that some will never come. Zero from the first: the payload is sent once to whoever listens.
    Count(Arc<AtomicU32>),
    /// The machines of these names. The session ends when all of them are done.
    Named(BTreeSet<String>),
}

impl Audience {
    /// So many machines, now and for good.
    pub fn of(machines: u32) -> Audience {
        Audience::Count(Arc::new(AtomicU32::new(machines)))
    }

    /// How many machines that are.
    pub fn len(&self) -> u32 {
        match self {
            Audience::Count(machines) => machines.load(Ordering::Relaxed),
            Audience::Named(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether nobody is waited for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Everything a session is sent with.
#[derive(Debug)]
pub struct SendConfig {
    /// The interface it leaves by.
    pub interface: InterfaceChoice,
    /// Multicast group and port.
    pub group: SocketAddr,
    /// How many routers the datagrams may pass, plus one.
    pub ttl: u32,
    /// Whether receivers on this machine hear it too.
    pub loopback: bool,
    /// How fast, on the wire, Ethernet headers included.
    pub rate: Rate,
    /// A cap that this session keeps together with others.
    pub budget: Option<RateBudget>,
    /// Payload bytes of a datagram; `None` takes what the interface's MTU carries whole.
    pub symbol_bytes: Option<u16>,
    /// Number of this session, see [`random_session`](crate::random_session).
    pub session: u32,
    /// What is being sent.
    pub object_id: ObjectId,
    /// Signs the announces.
    pub signing_key: SigningKey,
    /// Seals every datagram, if it is there.
    pub seal: Option<SenderSeal>,
    /// Whom it is for.
    pub audience: Audience,
    /// The payload begins to flow at the latest this long after the first machine was heard.
    pub wait: Duration,
    /// The session ends when every known machine is done and none was heard for this long.
    pub linger: Duration,
}

/// What an observer of [`send`] hears.
#[derive(Clone, Debug)]
pub enum SendEvent {
    /// The socket is open; announces go out.
    Open {
        /// The interface chosen.
        interface: Interface,
        /// Where reports are taken.
        address: SocketAddr,
        /// Payload bytes of a datagram.
        symbol_bytes: u16,
        /// Whether every datagram is sealed.
        sealed: bool,
        /// Who wants to be sure needs this key.
        verify_key: VerifyKey,
    },
    /// An announce was sent. Machines that multicast does not reach can be given it another way.
    Announced {
        /// The datagram.
        datagram: Vec<u8>,
    },
    /// A machine was heard for the first time.
    Joined {
        /// Its number.
        id: u64,
        /// Its name.
        name: String,
    },
    /// A machine knows what it lacks.
    Ready {
        /// Its number.
        id: u64,
        /// Blocks it lacks.
        wanted: u32,
    },
    /// The payload begins to flow.
    Started {
        /// Machines that are ready.
        ready: u32,
    },
    /// A machine has everything.
    Done {
        /// Its number.
        id: u64,
    },
    /// A machine went without being done.
    Lost {
        /// Its number.
        id: u64,
        /// Whether it said so itself.
        said_so: bool,
    },
    /// The automatic rate is another one now. Told at most twice a second.
    Rate(RateChange),
    /// Twice a second.
    Progress {
        /// The present rate, in bits per second on the wire.
        rate_bits: u64,
        /// Counters so far.
        stats: SenderStats,
        /// Every machine ever heard.
        receivers: Vec<ReceiverInfo>,
        /// Blocks that somebody lacks still, as far as is known.
        blocks_left: u32,
    },
}

/// A change of the automatic rate.
#[derive(Clone, Debug, PartialEq)]
pub struct RateChange {
    /// From the first announce to the change.
    pub at: Duration,
    /// Bits per second on the wire from then on.
    pub bits: u64,
    /// Why.
    pub reason: RateReason,
}

/// How a session went.
#[derive(Clone, Debug)]
pub struct SendReport {
    /// The rate in the end, in bits per second on the wire.
    pub rate_bits: u64,
    /// The last changes of an automatic rate, at most [`SendReport::MAX_RATE_CHANGES`].
    pub rate_changes: Vec<RateChange>,
    /// From the first announce to the last.
    pub took: Duration,
    /// Counters.
    pub stats: SenderStats,
    /// Bytes on the wire: datagrams with their UDP, IP and Ethernet headers.
    pub wire_bytes: u64,
    /// Every machine ever heard.
    pub receivers: Vec<ReceiverInfo>,
}

impl SendReport {
    /// Changes of the rate that are remembered: two minutes of a restless room, hours of a quiet one.
    pub const MAX_RATE_CHANGES: usize = 256;
}

/// Why a session could not be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// No interface, or more than one.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The group is not a multicast address.
    #[error("{0} is no multicast group; choose one of 239.0.0.0/8, or of ff15::/16 for IPv6")]
    Group(SocketAddr),
    /// The socket could not be made.
    #[error("opening a socket on {interface} for {group}")]
    Open {
        /// The interface chosen.
        interface: Interface,
        /// The group.
        group: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// What is being sent cannot be sent.
    #[error("the session cannot be sent")]
    Session(#[from] SenderError),
    /// The source failed.
    #[error("reading block {}", block.index())]
    Read {
        /// Which block.
        block: BlockId,
        /// Why.
        source: io::Error,
    },
    /// The network failed for longer than an outage may last.
    #[error("the network does not take datagrams any more")]
    Network(#[source] io::Error),
    /// `stop` was set.
    #[error("interrupted")]
    Interrupted,
}

/// Sends `source` to everybody who listens, until all who were heard are done.
///
/// Blocks; reading happens on a thread of its own. `stop` ends the session early: machines are told.
///
/// # Errors
/// See [`SendError`]. Machines that were lost are no error but part of the report.
pub fn send(
    config: SendConfig,
    mut source: impl BlockSource,
    mut observer: impl FnMut(SendEvent),
    stop: &AtomicBool,
) -> Result<SendReport, SendError> {
    let group = config.group;
    if !group.ip().is_multicast() {
        return Err(SendError::Group(group));
    }
    let family = Family::of(&group);
    let interface = Interface::choose(&config.interface, family)?;
    let interface = match config.ttl {
        LINK_ONLY => interface.on_its_link()?,
        _ => interface,
    };
    let failed = |source| SendError::Open {
        interface: interface.clone(),
        group,
        source,
    };
    let endpoint = Endpoint::sender(&interface, config.ttl, config.loopback);
    let endpoint = endpoint.map_err(failed)?;
    let address = endpoint.local_address().map_err(failed)?;
    let mtu = Endpoint::mtu_towards(&interface, group).map_err(failed)?;
    let symbol_bytes = config
        .symbol_bytes
        .unwrap_or_else(|| symbol_bytes_for_mtu(mtu, family, config.seal.is_some()));
    observer(SendEvent::Open {
        interface: interface.clone(),
        address,
        symbol_bytes,
        sealed: config.seal.is_some(),
        verify_key: config.signing_key.verify_key(),
    });

    let ticks = Ticks::start();
    let sender_config = SenderConfig {
        session: config.session,
        object_id: config.object_id,
        signing_key: config.signing_key,
        seal: config.seal,
        reply_to: Some(address),
        symbol_bytes,
        rate: config.rate,
        start: StartRule {
            receivers: config.audience.len(),
            wait: config.wait,
        },
        linger: config.linger,
    };
    let layout = source.layout().clone();
    let mut sender = Sender::new(
        ticks.now(),
        sender_config,
        source.preamble(),
        layout,
        ReedSolomon::new(),
    )?;
    if let Audience::Named(names) = &config.audience {
        sender.name(names.iter().cloned());
    }
    thread::scope(|scope| {
        let (requests, wanted) = sync_channel::<BlockId>(SOURCE_QUEUE);
        let (answer, answers) = sync_channel(SOURCE_QUEUE);
        scope.spawn(move || {
            // Ends with the run: it drops its end of the queues.
            for block in wanted {
                let mut payload = Vec::new();
                let read = source.read_block(block, &mut payload).map(|()| payload);
                if answer.send((block, read)).is_err() {
                    return;
                }
            }
        });
        let share = config.budget.as_ref().map(RateBudget::share);
        let tempo = Tempo::new(share);
        let run = Run::new(sender, endpoint, group, tempo, ticks, (requests, answers));
        run.run(&mut observer, &config.audience, stop)
    })
}
