//! What a person has to decide before a disk is sealed.

use crate::partition::Partition;
use crate::scan::{Refusal, Scan};
use crate::scope::PartitionSet;
use crate::seal::{SealError, SealOptions};
use crate::source::Source;

/// Refuses what is not safe to capture, and wishes that cannot be met.
pub(super) fn check_consent(found: &Scan, options: &SealOptions) -> Result<(), SealError> {
    let there: Vec<u32> = found.partitions.iter().map(|p| p.number).collect();
    if let Some(number) = options.whole.absent(&there) {
        return Err(SealError::NoPartition { number, there });
    }
    let only = options.only.iter().flat_map(PartitionSet::iter);
    if let Some(number) = only.into_iter().find(|number| !there.contains(number)) {
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

/// Gives back what was found before reading, if tables and places are the same after it.
pub(super) fn unchanged(before: Scan, after: &Scan) -> Result<Scan, SealError> {
    let same = before.tables == after.tables && same_places(&before.partitions, &after.partitions);
    if same {
        Ok(before)
    } else {
        Err(SealError::Changed)
    }
}

/// What a person should know of the way the source is read.
pub(super) fn told_of_source(source: &Source) -> Vec<String> {
    let Some(disk) = source.disk() else {
        return Vec::new();
    };
    let in_use = |usage| format!("the source is in use and may change under our hands: {usage}");
    let mut notes: Vec<String> = disk.usage().map(in_use).into_iter().collect();
    notes.extend_from_slice(disk.notes());
    notes
}

/// What a person should know of what was found.
pub(super) fn told(found: Scan) -> Vec<String> {
    let mut notes = found.notes;
    notes.extend(found.refusals.into_iter().map(|refusal| {
        let Refusal {
            place,
            found,
            remedy,
            ..
        } = refusal;
        format!("{place} is kept as it is, though {found}; next time, {remedy}")
    }));
    notes
}

/// Whether the same partitions lie in the same places.
fn same_places(before: &[Partition], after: &[Partition]) -> bool {
    let places = |list: &[Partition]| {
        list.iter()
            .map(|p| (p.number, p.start_bytes, p.bytes))
            .collect::<Vec<_>>()
    };
    places(before) == places(after)
}
