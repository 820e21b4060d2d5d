//! The root directory: which record belongs to a name in it.
//!
//! The directory is a B-tree of names. It is walked whole from its root, node by node: that takes
//! no table of upper case, and never sees an entry in a node that is no longer in use.

use std::collections::BTreeSet;

use super::file::{ROOT, Stream, Volume};
use super::record::{FILE_NAME, INDEX_ALLOCATION, INDEX_ROOT, Reference, utf16};
use crate::read_at::Fields;
use crate::scan::volume::Obstacle;

/// Most nodes walked: a root directory with some hundred thousand names.
const NODES_MAX: usize = 1 << 13;
const NODE_BYTES: std::ops::RangeInclusive<u64> = 512..=64 << 10;
const ROOT_BYTES_MAX: u64 = 64 << 10;
/// `$I30`, the name of every index of file names.
const NAME: [u16; 4] = [0x24, 0x49, 0x33, 0x30];

const ENTRY_BYTES: usize = 0x10;
const ENTRY_HAS_CHILD: u16 = 1;
const ENTRY_IS_LAST: u16 = 2;
const NAMESPACE_DOS: u8 = 2;

/// The records that the root directory has for each of `names`, which are ASCII; the case of
/// letters does not matter.
pub(super) fn lookup<const N: usize>(
    volume: &Volume<'_>,
    names: [&str; N],
) -> Result<[Vec<Reference>; N], Obstacle> {
    let damaged = || Obstacle::unknown("its root directory is damaged");
    let record = volume.record(ROOT)?;
    let root = volume
        .stream(&record, ROOT, INDEX_ROOT, &NAME)?
        .ok_or_else(damaged)?;
    let root = volume.content(&root, ROOT_BYTES_MAX)?;
    let nodes = volume.stream(&record, ROOT, INDEX_ALLOCATION, &NAME)?;
    let fields = Fields(&root);
    let node_bytes = u64::from(fields.u32(8));
    if !record.is_directory()
        || fields.u32(0) != FILE_NAME
        || !NODE_BYTES.contains(&node_bytes)
        || !node_bytes.is_power_of_two()
    {
        return Err(damaged());
    }
    // Nodes are numbered by the clusters before them, or by sectors when they are smaller.
    let number_bytes = match volume.geometry.cluster_bytes {
        bytes if bytes <= node_bytes => bytes,
        _ => 512,
    };
    let mut found = names.map(|_| Vec::new());
    let mut visited = BTreeSet::new();
    let mut waiting = Vec::new();
    entries(root.get(0x10..).unwrap_or_default(), &mut |entry| {
        entry.note(&names, &mut found, &mut waiting)
    })
    .ok_or_else(damaged)?;
    while let Some(number) = waiting.pop() {
        if !visited.insert(number) || visited.len() > NODES_MAX {
            return Err(Obstacle::unknown("its root directory is too large"));
        }
        let node = read_node(volume, nodes.as_ref(), number, number_bytes, node_bytes)?;
        let node = node.ok_or_else(damaged)?;
        entries(node.get(0x18..).unwrap_or_default(), &mut |entry| {
            entry.note(&names, &mut found, &mut waiting)
        })
        .ok_or_else(damaged)?;
    }
    Ok(found)
}

fn read_node(
    volume: &Volume<'_>,
    nodes: Option<&Stream>,
    number: u64,
    number_bytes: u64,
    node_bytes: u64,
) -> Result<Option<Vec<u8>>, Obstacle> {
    let (Some(nodes), Some(offset)) = (nodes, number.checked_mul(number_bytes)) else {
        return Ok(None);
    };
    let node = volume.fixed(nodes, offset, node_bytes as usize, b"INDX")?;
    Ok(node.filter(|node| Fields(node).u64(0x10) == number))
}

/// An entry of a node: a name, or the end; either may have a node below it.
struct Entry<'a> {
    record: Reference,
    /// A name in the layout of the attribute of that type.
    key: Option<&'a [u8]>,
    child: Option<u64>,
}

