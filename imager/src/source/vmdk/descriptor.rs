//! The text that tells what a VMDK disk is made of.

use crate::source::fault::Fault;

/// Files a disk can be in: 8 TiB in files of 2 GB.
const EXTENTS_MAX: usize = 4096;

/// How an extent is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtentKind {
    Flat,
    Sparse,
    Zero,
}

/// A run of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) sectors: u64,
    pub(super) kind: ExtentKind,
    pub(super) file: String,
    /// First sector in the file.
    pub(super) offset: u64,
}

/// A descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) extents: Vec<Extent>,
}

impl Descriptor {
    /// Reads the text, up to the first NUL.
    ///
    /// # Errors
    /// When the disk has a parent, or an extent is of a kind that is not read.
    pub(super) fn parse(text: &str) -> Result<Descriptor, Fault> {
        let text = text.split('\0').next().unwrap_or_default();
        let mut extents = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim(), value.trim().trim_matches('"'));
                let parent = key.eq_ignore_ascii_case("parentCID")
                    && !value.eq_ignore_ascii_case("ffffffff");
                if parent || key.eq_ignore_ascii_case("parentFileNameHint") {
                    return Err(Fault::refuse(
                        "it is a snapshot that needs its parent; consolidate the snapshots of the \
                         machine, or flatten it with `qemu-img convert -O vmdk`",
                    ));
                }
            }
            if let Some(extent) = extent(line)? {
                extents.push(extent);
            }
            if extents.len() > EXTENTS_MAX {
                return Err(Fault::refuse("it has too many extents"));
            }
        }
        if extents.is_empty() {
            return Err(Fault::refuse("its descriptor names no extent"));
        }
        Ok(Descriptor { extents })
    }
}

/// A line `RW 4192256 SPARSE "disk-s001.vmdk"`; none when it is another line.
fn extent(line: &str) -> Result<Option<Extent>, Fault> {
    let (words, rest) = line.split_once('"').unwrap_or((line, ""));
    let (file, rest) = rest.split_once('"').unwrap_or((rest, ""));
    let mut words = words.split_whitespace();
    let access = words.next();
    if !matches!(access, Some("RW" | "RDONLY" | "NOACCESS")) {
        return Ok(None);
    }
    let sectors = words.next().and_then(|word| word.parse().ok());
    let sectors = sectors
        .filter(|&sectors| sectors > 0)
        .ok_or_else(|| Fault::refuse("its descriptor has an extent without a size"))?;
    let kind = match words.next() {
        Some("FLAT" | "VMFS") => ExtentKind::Flat,
        Some("SPARSE") => ExtentKind::Sparse,
        Some("ZERO") => ExtentKind::Zero,
        other => {
            let other = other.unwrap_or("nothing").escape_debug();
            return Err(Fault::refuse(format!(
                "its extents are of the kind {other}, which is not read; convert it with \
                 `qemu-img convert` or clone the disk on its host"
            )));
        }
    };
    if access == Some("NOACCESS") {
        return Err(Fault::refuse("it has an extent nobody may read"));
    }
    Ok(Some(Extent {
        sectors,
        kind,
        file: file.to_owned(),
        offset: rest.trim().parse().unwrap_or(0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_read_in_order() {
        let text = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
            createType=\"custom\"\n\nRW 2048 FLAT \"a flat.vmdk\" 63\nRW 4096 SPARSE \"b=c.vmdk\"\n\
            RW 10 ZERO\n#DDB\nddb.adapterType = \"ide\"\n\0RW 1 FLAT \"never\" 0\n";
        let extents = Descriptor::parse(text).unwrap().extents;
        let short: Vec<_> = extents
            .iter()
            .map(|extent| (extent.sectors, extent.kind, &extent.file[..], extent.offset))
            .collect();
        assert_eq!(
            short,
            [
                (2048, ExtentKind::Flat, "a flat.vmdk", 63),
                (4096, ExtentKind::Sparse, "b=c.vmdk", 0),
                (10, ExtentKind::Zero, "", 0)
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_remedy() {
        for (text, word) in [
            ("parentCID=01234567\nRW 1 ZERO", "consolidate"),
            ("parentFileNameHint=\"base.vmdk\"\nRW 1 ZERO", "consolidate"),
            ("RW 8 VMFSSPARSE \"x-delta.vmdk\"", "VMFSSPARSE"),
            ("RW x FLAT \"y\"", "size"),
            ("NOACCESS 8 FLAT \"y\"", "nobody"),
            ("version=1", "no extent"),
        ] {
            let refused = Descriptor::parse(text).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
