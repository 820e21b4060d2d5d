//! Blocks, the unit of forward error correction, and the two traits at the ends of a transfer:
//! who provides blocks and who consumes them.
//!
//! A block is opaque here. What its bytes mean is between the one who cut it and the one who eats it.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Index of a block. The high bit marks a block of the preamble, see [`BlockId::preamble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

impl BlockId {
    const PREAMBLE: u32 = 1 << 31;

    /// The `index`-th block of the preamble.
    pub const fn preamble(index: u32) -> BlockId {
        BlockId(index | BlockId::PREAMBLE)
    }

    /// Whether this block belongs to the preamble.
    pub const fn is_preamble(self) -> bool {
        self.0 & BlockId::PREAMBLE != 0
    }

    /// Index within the payload or within the preamble.
    pub const fn index(self) -> u32 {
        self.0 & !BlockId::PREAMBLE
    }
}

/// Why a list of block sizes is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// More than [`Layout::MAX_BLOCKS`].
    #[error(
        "{blocks} blocks are more than the {} a session can carry",
        Layout::MAX_BLOCKS
    )]
    TooMany {
        /// Blocks asked for.
        blocks: usize,
    },
    /// Empty or longer than [`Layout::MAX_BLOCK_BYTES`].
    #[error(
        "block {index} has {bytes} bytes; it may have 1 to {}",
        Layout::MAX_BLOCK_BYTES
    )]
    Size {
        /// Which block.
        index: u32,
        /// Its bytes.
        bytes: u32,
    },
}

/// The payload bytes of every block of a session, checked at the door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Shared: a sender, its tables and a room of simulated machines all hold the same list.
    blocks: Arc<[u32]>,
}

impl Layout {
    /// Most blocks of one session: over 4 TB of compressed image.
    pub const MAX_BLOCKS: usize = 1 << 22;
    /// Longest block, in bytes. Blocks of 1 to 2 MB are meant; a few incompressible frames may overshoot.
    pub const MAX_BLOCK_BYTES: u32 = 4 << 20;

    /// Checks the number and the sizes of `blocks`. An empty layout is valid: there is nothing to send.
    pub fn new(blocks: Vec<u32>) -> Result<Layout, LayoutError> {
        if blocks.len() > Layout::MAX_BLOCKS {
            return Err(LayoutError::TooMany {
                blocks: blocks.len(),
            });
        }
        let wrong = blocks
            .iter()
            .position(|&bytes| bytes == 0 || bytes > Layout::MAX_BLOCK_BYTES);
        match wrong {
            Some(at) => Err(LayoutError::Size {
                index: at as u32,
                bytes: blocks[at],
            }),
            None => Ok(Layout {
                blocks: blocks.into(),
            }),
        }
    }

    /// The blocks of a preamble: equal ones of about the size of payload blocks, the last shorter.
    /// Both ends cut it alike, knowing only its length and the symbol size.
    pub(crate) fn of_preamble(preamble_bytes: u32, symbol_bytes: u16) -> Layout {
        const TARGET_BYTES: u32 = 3 << 19;
        let symbol_bytes = u32::from(symbol_bytes);
        let block_bytes = (TARGET_BYTES / symbol_bytes).min(1024) * symbol_bytes;
        let whole = (preamble_bytes / block_bytes) as usize;
        let mut blocks = vec![block_bytes; whole];
        blocks.extend(Some(preamble_bytes % block_bytes).filter(|&rest| rest > 0));
        Layout {
            blocks: blocks.into(),
        }
    }

    /// Source symbols of block `index`, or `None` beyond the last.
    pub(crate) fn symbols(&self, index: u32, symbol_bytes: u16) -> Option<u16> {
        // A block of MAX_BLOCK_BYTES has 8192 symbols of the smallest size.
        self.bytes(index)
            .map(|bytes| bytes.div_ceil(u32::from(symbol_bytes)) as u16)
    }