/// Gives every entry of a node, which begins with its header, to `each`; none when it is damaged.
fn entries(node: &[u8], each: &mut dyn FnMut(Entry<'_>)) -> Option<()> {
    let header = Fields(node);
    let (start, end) = (header.u32(0) as usize, header.u32(4) as usize);
    let mut rest = node.get(start..end)?;
    loop {
        let fields = Fields(rest);
        let length = usize::from(fields.u16(8));
        let raw = rest.get(..length)?;
        if length < ENTRY_BYTES || !length.is_multiple_of(8) {
            return None;
        }
        let flags = fields.u16(0x0c);
        let child = if flags & ENTRY_HAS_CHILD != 0 {
            let at = length.checked_sub(8).filter(|&at| at >= ENTRY_BYTES)?;
            Some(fields.u64(at))
        } else {
            None
        };
        let last = flags & ENTRY_IS_LAST != 0;
        let key = raw[ENTRY_BYTES..].get(..usize::from(fields.u16(0x0a)))?;
        each(Entry {
            record: Reference::parse(fields.u64(0)),
            key: (!last).then_some(key),
            child,
        });
        if last {
            return Some(());
        }
        rest = &rest[length..];
    }
}

impl Entry<'_> {
    fn note<const N: usize>(
        self,
        names: &[&str; N],
        found: &mut [Vec<Reference>; N],
        waiting: &mut Vec<u64>,
    ) {
        // A chain of nodes that names none twice holds no more than it has nodes.
        if waiting.len() <= NODES_MAX {
            waiting.extend(self.child);
        }
        let Some(key) = self.key else { return };
        for (name, records) in names.iter().zip(found) {
            if is_named(key, name) && !records.contains(&self.record) {
                records.push(self.record);
            }
        }
    }
}

/// Whether the file name attribute `key` says `name`; a short name beside a long one does not count.
pub(super) fn is_named(key: &[u8], name: &str) -> bool {
    let fields = Fields(key);
    let units = utf16(fields.bytes(0x42, 2 * usize::from(fields.u8(0x40))));
    fields.u8(0x41) != NAMESPACE_DOS
        && units.len() == name.len()
        && units.iter().zip(name.bytes()).all(|(&unit, wanted)| {
            u8::try_from(unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&wanted))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, namespace: u8) -> Vec<u8> {
        let mut key = vec![0; 0x42];
        key[0x40] = name.len() as u8;
        key[0x41] = namespace;
        key.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        key
    }

    #[test]
    fn the_case_of_a_name_does_not_matter_and_its_namespace_does() {
        assert!(is_named(&key("Pagefile.SYS", 3), "pagefile.sys"));
        assert!(is_named(&key("pagefile.sys", 0), "pagefile.sys"));
        assert!(!is_named(
            &key("PAGEFILE.SYS", NAMESPACE_DOS),
            "pagefile.sys"
        ));
        assert!(!is_named(&key("pagefile.sy", 3), "pagefile.sys"));
        assert!(!is_named(&key("pagefile.sys", 3)[..0x50], "pagefile.sys"));
        assert!(!is_named(&[], "pagefile.sys"));
    }

    #[test]
    fn a_damaged_node_gives_no_entries() {
        let mut node = vec![0x10, 0, 0, 0, 0x28, 0, 0, 0, 0x28, 0, 0, 0, 1, 0, 0, 0];
        node.extend([
            0, 0, 0, 0, 0, 0, 0, 0, 0x18, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let children = |node: &[u8]| {
            let mut found = Vec::new();
            entries(node, &mut |entry| found.extend(entry.child)).map(|()| found)
        };
        assert_eq!(children(&node), Some(vec![4]));
        for (at, value) in [
            (0, 0x30),
            (4, 0x20),
            (4, 0xff),
            (0x18, 0x20),
            (0x18, 8),
            (0x1c, 0),
            (0x1a, 20),
        ] {
            let mut node = node.clone();
            node[at] = value;
            assert_eq!(children(&node), None, "{at:#x}");
        }
        node[0x18] = 0x10;
        node[4] = 0x20;
        assert_eq!(children(&node), None, "no room for the child");
    }
}
