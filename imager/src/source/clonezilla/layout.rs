//! Places and types of the partitions, from what `parted` and `sfdisk` printed.

use crate::source::fault::Fault;

/// Partitions a disk can have here; GPT has 128.
const PLACES_MAX: usize = 256;
/// Largest disk, bytes.
const DISK_BYTES_MAX: u64 = 1 << 50;

/// The kind of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    Gpt,
    Mbr,
}

/// Where a partition lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As in the names of files: sda1, nvme0n1p1.
    pub(super) name: String,
    pub(super) number: u32,
    /// First sector.
    pub(super) start: u64,
    /// Sectors.
    pub(super) sectors: u64,
    /// Type byte of an MBR partition.
    pub(super) kind: u8,
    pub(super) bootable: bool,
    pub(super) extended: bool,
}

impl Place {
    /// The first sector behind it.
    pub(super) fn end(&self) -> u64 {
        self.start + self.sectors
    }
}

/// The disk that was saved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) sectors: u64,
    pub(super) sector_bytes: u32,
    pub(super) kind: TableKind,
    pub(super) places: Vec<Place>,
}

impl Layout {
    /// Reads what `parted unit s print` said of `disk`, and the types of MBR partitions from what
    /// `sfdisk -d` did.
    ///
    /// # Errors
    /// When they do not say enough, or nonsense.
    pub(super) fn parse(disk: &str, parted: &str, dump: &str) -> Result<Layout, Fault> {
        let after = |word: &str| parted.lines().find_map(|line| line.strip_prefix(word));
        let missing = |what: &str| Fault::refuse(format!("{disk}-pt.parted does not say {what}"));
        let size = after("Disk /").and_then(|rest| sectors(rest.rsplit(':').next()?.trim()));
        let sector = after("Sector size (logical/physical):");
        let sector = sector.and_then(|rest| rest.trim().split_once("B/")?.0.parse().ok());
        let kind = match after("Partition Table:").map(str::trim) {
            Some("gpt") | Some("gpt_sync_mbr") => TableKind::Gpt,
            Some("msdos") => TableKind::Mbr,
            Some(other) => {
                return Err(Fault::refuse(format!(
                    "its partition table is {}, only GPT and MBR are put together",
                    other.escape_default()
                )));
            }
            None => return Err(missing("which partition table")),
        };
        let mut layout = Layout {
            sectors: size.ok_or_else(|| missing("how large the disk is"))?,
            sector_bytes: sector.ok_or_else(|| missing("how large its sectors are"))?,
            kind,
            places: Vec::new(),
        };
        layout.places = places(disk, parted, kind);
        for place in &mut layout.places {
            place.read_dump(dump);
        }
        layout.check()?;
        Ok(layout)
    }

    /// First byte and number of bytes of `place`.
    pub(super) fn range(&self, place: &Place) -> (u64, u64) {
        let sector_bytes = u64::from(self.sector_bytes);
        (place.start * sector_bytes, place.sectors * sector_bytes)
    }

    /// Bytes of the disk.
    pub(super) fn disk_bytes(&self) -> Result<u64, Fault> {
        let bytes = self.sectors.checked_mul(u64::from(self.sector_bytes));
        bytes
            .filter(|&bytes| bytes <= DISK_BYTES_MAX)
            .ok_or_else(|| Fault::refuse("its disk is larger than any disk"))
    }

    /// First byte of the first partition.
    pub(super) fn first_byte(&self) -> u64 {
        let first = self.places.iter().map(|place| place.start).min();
        first.unwrap_or(0) * u64::from(self.sector_bytes)
    }

    fn check(&self) -> Result<(), Fault> {
        if !matches!(self.sector_bytes, 512 | 1024 | 2048 | 4096) {
            return Err(Fault::refuse(format!(
                "sectors of {} bytes",
                self.sector_bytes
            )));
        }
        self.disk_bytes()?;
        if self.places.len() > PLACES_MAX {
            return Err(Fault::refuse("it has too many partitions"));
        }
        for place in &self.places {
            let end = place.start.checked_add(place.sectors);
            if place.start == 0 || end.is_none_or(|end| end > self.sectors) {
                let name = &place.name;
                return Err(Fault::refuse(format!("{name} lies outside of the disk")));
            }
        }
        let data = |place: &&Place| !place.extended;
        for (index, place) in self.places.iter().enumerate() {
            let overlaps = |other: &Place| place.start < other.end() && other.start < place.end();
            let rest = self.places[index + 1..].iter();
            if !place.extended && rest.filter(data).any(overlaps) {
                let name = &place.name;
                return Err(Fault::refuse(format!("{name} overlaps another partition")));
            }
        }
        Ok(())
    }
}