    /// Number of blocks.
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Payload bytes of block `index`, or `None` beyond the last.
    pub fn bytes(&self, index: u32) -> Option<u32> {
        self.blocks.get(index as usize).copied()
    }

    /// Payload bytes of all blocks together.
    pub fn total_bytes(&self) -> u64 {
        self.blocks.iter().map(|&bytes| u64::from(bytes)).sum()
    }
}

/// Who provides blocks: the sending end.
pub trait BlockSource: Send {
    /// What every receiver must know before it can judge a block (for an image, its manifest).
    /// Opaque here; at most [`MAX_PREAMBLE_BYTES`].
    fn preamble(&self) -> &[u8];

    /// Sizes of all blocks.
    fn layout(&self) -> &Layout;

    /// Appends the payload of `block` to `payload`: exactly `layout().bytes(block)` bytes.
    /// Blocks are asked for in any order and more than once.
    fn read_block(&mut self, block: BlockId, payload: &mut Vec<u8>) -> io::Result<()>;
}

/// Longest preamble a session carries, in bytes.
pub const MAX_PREAMBLE_BYTES: u32 = 64 << 20;

/// What a sink learned from the preamble: how the payload is cut, and what it still lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Sizes of all blocks.
    pub layout: Layout,
    /// One flag per block: `true` when the block is wanted. All false means done before it began.
    pub wanted: Vec<bool>,
}

/// What a sink says about a block after it looked inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The block is right and safe; it is not wanted any more.
    Accepted(BlockId),
    /// The block is wrong, or read back wrong later: it is wanted (again).
    Rejected(BlockId),
    /// The answer to [`BlockSink::settle`]: everything accepted so far is final.
    Settled,
}

/// Why a sink cannot begin, in plain words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// Who consumes blocks: the receiving end. Only [`begin`](BlockSink::begin) may take long.
pub trait BlockSink: Send {
    /// Parses the preamble (its hash is `object`), and finds out what is lacking.
    /// May take minutes (it surveys a disk): drivers call it on a thread of its own.
    fn begin(&mut self, preamble: &[u8], object: &ObjectId) -> Result<Start, SinkError>;

    /// Takes the whole payload of a block. Called only after [`has_room`](BlockSink::has_room) said yes.
    fn deliver(&mut self, block: BlockId, payload: Vec<u8>);

    /// Every wanted block was accepted: make it final (flush, read back). The answer is
    /// [`Verdict::Settled`], perhaps after some [`Verdict::Rejected`]; then `settle` comes again later.
    fn settle(&mut self);

    /// The next verdict, if one is ready. Never waits.
    fn poll_verdict(&mut self) -> Option<Verdict>;

    /// Why the sink cannot go on (a broken disk), once; the transfer ends with it.
    fn poll_failure(&mut self) -> Option<String>;

    /// Memory of a payload that the sink has done with, for blocks to come. Never waits.
    fn reclaim(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Payload bytes delivered and not yet judged.
    fn backlog_bytes(&self) -> u64;

    /// Whether [`deliver`](BlockSink::deliver) would return at once.
    fn has_room(&self) -> bool;
}

/// Name of what is being sent: the BLAKE3 of the preamble.
///
/// A receiver hands on no preamble with another hash, and the preamble is what every block is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_refuses_empty_and_giant_blocks() {
        assert_eq!(
            Layout::new(vec![5, 0]),
            Err(LayoutError::Size { index: 1, bytes: 0 })
        );
        let giant = Layout::MAX_BLOCK_BYTES + 1;
        assert_eq!(
            Layout::new(vec![giant]),
            Err(LayoutError::Size {
                index: 0,
                bytes: giant
            })
        );
        assert_eq!(
            Layout::new(vec![1, 2]).map(|layout| layout.total_bytes()),
            Ok(3)
        );
    }

    #[test]
    fn preamble_blocks_have_ids_of_their_own() {
        let id = BlockId::preamble(7);
        assert!(id.is_preamble() && id.index() == 7);
        assert!(!BlockId(7).is_preamble());
    }
}
