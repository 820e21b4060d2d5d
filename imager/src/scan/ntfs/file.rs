//! The master file table, and the streams its records describe, in one record or in many.

use std::ops::Range;

use super::boot::Geometry;
use super::record::{
    ATTRIBUTE_LIST, Attribute, Body, DATA, Outside, Record, Reference, undo_fixups, utf16,
};
use super::runs::{Run, append};
use crate::read_at::{Fields, ReadAt};
use crate::scan::volume::Obstacle;

/// Longest attribute list; Windows allows no longer one either.
const LIST_BYTES_MAX: u64 = 256 << 10;
const LIST_ENTRY_BYTES: usize = 26;

/// Compressed, encrypted: what the clusters hold is not what a reader gets.
const FLAGS_TRANSFORMED: u16 = 0x40ff;

/// The files every volume has, by record number.
pub(super) const TABLE: u64 = 0;
pub(super) const MIRROR: u64 = 1;
pub(super) const LOG: u64 = 2;
pub(super) const VOLUME: u64 = 3;
pub(super) const ROOT: u64 = 5;
pub(super) const BITMAP: u64 = 6;

/// An NTFS volume whose master file table was found.
pub(super) struct Volume<'a> {
    view: &'a dyn ReadAt,
    pub(super) geometry: Geometry,
    table: Stream,
}

/// The content of an attribute.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) bytes: u64,
    /// What lies beyond reads as zero, whatever the clusters hold.
    initialized_bytes: u64,
    flags: u16,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Resident(Vec<u8>),
    Runs(Vec<Run>),
}

/// A line of an attribute list.
struct Listed {
    kind: u32,
    name: Vec<u16>,
    first: u64,
    record: Reference,
    instance: u16,
}

fn damaged(what: &str) -> Obstacle {
    Obstacle::Unknown(format!("its {what}"))
}

