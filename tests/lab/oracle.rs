//! Is the image on this disk? Asked of `sgdisk` and `dumpe2fs`, never of our manifest.
//!
//! What counts is read from the raw disk the image was made of: the boot code,
//! every partition, and within an ext4 partition every block its own bitmaps call
//! used. The target's partition table must be whole and list the same partitions.

use std::{
    fs::File,
    io::ErrorKind,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::shell;

/// `sgdisk` counts in sectors of this size for a regular file.
const SECTOR_BYTES: u64 = 512;

/// The MBR's boot code: what follows (signature, protective entry) belongs to the disk.
const BOOT_CODE_BYTES: u64 = 440;

/// How much is compared at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// The raw disk an image was made of, and which of its bytes matter.
pub struct GuestDisk {
    path: PathBuf,
    rows: Vec<Partition>,
    used: Vec<Range<u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Partition {
    number: u32,
    bytes: Range<u64>,
    code: String,
}

impl GuestDisk {
    /// Reads tables and bitmaps of a raw disk with GPT.
    pub fn open(path: &Path) -> Result<GuestDisk> {
        let rows = partitions(path)?;
        ensure!(
            !rows.is_empty(),
            "{} has no partitions by sgdisk",
            path.display()
        );
        let mut used: Vec<Range<u64>> = Vec::new();
        used.push(0..BOOT_CODE_BYTES);
        for row in &rows {
            match free_blocks(path, row.bytes.start)? {
                Some(free) => used.extend(complement(&row.bytes, free)),
                None => used.push(row.bytes.clone()),
            }
        }
        Ok(GuestDisk {
            path: path.to_owned(),
            rows,
            used,
        })
    }

    /// Bytes that matter.
    pub fn used_bytes(&self) -> u64 {
        self.used.iter().map(|range| range.end - range.start).sum()
    }

    /// The 1 MiB pieces that hold bytes that matter, ascending.
    pub fn used_pieces(&self) -> Vec<u32> {
        let pieces = |range: &Range<u64>| {
            let first = range.start / CHUNK_BYTES;
            let last = (range.end - 1) / CHUNK_BYTES;
            first as u32..=last as u32
        };
        let mut used: Vec<u32> = self.used.iter().flat_map(pieces).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Fails with the first place where `disk` is not what was imaged.
    pub fn compare(&self, disk: &Path) -> Result<()> {
        self.compare_tables(disk)?;
        let ours = File::open(&self.path).context("opening the guest's raw disk")?;
        let theirs = File::open(disk).with_context(|| format!("opening {}", disk.display()))?;
        for range in &self.used {
            let mut at = range.start;
            while at < range.end {
                let bytes = CHUNK_BYTES.min(range.end - at) as usize;
                let expected = read(&ours, at, bytes).context("reading the guest")?;
                let found = read(&theirs, at, bytes).context("reading the target")?;
                if let Some(first) = (0..bytes).find(|&i| expected[i] != found[i]) {
                    bail!(
                        "{} differs from the guest at byte {}",
                        disk.display(),
                        at + first as u64
                    );
                }
                at += bytes as u64;
            }
        }
        Ok(())
    }

    /// The 1 MiB pieces of the guest that hold used bytes and are not on `disk`.
    pub fn lacking(&self, disk: &Path) -> Result<Vec<u32>> {
        let ours = File::open(&self.path).context("opening the guest's raw disk")?;
        let theirs = File::open(disk).with_context(|| format!("opening {}", disk.display()))?;
        let mut lacking = Vec::new();
        for range in &self.used {
            let mut at = range.start;
            while at < range.end {
                let end = ((at / CHUNK_BYTES + 1) * CHUNK_BYTES).min(range.end);
                let bytes = (end - at) as usize;
                let piece = (at / CHUNK_BYTES) as u32;
                if lacking.last() != Some(&piece)
                    && read(&ours, at, bytes)? != read(&theirs, at, bytes)?
                {
                    lacking.push(piece);
                }
                at = end;
            }
        }
        lacking.sort_unstable();
        lacking.dedup();
        Ok(lacking)
    }

    fn compare_tables(&self, disk: &Path) -> Result<()> {
        let verdict = shell::sh(&format!("sgdisk -v {}", disk.display()))?;
        ensure!(
            verdict.contains("No problems found"),
            "sgdisk finds the table of {} wrong: {}",
            disk.display(),
            verdict.trim()
        );
        let found = partitions(disk)?;
        ensure!(
            found == self.rows,
            "{} has partitions {found:?} and not {:?}",
            disk.display(),
            self.rows
        );
        for row in &self.rows {
            let unique = |path| partition_guid(path, row.number);
            ensure!(
                unique(&self.path)? == unique(disk)?,
                "partition {} of {} has another GUID",
                row.number,
                disk.display()
            );
        }
        Ok(())
    }
}

/// Reads, with zeros behind the end of a short sparse file.
fn read(file: &File, at: u64, bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer)
}

fn partitions(disk: &Path) -> Result<Vec<Partition>> {
    let listing = shell::sh(&format!("sgdisk -p {}", disk.display()))?;
    parse_partitions(&listing)
}

fn parse_partitions(listing: &str) -> Result<Vec<Partition>> {
    let rows = listing
        .lines()
        .skip_while(|line| !line.starts_with("Number"))
        .skip(1);
    rows.filter(|row| !row.trim().is_empty())
        .map(|row| {
            let words: Vec<&str> = row.split_whitespace().collect();
            let [number, first, last, _, _, code, ..] = words[..] else {
                bail!("sgdisk prints a row not understood: {row:?}");
            };
            let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
            Ok(Partition {
                number: number.parse()?,
                bytes: first * SECTOR_BYTES..(last + 1) * SECTOR_BYTES,
                code: code.to_owned(),
            })
        })
        .collect()
}

fn partition_guid(disk: &Path, number: u32) -> Result<String> {
    let text = shell::sh(&format!("sgdisk -i {number} {}", disk.display()))?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Partition unique GUID"));
    Ok(line
        .with_context(|| format!("sgdisk shows no GUID of partition {number}"))?
        .to_owned())
}

/// Free bytes of the ext4 file system at this offset; `None` when there is none.
fn free_blocks(disk: &Path, offset: u64) -> Result<Option<Vec<Range<u64>>>> {
    let place = format!("{}?offset={offset}", disk.display());
    let Ok(text) = shell::text(&mut shell::command(&["dumpe2fs", &place])) else {
        return Ok(None);
    };
    parse_free_blocks(&text, offset).map(Some)
}

fn parse_free_blocks(text: &str, offset: u64) -> Result<Vec<Range<u64>>> {
    let block_bytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("Block size:"))
        .context("dumpe2fs shows no block size")?
        .trim()
        .parse()?;
    let mut free = Vec::new();
    // The indented lines are those of the groups; the header has a total of the same name.
    let lists = text
        .lines()
        .filter(|line| line.starts_with(' '))
        .filter_map(|line| line.trim().strip_prefix("Free blocks:"));
    for list in lists {
        for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
            free.push(offset + first * block_bytes..offset + (last + 1) * block_bytes);
        }
    }
    Ok(free)
}

