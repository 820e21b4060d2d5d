//! What each frame of a sealed image costs on the wire, by the image's zstd seek
//! table: a format of other people, read here without our own reader.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// Magic number at the end of a zstd seek table.
const SEEK_TABLE_MAGIC: u32 = 0x8F92_EAB1;

/// Number of frames (4), descriptor (1), magic (4).
const FOOTER_BYTES: usize = 9;

/// Bit of the descriptor: each entry has a checksum of 4 bytes.
const HAS_CHECKSUMS: u8 = 0x80;

/// Stored length of every data frame of an image.
pub struct ImageLedger {
    stored_bytes: Vec<u32>,
}

impl ImageLedger {
    /// Reads the seek table of an image.
    pub fn open(image: &Path) -> Result<ImageLedger> {
        let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
        parse(&bytes).with_context(|| format!("the seek table of {}", image.display()))
    }

    /// Bytes that these frames take in the image.
    pub fn stored_bytes(&self, frames: &[u32]) -> Result<u64> {
        frames.iter().try_fold(0, |sum, &frame| {
            let bytes = self.stored_bytes.get(frame as usize);
            let bytes = bytes.with_context(|| format!("the image has no frame {frame}"))?;
            Ok(sum + u64::from(*bytes))
        })
    }
}

fn parse(file: &[u8]) -> Result<ImageLedger> {
    ensure!(file.len() > FOOTER_BYTES, "the file is too short");
    let (rest, footer) = file.split_at(file.len() - FOOTER_BYTES);
    ensure!(
        word(&footer[5..]) == SEEK_TABLE_MAGIC,
        "the file does not end with a seek table"
    );
    let entry_bytes = if footer[4] & HAS_CHECKSUMS == 0 {
        8
    } else {
        12
    };
    let table_bytes = word(footer) as usize * entry_bytes;
    ensure!(
        table_bytes <= rest.len(),
        "the table is larger than the file"
    );
    let entries = rest[rest.len() - table_bytes..].chunks_exact(entry_bytes);
    // Skippable frames are listed with nothing decompressed in them.
    let stored_bytes = entries
        .filter(|entry| word(&entry[4..]) > 0)
        .map(word)
        .collect();
    Ok(ImageLedger { stored_bytes })
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skippable_frames_are_not_counted() {
        let mut file = vec![9; 5];
        for (stored, raw) in [(10u32, 100u32), (77, 0), (20, 50)] {
            file.extend(stored.to_le_bytes());
            file.extend(raw.to_le_bytes());
        }
        file.extend(3u32.to_le_bytes());
        file.push(0);
        file.extend(SEEK_TABLE_MAGIC.to_le_bytes());
        let ledger = parse(&file).unwrap();
        assert_eq!(ledger.stored_bytes, vec![10, 20]);
        assert_eq!(ledger.stored_bytes(&[0, 1]).unwrap(), 30);
        assert!(ledger.stored_bytes(&[2]).is_err());
    }

    #[test]
    fn a_table_larger_than_its_file_is_refused() {
        let mut file = vec![0; 3];
        file.extend(u32::MAX.to_le_bytes());
        file.push(0);
        file.extend(SEEK_TABLE_MAGIC.to_le_bytes());
        assert!(parse(&file).is_err());
    }
}
