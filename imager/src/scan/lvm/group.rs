//! A volume group of one physical volume, from its text.

use std::collections::HashSet;
use std::ops::Range;

use super::SECTOR;
use super::text::{Section, Value};
use crate::scan::volume::Obstacle;

/// The extents of a physical volume and who has them.
pub(super) struct Group {
    extent_bytes: u64,
    /// Where the extents begin, bytes, and how many there are.
    start: u64,
    count: u64,
    /// Runs of extents that segments have, as numbers of extents.
    taken: Vec<Range<u64>>,
    /// Logical volumes that are linear, and theirs alone: name and bytes of the physical volume.
    linear: Vec<(String, Vec<Range<u64>>)>,
    /// The names of the others.
    others: Vec<String>,
}

impl Group {
    /// The group in `text`, whose only physical volume must be `uuid`.
    pub(super) fn parse(text: &[u8], uuid: &str) -> Result<Group, Obstacle> {
        let text = Section::parse(text).ok_or_else(damaged)?;
        let group = text.sections().next().ok_or_else(damaged)?.1;
        let mut volumes = group
            .section("physical_volumes")
            .ok_or_else(damaged)?
            .sections();
        let (pv_name, pv) = volumes.next().ok_or_else(damaged)?;
        if volumes.next().is_some() {
            return Err(Obstacle::unknown(
                "it is one of several physical volumes of its group",
            ));
        }
        let own: String = pv.text("id").unwrap_or_default().replace('-', "");
        let bytes = |sectors: Option<u64>| sectors?.checked_mul(SECTOR);
        let extent_bytes = bytes(group.number("extent_size")).filter(|&bytes| bytes > 0);
        let (Some(extent_bytes), Some(start), Some(count)) = (
            extent_bytes,
            bytes(pv.number("pe_start")),
            pv.number("pe_count"),
        ) else {
            return Err(damaged());
        };
        if own != uuid || group.text("format") != Some("lvm2") {
            return Err(Obstacle::unknown(
                "its metadata are of another volume or format",
            ));
        }
        let mut found = Group {
            extent_bytes,
            start,
            count,
            taken: Vec::new(),
            linear: Vec::new(),
            others: Vec::new(),
        };
        // All bytes of extents are numbers below 2^64 from here on.
        found.extent_end(count).ok_or_else(damaged)?;
        if let Some(logical) = group.section("logical_volumes") {
            found.read_volumes(logical, pv_name)?;
        }
        found.taken.sort_by_key(|run| run.start);
        if found
            .taken
            .windows(2)
            .any(|pair| pair[0].end > pair[1].start)
        {
            return Err(Obstacle::unknown(
                "two of its logical volumes have the same extents",
            ));
        }
        Ok(found)
    }

    /// Free extents, bytes of a physical volume that has `volume_bytes`.
    pub(super) fn unallocated(&self, volume_bytes: u64) -> Result<Vec<Range<u64>>, Obstacle> {
        let end = self
            .extent_end(self.count)
            .filter(|&end| end <= volume_bytes);
        end.ok_or_else(damaged)?;
        let starts = std::iter::once(0).chain(self.taken.iter().map(|run| run.end));
        let ends = self.taken.iter().map(|run| run.start).chain([self.count]);
        Ok(starts
            .zip(ends)
            .map(|(start, end)| self.bytes(start..end))
            .collect())
    }

    /// Name and pieces of each linear volume.
    pub(super) fn linear_volumes(&self) -> impl Iterator<Item = (&str, &[Range<u64>])> {
        self.linear
            .iter()
            .map(|(name, pieces)| (name.as_str(), pieces.as_slice()))
    }

    /// The names of all others.
    pub(super) fn other_volumes(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str)
    }

    fn read_volumes(&mut self, logical: &Section, pv_name: &str) -> Result<(), Obstacle> {
        // A volume that another is made of is no file system by itself.
        let parts: HashSet<&str> = logical
            .sections()
            .flat_map(|(_, volume)| volume.sections())
            .flat_map(|(_, segment)| segment.texts())
            .collect();
        for (name, volume) in logical.sections() {
            let mut pieces = Some(Vec::new());
            let mut next_extent = 0;
            for (_, segment) in volume.sections() {
                let run = self.segment(segment, pv_name)?;
                let in_order = segment.number("start_extent") == Some(next_extent);
                match (run, pieces.as_mut()) {
                    (Some(run), Some(pieces)) if in_order => {
                        next_extent += run.end - run.start;
                        pieces.push(self.bytes(run));
                    }
                    _ => pieces = None,
                }
            }
            match pieces {
                Some(pieces) if !parts.contains(name) && !pieces.is_empty() => {
                    self.linear.push((name.to_owned(), pieces));
                }
                _ => self.others.push(name.to_owned()),
            }
        }
        Ok(())
    }

    /// Takes the extents of a segment. Gives them when they are the segment, one behind the other.
    fn segment(
        &mut self,
        segment: &Section,
        pv_name: &str,
    ) -> Result<Option<Range<u64>>, Obstacle> {
        let kind = segment.text("type").ok_or_else(damaged)?;
        if kind != "striped" && kind != "linear" {
            // It is made of other volumes, which have segments of their own.
            return match segment.texts().any(|text| text == pv_name) {
                true => Err(Obstacle::Unknown(format!(
                    "its segments of type {kind} are unknown"
                ))),
                false => Ok(None),
            };
        }
        let extents = segment.number("extent_count").ok_or_else(damaged)?;
        let stripes = segment.list("stripes").ok_or_else(damaged)?;
        let stripe_count = (stripes.len() / 2) as u64;
        let whole = stripe_count > 0
            && stripes.len().is_multiple_of(2)
            && segment.number("stripe_count") == Some(stripe_count)
            && extents > 0
            && extents.is_multiple_of(stripe_count);
        if !whole {
            return Err(damaged());
        }
        let mut run = None;
        for stripe in stripes.chunks_exact(2) {
            let (Value::Text(name), Value::Number(first)) = (&stripe[0], &stripe[1]) else {
                return Err(damaged());
            };
            let end = first.checked_add(extents / stripe_count);
            match end {
                Some(end) if name == pv_name && end <= self.count => {
                    self.taken.push(*first..end);
                    run = Some(*first..end);
                }
                _ => return Err(damaged()),
            }
        }
        Ok(run.filter(|_| stripe_count == 1))
    }

    fn bytes(&self, extents: Range<u64>) -> Range<u64> {
        self.start + extents.start * self.extent_bytes..self.start + extents.end * self.extent_bytes
    }

    fn extent_end(&self, extent: u64) -> Option<u64> {
        extent
            .checked_mul(self.extent_bytes)?
            .checked_add(self.start)
    }
}

