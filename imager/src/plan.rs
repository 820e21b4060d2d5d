//! The plan: which frames travel together as one block.
//!
//! A block is consecutive *sent* frames as they are stored, one after the other. Packing looks at
//! sizes only, so sender and receivers find the same plan from the same manifest.

use std::ops::Range;

use crate::id::FrameId;
use crate::manifest::Manifest;

/// A block takes another frame only while it stays within this, bytes: 1024 symbols of 1420 bytes
/// (AEAD over IPv6 at MTU 1500, the smallest symbol there is), because the cost of the
/// error-correcting code steps up at each power of two. One frame alone always fits.
pub const BLOCK_BYTES_MAX: u32 = 1024 * 1420;

/// Most frames in a block, so that well-compressed frames do not make one block gigabytes of disk.
pub const BLOCK_FRAMES_MAX: usize = 512;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBlock {
    /// Its frames, as indices into the sent frames of the manifest.
    pub frames: Range<usize>,
    /// Size of its payload, bytes.
    pub bytes: u32,
}

/// How the sent frames of an image are packed into blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    sent: Vec<FrameId>,
    stored_bytes: Vec<u32>,
    blocks: Vec<PlanBlock>,
}

impl Plan {
    /// The plan of the image with this manifest.
    pub fn new(manifest: &Manifest) -> Plan {
        let sent = manifest.sent().to_vec();
        let stored_bytes: Vec<u32> = sent
            .iter()
            .map(|&frame| manifest.stored_bytes(frame))
            .collect();
        let mut blocks: Vec<PlanBlock> = Vec::new();
        for (index, &stored) in stored_bytes.iter().enumerate() {
            match blocks.last_mut() {
                Some(last)
                    if last.bytes + stored <= BLOCK_BYTES_MAX
                        && last.frames.len() < BLOCK_FRAMES_MAX =>
                {
                    last.frames.end += 1;
                    last.bytes += stored;
                }
                _ => blocks.push(PlanBlock {
                    frames: index..index + 1,
                    bytes: stored,
                }),
            }
        }
        Plan {
            sent,
            stored_bytes,
            blocks,
        }
    }

    /// All blocks, in the order of the disk.
    pub fn blocks(&self) -> &[PlanBlock] {
        &self.blocks
    }

    /// The frames of block number `block`; none when there is no such block.
    pub fn frames(&self, block: u32) -> &[FrameId] {
        self.blocks
            .get(block as usize)
            .map_or(&[], |found| &self.sent[found.frames.clone()])
    }

    /// The block that carries `frame`; none when the frame is not sent.
    pub fn block_of(&self, frame: FrameId) -> Option<u32> {
        let index = self.sent.binary_search(&frame).ok()?;
        Some(
            self.blocks
                .partition_point(|block| block.frames.end <= index) as u32,
        )
    }

    /// Cuts the payload of block number `block` into its stored frames; none when the payload is
    /// not as long as the block.
    pub fn split<'a>(&'a self, block: u32, payload: &'a [u8]) -> Option<Vec<(FrameId, &'a [u8])>> {
        let found = self
            .blocks
            .get(block as usize)
            .filter(|b| b.bytes as usize == payload.len())?;
        let mut rest = payload;
        let frames = found.frames.clone().map(|index| {
            let (stored, after) = rest.split_at(self.stored_bytes[index] as usize);
            rest = after;
            (self.sent[index], stored)
        });
        Some(frames.collect())
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.bytes)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::any_manifest;

    proptest! {
        #[test]
        fn every_sent_frame_is_in_exactly_its_block(manifest in any_manifest()) {
            let plan = Plan::new(&manifest);
            let mut seen = Vec::new();
            for (number, block) in plan.blocks().iter().enumerate() {
                let frames = plan.frames(number as u32);
                prop_assert!(!frames.is_empty() && frames.len() <= BLOCK_FRAMES_MAX);
                prop_assert!(frames.len() == 1 || block.bytes <= BLOCK_BYTES_MAX);
                let bytes: u32 = frames.iter().map(|&frame| manifest.stored_bytes(frame)).sum();
                prop_assert_eq!(bytes, block.bytes);
                prop_assert!(frames.iter().all(|&frame| plan.block_of(frame) == Some(number as u32)));
                seen.extend_from_slice(frames);
            }
            prop_assert_eq!(&seen[..], manifest.sent());
            for frame in (0..manifest.frame_count()).map(FrameId) {
                prop_assert_eq!(plan.block_of(frame).is_some(), manifest.is_sent(frame));
            }
        }

        #[test]
        fn a_payload_is_cut_where_its_frames_end(manifest in any_manifest()) {
            let plan = Plan::new(&manifest);
            for number in 0..plan.blocks().len() as u32 {
                let payload = vec![7u8; plan.blocks()[number as usize].bytes as usize];
                let pieces = plan.split(number, &payload).unwrap();
                prop_assert!(pieces.iter().all(|(f, stored)| stored.len() == manifest.stored_bytes(*f) as usize));
                prop_assert_eq!(plan.split(number, &payload[1..]), None);
            }
        }
    }
}
