//! The receiving run loop: from datagrams on a wire to blocks in a sink.

use std::{io, net::SocketAddr, sync::atomic::AtomicBool, thread, time::Duration};

use thiserror::Error;

use super::{
    chance,
    detour::{Bypass, DetourError, DetourReport},
    igmp::Reminder,
    ticks::Ticks,
};
use crate::{
    block::{BlockSink, ObjectId},
    family::Family,
    fec::ReedSolomon,
    interface::{Interface, InterfaceChoice, InterfaceError},
    keys::{KeyError, VerifyKey},
    receiver::{Blockage, Obstacle, Receiver, ReceiverConfig, ReceiverError, ReceiverStats},
    seal::Membership,
    udp::Endpoint,
};

mod courier;
mod decoder;
mod detour;
mod run;

use courier::Courier;
use detour::Detour;
use run::Run;

/// Everything a session is received with.
#[derive(Clone, Debug)]
pub struct ReceiveConfig {
    /// The interface it comes in by.
    pub interface: InterfaceChoice,
    /// Multicast group and port.
    pub group: SocketAddr,
    /// Name of this machine for people, at most [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES).
    pub name: String,
    /// Take only this session, or the first that fits.
    pub session: Option<u32>,
    /// Believe only announces of this key, or the key of the first announce that fits.
    pub verify_key: Option<VerifyKey>,
    /// Take only a session sealed with these keys, or only one that is not sealed.
    pub membership: Option<Membership>,
    /// Take only this object, or whatever the session sends.
    pub object_id: Option<ObjectId>,
    /// How long to look for a session; `None`: for ever.
    pub search: Option<Duration>,
    /// The session counts as lost when its sender has not been heard for this long.
    pub silence: Duration,
    /// Whether the kernel may hand over several datagrams merged to one (UDP_GRO).
    pub merging: bool,
    /// How often the switch is told again, unasked, that this machine listens; `None`: never. Needs root, and IPv4.
    pub remind: Option<Duration>,
}

/// What an observer of [`receive`] hears.
#[derive(Clone, Debug)]
pub enum ReceiveEvent {
    /// The group is joined; looking for a session.
    Open {
        /// The interface chosen.
        interface: Interface,
    },
    /// A session is announced that this machine cannot join.
    Obstacle(Obstacle),
    /// A session was found.
    Joined {
        /// Its number.
        session: u32,
        /// What it sends.
        object_id: ObjectId,
        /// The key it is signed with.
        verify_key: VerifyKey,
    },
    /// The preamble is here; the sink finds out what it lacks.
    Surveying,
    /// The sink knows what it lacks.
    Surveyed {
        /// Blocks of the object.
        blocks: u32,
        /// Blocks that are wanted.
        wanted: u32,
    },
    /// Multicast does not reach this machine (any more).
    Blocked {
        /// In which way it fails.
        reason: Blockage,
    },
    /// What multicast does not bring cannot be had the other way either, or not yet.
    Detour {
        /// Why.
        trouble: DetourError,
    },
    /// Multicast is back.
    Unblocked,
    /// Every block is here; the sink makes them final.
    Settling,
    /// Everything is here and final; the sender is told.
    Complete,
    /// Twice a second.
    Progress {
        /// Counters so far.
        stats: ReceiverStats,
        /// Blocks still lacking.
        lacking: u32,
        /// Bytes that the sink has and has not judged.
        backlog_bytes: u64,
    },
}

/// How a session went.
#[derive(Clone, Debug)]
pub struct ReceiveReport {
    /// The session.
    pub session: u32,
    /// What it sent.
    pub object_id: ObjectId,
    /// From the first announce to the moment everything was final.
    pub took: Duration,
    /// Counters.
    pub stats: ReceiverStats,
    /// Bytes of everything heard: datagrams with their UDP, IP and Ethernet headers.
    pub wire_bytes: u64,
    /// Datagrams the kernel dropped because nobody read in time.
    pub overflow: u32,
    /// What came another way than by multicast, and why.
    pub detour: Option<DetourReport>,
}