impl<'a> Volume<'a> {
    /// Finds the master file table, which may lie in pieces that it describes itself.
    pub(super) fn open(view: &'a dyn ReadAt) -> Result<Volume<'a>, Obstacle> {
        let geometry = Geometry::read(view)?;
        let mut raw = vec![0; geometry.record_bytes];
        view.read_exact_at(geometry.table * geometry.cluster_bytes, &mut raw)?;
        let first = Record::parse(raw).ok_or_else(|| damaged("file table is damaged"))?;
        let contradiction = || damaged("file table contradicts itself");
        let attributes = first.attributes().ok_or_else(contradiction)?;
        let mut data = attributes.iter().filter(|a| a.is(DATA, &[]));
        let (Some(data), None) = (data.next(), data.next()) else {
            return Err(contradiction());
        };
        let Body::Outside(part) = &data.body else {
            return Err(contradiction());
        };
        let mut volume = Volume {
            view,
            geometry,
            table: Stream::begin(part, data.flags),
        };
        volume.extend_table(part)?;
        // Each further piece is described by a record in the pieces before it.
        for line in volume.list(&attributes)? {
            if line.kind != DATA || !line.name.is_empty() || line.record.number == TABLE {
                continue;
            }
            let record = volume.continuation(line.record, first.reference(TABLE))?;
            let attributes = record.attributes().ok_or_else(contradiction)?;
            let part = attributes.iter().find_map(|a| line.part_of(a));
            volume.extend_table(part.ok_or_else(contradiction)?)?;
        }
        let table = &volume.table;
        let begins = table.clusters().next().map(|run| run.start);
        if !table.is_plain()
            || begins != Some(geometry.table)
            || table.bytes < (BITMAP + 1) * geometry.record_bytes as u64
        {
            return Err(contradiction());
        }
        Ok(volume)
    }

    fn extend_table(&mut self, part: &Outside<'_>) -> Result<(), Obstacle> {
        let clusters = self.geometry.clusters;
        self.table
            .extend(part, clusters)
            .ok_or_else(|| damaged("file table contradicts itself"))
    }

    /// The clusters of the master file table.
    pub(super) fn table(&self) -> &Stream {
        &self.table
    }

    /// Record `number` as it lies on the volume.
    fn raw_record(&self, number: u64) -> Result<Vec<u8>, Obstacle> {
        let mut raw = vec![0; self.geometry.record_bytes];
        let offset = number
            .checked_mul(raw.len() as u64)
            .ok_or_else(|| damaged("file table is shorter than its records say"))?;
        self.read(&self.table, offset, &mut raw)?;
        Ok(raw)
    }

    /// Record `number`, in use.
    pub(super) fn record(&self, number: u64) -> Result<Record, Obstacle> {
        Record::parse(self.raw_record(number)?)
            .ok_or_else(|| Obstacle::Unknown(format!("its file record {number} is damaged")))
    }

    /// The record that `reference` means, and not one that took its place later.
    pub(super) fn referenced(&self, reference: Reference) -> Result<Record, Obstacle> {
        let record = self.record(reference.number)?;
        if record.sequence() != reference.sequence {
            return Err(Obstacle::Unknown(format!(
                "its file record {} is another than expected",
                reference.number
            )));
        }
        Ok(record)
    }

    fn continuation(&self, reference: Reference, base: Reference) -> Result<Record, Obstacle> {
        let record = self.referenced(reference)?;
        if record.base() != base {
            return Err(Obstacle::Unknown(format!(
                "its file record {} continues another than expected",
                reference.number
            )));
        }
        Ok(record)
    }

    /// Record `number` as kept in the mirror, which must hold the first four.
    pub(super) fn mirrored(&self, mirror: &Stream, number: u64) -> Result<Record, Obstacle> {
        let mut raw = vec![0; self.geometry.record_bytes];
        self.read(mirror, number * raw.len() as u64, &mut raw)?;
        Record::parse(raw).ok_or_else(|| damaged("copy of the file table is damaged"))
    }

    /// The stream `name` of `kind` that record `number` has; none when it has none.
    pub(super) fn stream(
        &self,
        record: &Record,
        number: u64,
        kind: u32,
        name: &[u16],
    ) -> Result<Option<Stream>, Obstacle> {
        let contradiction =
            || Obstacle::Unknown(format!("its file record {number} contradicts itself"));
        let attributes = record.attributes().ok_or_else(contradiction)?;
        let listed = self.list(&attributes)?;
        let mut stream: Option<Stream> = None;
        if listed.is_empty() {
            for attribute in attributes.iter().filter(|a| a.is(kind, name)) {
                self.join(&mut stream, attribute)
                    .ok_or_else(contradiction)?;
            }
            return self.whole(stream, contradiction);
        }
        for line in listed.iter().filter(|l| l.kind == kind && l.name == name) {
            let other = if line.record.number == number {
                None
            } else {
                Some(self.continuation(line.record, record.reference(number))?)
            };
            let record = other.as_ref().unwrap_or(record);
            let attributes = record.attributes().ok_or_else(contradiction)?;
            let attribute = attributes
                .iter()
                .find(|a| line.is_of(a))
                .ok_or_else(contradiction)?;
            self.join(&mut stream, attribute)
                .ok_or_else(contradiction)?;
        }
        self.whole(stream, contradiction)
    }

    fn join(&self, stream: &mut Option<Stream>, attribute: &Attribute<'_>) -> Option<()> {
        match (&attribute.body, stream.as_mut()) {
            (Body::Resident(value), None) => *stream = Some(Stream::resident(value)),
            (Body::Resident(_), Some(_)) => return None,
            (Body::Outside(part), None) => {
                let mut begun = Stream::begin(part, attribute.flags);
                begun.extend(part, self.geometry.clusters)?;
                *stream = Some(begun);
            }
            (Body::Outside(part), Some(begun)) => begun.extend(part, self.geometry.clusters)?,
        }
        Some(())
    }

    /// Checks that the parts of a stream cover as much as its size says.
    fn whole(
        &self,
        stream: Option<Stream>,
        contradiction: impl Fn() -> Obstacle,
    ) -> Result<Option<Stream>, Obstacle> {
        let covered = stream.as_ref().is_none_or(|stream| {
            let bytes = stream.mapped_clusters() * self.geometry.cluster_bytes;
            matches!(stream.content, Content::Resident(_))
                || (stream.bytes <= bytes && stream.initialized_bytes <= bytes)
        });
        covered.then_some(stream).ok_or_else(contradiction)
    }

    /// The lines of the attribute list among `attributes`; empty when there is no list.
    fn list(&self, attributes: &[Attribute<'_>]) -> Result<Vec<Listed>, Obstacle> {
        let contradiction = || damaged("attribute lists contradict themselves");
        let mut lists = attributes.iter().filter(|a| a.kind == ATTRIBUTE_LIST);
        let content = match (lists.next(), lists.next()) {
            (None, _) => return Ok(Vec::new()),
            (Some(only), None) => {
                let mut stream = None;
                self.join(&mut stream, only).ok_or_else(contradiction)?;
                let stream = self.whole(stream, contradiction)?;
                let stream = stream.ok_or_else(contradiction)?;
                self.content(&stream, LIST_BYTES_MAX)?
            }
            (Some(_), Some(_)) => return Err(contradiction()),
        };
        let mut rest = &content[..];
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(Fields(rest).u16(4));
            let line = rest
                .get(..length)
                .filter(|line| line.len() >= LIST_ENTRY_BYTES);
            lines.push(line.and_then(Listed::parse).ok_or_else(contradiction)?);
            rest = &rest[length..];
        }
        Ok(lines)
    }

    /// All of `stream`, which must not be larger than `bytes_max`.
    pub(super) fn content(&self, stream: &Stream, bytes_max: u64) -> Result<Vec<u8>, Obstacle> {
        if stream.bytes > bytes_max {
            return Err(damaged("metadata are larger than they may be"));
        }
        let mut content = vec![0; stream.bytes as usize];
        self.read(stream, 0, &mut content)?;
        Ok(content)
    }

    /// Fills `buffer` with what a reader of `stream` gets from `offset` on.
    pub(super) fn read(
        &self,
        stream: &Stream,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Obstacle> {
        let beyond = || damaged("metadata end before they should");
        let end = offset.checked_add(buffer.len() as u64).ok_or_else(beyond)?;
        if end > stream.bytes {
            return Err(beyond());
        }
        let runs = match &stream.content {
            Content::Resident(value) => {
                buffer.copy_from_slice(&value[offset as usize..end as usize]);
                return Ok(());
            }
            Content::Runs(runs) => runs,
        };
        buffer.fill(0);
        let cluster_bytes = self.geometry.cluster_bytes;
        let end = end.min(stream.initialized_bytes);
        let first = runs.partition_point(|run| run.within.end * cluster_bytes <= offset);
        for run in &runs[first..] {
            let (start, stop) = (
                (run.within.start * cluster_bytes).max(offset),
                (run.within.end * cluster_bytes).min(end),
            );
            if start >= stop {
                break;
            }
            let Some(at) = run.at else { continue };
            let place = at * cluster_bytes + (start - run.within.start * cluster_bytes);
            let part = &mut buffer[(start - offset) as usize..(stop - offset) as usize];
            self.view.read_exact_at(place, part)?;
        }
        Ok(())
    }

    /// A structure of several sectors at `offset` of `stream`, its fixups undone.
    pub(super) fn fixed(
        &self,
        stream: &Stream,
        offset: u64,
        bytes: usize,
        signature: &[u8; 4],
    ) -> Result<Option<Vec<u8>>, Obstacle> {
        let mut raw = vec![0; bytes];
        self.read(stream, offset, &mut raw)?;
        Ok(undo_fixups(&mut raw, signature).map(|()| raw))
    }
}

impl Record {
    /// How other records refer to this one, which is number `number`.
    fn reference(&self, number: u64) -> Reference {
        Reference {
            number,
            sequence: self.sequence(),
        }
    }
}

impl Stream {
    fn resident(value: &[u8]) -> Stream {
        Stream {
            bytes: value.len() as u64,
            initialized_bytes: value.len() as u64,
            flags: 0,
            content: Content::Resident(value.to_vec()),
        }
    }

    fn begin(part: &Outside<'_>, flags: u16) -> Stream {
        Stream {
            bytes: part.bytes,
            initialized_bytes: part.initialized_bytes,
            flags,
            content: Content::Runs(Vec::new()),
        }
    }

    fn extend(&mut self, part: &Outside<'_>, clusters: u64) -> Option<()> {
        match &mut self.content {
            Content::Resident(_) => None,
            Content::Runs(runs) => append(runs, part.pairs, part.within.clone(), clusters),
        }
    }

    fn runs(&self) -> &[Run] {
        match &self.content {
            Content::Resident(_) => &[],
            Content::Runs(runs) => runs,
        }
    }

    fn mapped_clusters(&self) -> u64 {
        self.runs().last().map_or(0, |run| run.within.end)
    }

    /// Whether every byte of it lies as it is in a cluster of its own.
    pub(super) fn is_plain(&self) -> bool {
        self.flags & FLAGS_TRANSFORMED == 0
            && matches!(self.content, Content::Runs(_))
            && self.runs().iter().all(|run| run.at.is_some())
    }

    /// The clusters of the volume that hold it, in its own order.
    pub(super) fn clusters(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs()
            .iter()
            .map(Run::clusters)
            .filter(|range| !range.is_empty())
    }

    /// The clusters of the volume that hold what comes after the first `count` of its clusters.
    pub(super) fn clusters_after(&self, count: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs().iter().filter_map(move |run| {
            let skipped = count.saturating_sub(run.within.start);
            let clusters = run.clusters();
            let start = clusters.start.saturating_add(skipped);
            (start < clusters.end).then_some(start..clusters.end)
        })
    }
}

impl Listed {
    fn parse(line: &[u8]) -> Option<Listed> {
        let fields = Fields(line);
        let name = line.get(usize::from(fields.u8(7))..)?;
        Some(Listed {
            kind: fields.u32(0),
            name: utf16(name.get(..2 * usize::from(fields.u8(6)))?),
            first: fields.u64(8),
            record: Reference::parse(fields.u64(16)),
            instance: fields.u16(24),
        })
    }

    fn is_of(&self, attribute: &Attribute<'_>) -> bool {
        let first = match &attribute.body {
            Body::Resident(_) => 0,
            Body::Outside(part) => part.within.start,
        };
        attribute.is(self.kind, &self.name)
            && attribute.instance == self.instance
            && first == self.first
    }

    fn part_of<'r, 'a>(&self, attribute: &'r Attribute<'a>) -> Option<&'r Outside<'a>> {
        match &attribute.body {
            Body::Outside(part) if self.is_of(attribute) => Some(part),
            _ => None,
        }
    }
}
