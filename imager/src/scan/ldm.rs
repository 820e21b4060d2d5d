//! Partitions of Windows' dynamic disks: what their volumes are, a database at the end of the disk
//! says, and one volume may lie on several disks.

const KINDS: [&str; 3] = [
    "0x42",
    // Metadata and data of the Logical Disk Manager on a GPT disk.
    "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3",
    "af9b60a0-1431-4f62-bc68-3311714a69ad",
];

/// Why nothing in it is free, whatever file system it seems to begin with.
pub(super) const REASON: &str = "it belongs to a dynamic disk (LDM)";

/// Whether a partition of type `kind`, as a table says it, belongs to a dynamic disk.
pub(super) fn is_member(kind: &str) -> bool {
    KINDS.contains(&kind)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::scan::scan;
    use crate::testing::{MIB, Memory, blank, tool};
    use crate::whole::Whole;

    #[test]
    fn a_dynamic_disk_is_kept_whole_by_its_type_in_either_table() {
        let directory = TempDir::new().unwrap();
        for script in [
            "label: dos\nstart=2048,size=8192,type=42\n".to_owned(),
            format!("label: gpt\nstart=2048,size=8192,type={}\n", KINDS[2]),
        ] {
            let path = blank(&directory, "disk", 8 * MIB);
            tool("sfdisk", &["--quiet", &path], &script);
            let raw = std::fs::read(&path).unwrap();
            let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
            assert!(found.notes[0].contains(REASON), "{:?}", found.notes);
            assert_eq!(found.partitions[0].used_bytes, 4 * MIB);
        }
    }
}