fn damaged() -> Obstacle {
    Obstacle::unknown("the text of its metadata is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group whose logical volumes are `logical`, as LVM2 writes it.
    fn group(logical: &str) -> Result<Group, Obstacle> {
        let text = format!(
            "room {{ id = \"g\" format = \"lvm2\" extent_size = 8 physical_volumes {{ pv0 {{ \
             id = \"ab-cd\" pe_start = 2048 pe_count = 100 }} }} logical_volumes {{ {logical} }} }}"
        );
        Group::parse(text.as_bytes(), "abcd")
    }

    fn segment(start: u64, count: u64, stripes: &str) -> String {
        let stripe_count = stripes.split(',').count() / 2;
        format!(
            "segment{start} {{ start_extent = {start} extent_count = {count} type = \"striped\" \
             stripe_count = {stripe_count} stripes = [{stripes}] }}"
        )
    }

    fn volume(name: &str, segments: &[String]) -> String {
        format!("{name} {{ id = \"l\" {} }}", segments.concat())
    }

    #[test]
    fn what_no_volume_has_is_free() {
        let root = [segment(0, 10, "\"pv0\", 20"), segment(10, 5, "\"pv0\", 0")];
        let found = group(&volume("root", &root)).unwrap();
        let at = |extent: u64| (1 << 20) + extent * 4096;
        assert_eq!(
            found.unallocated(1 << 30).unwrap(),
            [at(0)..at(0), at(5)..at(20), at(30)..at(100)]
        );
        assert!(found.unallocated(at(99)).is_err());
        let linear: Vec<_> = found.linear_volumes().collect();
        assert_eq!(linear, [("root", &[at(20)..at(30), at(0)..at(5)][..])]);
    }

    #[test]
    fn what_is_made_of_other_volumes_is_kept_with_them() {
        let pool = "pool { s { start_extent = 0 extent_count = 9 type = \"thin-pool\" \
                    metadata = \"meta\" pool = \"data\" } } thin { s { start_extent = 0 \
                    extent_count = 90 type = \"thin\" thin_pool = \"pool\" } }";
        let striped = [segment(0, 8, "\"pv0\", 50, \"pv0\", 60")];
        let all = [
            pool,
            &volume("meta", &[segment(0, 1, "\"pv0\", 0")]),
            &volume("data", &[segment(0, 9, "\"pv0\", 1")]),
            &volume("wide", &striped),
        ];
        let found = group(&all.concat()).unwrap();
        assert_eq!(found.linear_volumes().count(), 0);
        let others: Vec<_> = found.other_volumes().collect();
        assert_eq!(others, ["pool", "thin", "meta", "data", "wide"]);
        assert_eq!(found.taken, [0..1, 1..10, 50..54, 60..64]);
    }

    #[test]
    fn what_contradicts_itself_or_is_not_known_proves_nothing() {
        let bad = [
            volume(
                "a",
                &[segment(0, 10, "\"pv0\", 0"), segment(10, 5, "\"pv0\", 9")],
            ),
            volume("a", &[segment(0, 10, "\"pv0\", 91")]),
            volume("a", &[segment(0, 10, "\"pv1\", 0")]),
            volume("a", &[segment(0, 9, "\"pv0\", 0, \"pv0\", 50")]),
            volume(
                "a",
                &[segment(0, 10, "\"pv0\", 0").replace("striped", "mosaic")],
            ),
            volume(
                "a",
                &[segment(0, 10, "\"pv0\", 0").replace("stripe_count = 1", "")],
            ),
        ];
        for logical in bad {
            assert!(
                matches!(group(&logical), Err(Obstacle::Unknown(_))),
                "{logical}"
            );
        }
        assert!(Group::parse(b"room { }", "abcd").is_err());
    }
}
