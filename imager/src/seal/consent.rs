//! What a person has to decide before a disk is sealed.

use crate::partition::Partition;
use crate::scan::{Refusal, Scan};
use crate::seal::{SealError, SealOptions};

/// Refuses what is not safe to capture, and wishes that cannot be met.
pub(super) fn check_consent(found: &Scan, options: &SealOptions) -> Result<(), SealError> {
    let there: Vec<u32> = found.partitions.iter().map(|p| p.number).collect();
    if let Some(number) = options.whole.absent(&there) {
        return Err(SealError::NoPartition { number, there });
    }
    // Who wants every byte has consented.
    if options.used_only && !found.refusals.is_empty() {
        let partitions = found.refusals.clone();
        return Err(SealError::Unsafe { partitions });
    }
    Ok(())
}

pub(super) fn sentences(refusals: &[Refusal]) -> String {
    let list: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    list.join(". And ")
}

pub(super) fn numbers(there: &[u32]) -> String {
    let list: Vec<String> = there.iter().map(u32::to_string).collect();
    list.join(", ")
}

/// Whether the same partitions lie in the same places.
pub(super) fn same_places(before: &[Partition], after: &[Partition]) -> bool {
    let places = |list: &[Partition]| {
        list.iter()
            .map(|p| (p.number, p.start_bytes, p.bytes))
            .collect::<Vec<_>>()
    };
    places(before) == places(after)
}