/// Why a session was not received.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// No interface, or more than one.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The group is not a multicast address.
    #[error("{0} is no multicast group; choose one of 239.0.0.0/8, or of ff15::/16 for IPv6")]
    Group(SocketAddr),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] KeyError),
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
    /// No announce came in time.
    #[error(
        "no session heard on {group} at {interface} within {} s ({datagrams} datagrams came): {}",
        searched.as_secs(), advice(*obstacle)
    )]
    NoSession {
        /// The interface chosen.
        interface: Interface,
        /// The group.
        group: SocketAddr,
        /// How long it was looked for.
        searched: Duration,
        /// Datagrams that came all the same.
        datagrams: u64,
        /// What kept this machine from joining the session it heard, if it heard one.
        obstacle: Option<Obstacle>,
    },
    /// The session did not work out.
    #[error(transparent)]
    Session(#[from] ReceiverError),
    /// Reading from the network failed.
    #[error("reading from the network")]
    Network(#[source] io::Error),
    /// No thread could be started.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
    /// `stop` was set.
    #[error("interrupted")]
    Interrupted,
}

/// What to do when no session is found.
fn advice(obstacle: Option<Obstacle>) -> String {
    obstacle.map_or_else(
        || "is the sender running, and does multicast pass the switch?".to_owned(),
        |obstacle| obstacle.to_string(),
    )
}

/// Receives a session into `sink`, until everything is final and the sender knows.
///
/// Blocks. [`BlockSink::begin`] runs on a thread of its own and is waited for even after `stop`; everything else
/// of the sink is called from here and must not wait.
///
/// # Errors
/// See [`ReceiveError`].
pub fn receive(
    config: ReceiveConfig,
    sink: impl BlockSink,
    observer: impl FnMut(ReceiveEvent),
    stop: &AtomicBool,
) -> Result<ReceiveReport, ReceiveError> {
    receive_beside(config, None, sink, observer, stop)
}

/// As [`receive`]; and as long as multicast does not reach this machine, what lacks comes by `bypass`.
///
/// # Errors
/// See [`ReceiveError`]. Whatever is wrong with the other way is an event, not an error.
pub fn receive_beside(
    config: ReceiveConfig,
    bypass: Option<Bypass>,
    sink: impl BlockSink,
    mut observer: impl FnMut(ReceiveEvent),
    stop: &AtomicBool,
) -> Result<ReceiveReport, ReceiveError> {
    let group = config.group;
    if !group.ip().is_multicast() {
        return Err(ReceiveError::Group(group));
    }
    let interface = Interface::choose(&config.interface, Family::of(&group))?;
    let endpoint = Endpoint::receiver(&interface, group, config.merging);
    let endpoint = endpoint.map_err(|source| ReceiveError::Open {
        interface: interface.clone(),
        group,
        source,
    })?;
    let receiver_config = ReceiverConfig {
        id: chance::random_id()?,
        name: config.name,
        session: config.session,
        verify_key: config.verify_key,
        membership: config.membership,
        object_id: config.object_id,
        silence: config.silence,
        chance: Box::new(chance::sequence()?),
    };
    let reminder = match group {
        SocketAddr::V4(group) => config
            .remind
            .map(|every| Reminder::start(&interface, *group.ip(), every)),
        // The kernel tells of IPv6 groups (MLD) when it joins them and when it is asked.
        SocketAddr::V6(_) => None,
    };
    if let Some(Err(error)) = &reminder {
        log::info!("igmp reminder=off reason=\"{error}\"");
    }
    observer(ReceiveEvent::Open {
        interface: interface.clone(),
    });
    let ticks = Ticks::start();
    let receiver = Receiver::new(ticks.now(), receiver_config, ReedSolomon::new());
    let courier = bypass.map(Courier::start).transpose();
    let detour = Detour::new(courier.map_err(ReceiveError::Thread)?);
    thread::scope(|scope| {
        let mut run = Run::new(scope, receiver, endpoint, ticks, sink, detour);
        run.run(config.search, &mut observer, stop)
            .map_err(|error| match error {
                run::RunError::NoSession {
                    searched,
                    datagrams,
                    obstacle,
                } => ReceiveError::NoSession {
                    interface,
                    group,
                    searched,
                    datagrams,
                    obstacle,
                },
                run::RunError::Session(error) => ReceiveError::Session(error),
                run::RunError::Network(source) => ReceiveError::Network(source),
                run::RunError::Interrupted => ReceiveError::Interrupted,
            })
    })
}
