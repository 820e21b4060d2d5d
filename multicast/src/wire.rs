//! The datagrams, byte for byte. `docs/PROTOCOL.md` has the same tables for people.

/// How far a machine is, as it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is fetching the preamble.
    Joining,
    /// It has the preamble and is finding out what it lacks.
    Surveying,
    /// It lacks blocks.
    Receiving,
    /// It has every block and is making them final.
    Settling,
    /// It is done.
    Done,
    /// It gives up.
    Leaving,
}

/// Bytes that a data datagram has beside its symbol: header and CRC32.
pub const DATA_OVERHEAD: usize = 16 + 4;
