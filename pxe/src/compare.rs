//! Comparing a disk with an image on the machine, without writing anything.
//!
//! For its own sake (a job *verify*), or as the question that comes before a flash: only a machine whose disk differs
//! joins a session.

use serde::{Deserialize, Serialize};

use crate::{DiskSelector, FreePolicy, Hex32};

/// Most places in one report; those that are left out are counted in its totals.
pub const PLACES_MAX: usize = 64;

/// Compare a disk with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareOrder {
    /// Name of the image, to show.
    pub image_name: String,
    /// The image: BLAKE3 of its manifest, which the server gives away over HTTP.
    pub image_id: Hex32,
    /// Which disk is read.
    #[serde(default)]
    pub disk: DiskSelector,
    /// With [`FreePolicy::Zero`], unallocated space counts too.
    #[serde(default)]
    pub free: FreePolicy,
    /// Stop at the first difference and ask for the job again: the disk will be flashed then.
    #[serde(default)]
    pub brief: bool,
}

/// How a disk compares with an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareReport {
    /// The image.
    pub image_id: Hex32,
    /// The disk's path.
    pub disk: String,
    /// Seconds it took.
    pub seconds: f64,
    /// The disk holds the image.
    pub equal: bool,
    /// The whole disk was looked at; if not, it ended at a difference, and the counts are of what was seen until then.
    pub complete: bool,
    /// The tables are those of the image, fitted to this disk.
    pub tables_right: bool,
    /// Frames that are as the image wants them.
    pub right_frames: u64,
    /// Frames that differ.
    pub differing_frames: u64,
    /// Bytes of these.
    pub differing_bytes: u64,
    /// Where they are: partitions that differ, in order.
    #[serde(default)]
    pub places: Vec<ComparePlace>,
}

/// A partition that differs, or what does outside of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparePlace {
    /// Number of the partition; `None` for what lies outside.
    pub partition: Option<u32>,
    /// Its file system in the image.
    pub fs: String,
    /// The label of that.
    pub label: String,
    /// Frames that differ.
    pub differing_frames: u64,
    /// Bytes of these.
    pub differing_bytes: u64,
    /// Where the first of them begins on the disk.
    pub first_offset: Option<u64>,
}

impl CompareReport {
    /// The result in one line.
    pub fn sentence(&self) -> String {
        if self.equal {
            return format!("{} is the image", self.disk);
        }
        if !self.complete {
            return format!("{} differs from the image", self.disk);
        }
        let mut words: Vec<String> = self.places.iter().map(ComparePlace::words).collect();
        if !self.tables_right {
            words.insert(0, "partition tables".to_owned());
        }
        format!("{} differs: {}", self.disk, words.join(", "))
    }
}

impl ComparePlace {
    fn words(&self) -> String {
        let megabytes = self.differing_bytes as f64 / 1e6;
        let name = match self.partition {
            Some(0) => "file system".to_owned(),
            Some(number) => format!("partition {number}"),
            None => "outside of partitions".to_owned(),
        };
        let fs = match self.fs.as_str() {
            "" => String::new(),
            fs => format!(" ({fs})"),
        };
        format!("{name}{fs} {megabytes:.1} MB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CompareReport {
        CompareReport {
            image_id: Hex32([1; 32]),
            disk: "/dev/sda".to_owned(),
            seconds: 1.0,
            equal: false,
            complete: true,
            tables_right: true,
            right_frames: 7,
            differing_frames: 3,
            differing_bytes: 3 << 20,
            places: vec![ComparePlace {
                partition: Some(2),
                fs: "ext4".to_owned(),
                label: String::new(),
                differing_frames: 3,
                differing_bytes: 3 << 20,
                first_offset: Some(1 << 20),
            }],
        }
    }

    #[test]
    fn a_difference_is_told_in_one_line() {
        let mut report = report();
        assert_eq!(
            report.sentence(),
            "/dev/sda differs: partition 2 (ext4) 3.1 MB"
        );
        report.tables_right = false;
        let told = report.sentence();
        assert!(told.contains("partition tables, partition 2"), "{told}");
        report.complete = false;
        assert_eq!(report.sentence(), "/dev/sda differs from the image");
        report.equal = true;
        assert_eq!(report.sentence(), "/dev/sda is the image");
    }
}
