//! How do blocks of bytes reach everybody over a lossy network?
//!
//! Two state machines without input or output ([`Sender`], [`Receiver`]) speak the protocol of
//! `docs/PROTOCOL.md`; forward error correction is behind [`Fec`], and what a block means is behind
//! [`BlockSource`] and [`BlockSink`]. The driver joins them to sockets, threads and clocks.

mod bits;
mod block;
mod clock;
mod driver;
mod family;
mod fec;
mod guard;
mod igmp;
mod interface;
mod keys;
mod querier;
mod receiver;
mod seal;
mod sender;
mod udp;
mod wire;

pub use block::{
    BlockId, BlockSink, BlockSource, Layout, LayoutError, MAX_PREAMBLE_BYTES, ObjectId, SinkError,
    Start, Verdict,
};
pub use clock::Instant;
pub use driver::{
    Audience, Bypass, Detour, DetourError, DetourReport, RateBudget, RateChange, RateShare,
    ReceiveConfig, ReceiveError, ReceiveEvent, ReceiveReport, SendConfig, SendError, SendEvent,
    SendReport, random_session, receive, receive_beside, send,
};
pub use driver::{Examination, HeardSession, ask_who_listens, examine, probe};
pub use family::Family;
pub use fec::{FIRST_REPAIR, Fec, FecError, MAX_REPAIR, MAX_SOURCE, ReedSolomon};
#[cfg(feature = "sabotage")]
pub use guard::Sabotage;
pub use guard::{GUARDS, Guard};
pub use igmp::{GroupRecord, Igmp, IgmpError};
pub use interface::{Interface, InterfaceChoice, InterfaceError, InterfaceList};
pub use keys::{KeyError, SigningKey, VerifyKey};
pub use querier::{Querier, QuerierConfig};
pub use receiver::{
    Blockage, Health, MAX_NAME_BYTES, Obstacle, Parcel, Receiver, ReceiverConfig, ReceiverError,
    ReceiverEvent, ReceiverStats,
};
pub use seal::{
    AgentKey, HandoverError, Membership, ReportKey, ReportSecret, SenderSeal, SessionKey, Suite,
};
pub use sender::{
    Destination, MAX_SYMBOL_BYTES, MIN_SYMBOL_BYTES, Rate, RateReason, ReceiverInfo, Sender,
    SenderConfig, SenderError, SenderEvent, SenderStats, StartRule, symbol_bytes_for_mtu,
};
pub use wire::{
    Announce, DATA_OVERHEAD, Data, Kind, MAX_ACKED, MAX_RUNS, MAX_SERVED, Phase, Report, Run,
    SEALED_OVERHEAD, Served, WHOLE, WireError,
};