impl Place {
    /// Type and boot flag of an MBR partition, from the dump of either age:
    /// `/dev/sda5 : start= 6146048, size= 2097152, type=83, bootable` (before 2.26: `Id=83`).
    fn read_dump(&mut self, dump: &str) {
        let line = dump.lines().find_map(|line| {
            let (device, fields) = line.split_once(':')?;
            let name = device.trim().rsplit('/').next()?;
            (name == self.name).then_some(fields)
        });
        for field in line.into_iter().flat_map(|fields| fields.split(',')) {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            match key.trim() {
                "type" | "Id" => {
                    self.kind = u8::from_str_radix(value.trim(), 16).unwrap_or(self.kind);
                }
                "bootable" => self.bootable = true,
                _ => {}
            }
        }
    }
}

/// The lines ` 1      2048s    1050623s  1048576s  primary  ext4  boot`.
fn places(disk: &str, parted: &str, kind: TableKind) -> Vec<Place> {
    // nvme0n1p1 but sda1.
    let joint = match disk.ends_with(|last: char| last.is_ascii_digit()) {
        true => "p",
        false => "",
    };
    let place = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [number, start, end, size, rest @ ..] = &words[..] else {
            return None;
        };
        let number: u32 = number.parse().ok()?;
        sectors(end)?;
        Some(Place {
            name: format!("{disk}{joint}{number}"),
            number,
            start: sectors(start)?,
            sectors: sectors(size)?,
            kind: 0x83,
            bootable: false,
            extended: kind == TableKind::Mbr && rest.first() == Some(&"extended"),
        })
    };
    parted.lines().filter_map(place).collect()
}

/// A number of sectors: `2048s`.
fn sectors(text: &str) -> Option<u64> {
    text.strip_suffix('s')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTED: &str = "\
Model: ATA DISK (scsi)
Disk /dev/sda: 8388608s
Sector size (logical/physical): 512B/4096B
Partition Table: msdos
Disk Flags: 

Number  Start     End       Size      Type      File system     Flags
 1      2048s     2099199s  2097152s  primary   ext4            boot
 2      2099200s  8388607s  6289408s  extended
 5      2101248s  4198399s  2097152s  logical   linux-swap(v1)
";
    const DUMP: &str = "\
label: dos
unit: sectors

/dev/sda1 : start=        2048, size=     2097152, type=83, bootable
/dev/sda2 : start=     2099200, size=     6289408, type=5
/dev/sda5 : start=     2101248, size=     2097152, Id=82
";

    #[test]
    fn both_listings_together_say_where_what_is() {
        let layout = Layout::parse("sda", PARTED, DUMP).unwrap();
        assert_eq!(
            (layout.sectors, layout.sector_bytes, layout.kind),
            (8_388_608, 512, TableKind::Mbr)
        );
        let short: Vec<_> = layout
            .places
            .iter()
            .map(|p| (&p.name[..], p.start, p.kind, p.bootable, p.extended))
            .collect();
        assert_eq!(
            short,
            [
                ("sda1", 2048, 0x83, true, false),
                ("sda2", 2_099_200, 5, false, true),
                ("sda5", 2_101_248, 0x82, false, false)
            ]
        );
    }

    #[test]
    fn partitions_of_a_disk_whose_name_ends_in_a_digit_have_a_p() {
        let layout = Layout::parse("nvme0n1", PARTED, "").unwrap();
        assert_eq!(layout.places[0].name, "nvme0n1p1");
    }

    #[test]
    fn nonsense_is_refused() {
        for (from, to, word) in [
            ("8388608s\n", "1000s\n", "outside"),
            ("8388608s\n", "99999999999999999s\n", "larger"),
            ("512B/", "513B/", "sectors"),
            ("msdos", "sun", "sun"),
            (" 5      2101248s", " 5      2048s", "overlaps"),
            ("Partition Table", "Table", "which"),
            ("Disk /dev", "Disc /dev", "how large"),
        ] {
            let broken = PARTED.replacen(from, to, 1);
            let refused = Layout::parse("sda", &broken, "").unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