fn complement(whole: &Range<u64>, mut holes: Vec<Range<u64>>) -> Vec<Range<u64>> {
    holes.sort_by_key(|hole| hole.start);
    let mut kept = Vec::new();
    let mut at = whole.start;
    for hole in holes {
        if hole.start > at {
            kept.push(at..hole.start);
        }
        at = at.max(hole.end);
    }
    if at < whole.end {
        kept.push(at..whole.end);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_blocks_are_read_from_the_groups_only() {
        let text = "Free blocks:              33505\nBlock size:               1024\n\
                    Group 0: (Blocks 1-8192)\n  Free blocks: 3-4, 9\nGroup 1:\n  Free blocks: \n";
        let free = parse_free_blocks(text, 1000).unwrap();
        assert_eq!(free, vec![4072..6120, 10216..11240]);
    }

    #[test]
    fn what_is_not_free_is_used() {
        let used = complement(&(10..100), vec![50..60, 10..20, 90..100]);
        assert_eq!(used, vec![20..50, 60..90]);
        assert_eq!(complement(&(0..5), vec![]), vec![0..5]);
    }

    #[test]
    fn rows_of_sgdisk_are_read_in_sectors() {
        let listing = "Disk x: 1 sectors\n\nNumber  Start (sector)    End (sector)  Size       Code  Name\n   \
                       1            2048            4095   1024.0 KiB  EF02  \n   2  4096  36863  16.0 MiB  EF00  ESP\n";
        let rows = parse_partitions(listing).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].bytes, 2048 * 512..4096 * 512);
        assert_eq!(rows[1].code, "EF00");
    }
}
