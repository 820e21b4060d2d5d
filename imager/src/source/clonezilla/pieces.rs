//! The files of a Clonezilla directory: which belong to which partition, and large ones in pieces.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::source::fault::Fault;

/// Files in such a directory that are looked at; one with more is no such directory.
const FILES_MAX: usize = 200_000;

/// What is in the pieces of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Partclone,
    Raw,
}

/// A saved partition: one file, or many in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) content: Content,
    pub(super) first: String,
    /// Bytes of all files together.
    pub(super) bytes: u64,
    files: Vec<String>,
}

impl Saved {
    /// All pieces, as if they were one file.
    pub(super) fn open(&self, directory: &Path) -> Joined {
        Joined {
            files: self.files.iter().map(|file| directory.join(file)).collect(),
            current: None,
        }
    }
}

/// The plain files of a directory, and their sizes. A link could lead anywhere, and a pipe or a
/// device be read without end.
pub(super) struct Listing {
    files: BTreeMap<String, u64>,
    saved: BTreeMap<String, Saved>,
}

impl Listing {
    /// Reads the directory.
    ///
    /// # Errors
    /// When it cannot be read, when pieces are missing, when a partition was saved by another
    /// program than partclone.
    pub(super) fn read(directory: &Path) -> Result<Listing, Fault> {
        let mut files = BTreeMap::new();
        for (index, entry) in fs::read_dir(directory).map_err(Fault::Read)?.enumerate() {
            let entry = entry.map_err(Fault::Read)?;
            let metadata = entry.metadata().map_err(Fault::Read)?;
            if metadata.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.insert(name, metadata.len());
            }
            if index >= FILES_MAX {
                return Err(Fault::refuse("it has too many files"));
            }
        }
        let saved = group(&files)?;
        Ok(Listing { files, saved })
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The disks whose tables are here.
    pub(super) fn disks(&self) -> Vec<String> {
        let tables = self.files.keys();
        tables
            .filter_map(|file| file.strip_suffix("-pt.parted").map(str::to_owned))
            .collect()
    }

    pub(super) fn saved(&self, partition: &str) -> Option<Saved> {
        self.saved.get(partition).cloned()
    }
}

/// The saved partitions among `files`, by the name of the partition.
fn group(files: &BTreeMap<String, u64>) -> Result<BTreeMap<String, Saved>, Fault> {
    let mut saved: BTreeMap<String, Saved> = BTreeMap::new();
    for (file, &bytes) in files {
        let Some((partition, rest)) = file.split_once('.') else {
            continue;
        };
        let Some((content, suffix)) = parse(file, rest)? else {
            continue;
        };
        let entry = saved.entry(partition.to_owned()).or_insert_with(|| Saved {
            content,
            first: file.clone(),
            bytes: 0,
            files: Vec::new(),
        });
        // In the order of names "x" comes before "x.aa", and ".aa" before ".ab".
        let expected = suffix.map(|suffix| piece(entry.files.len(), suffix.len()));
        if suffix.map(str::to_owned) != expected || suffix.is_none() && !entry.files.is_empty() {
            return Err(Fault::refuse(match (suffix, entry.files.last()) {
                (Some(_), None) => format!("the first piece is missing before {file}"),
                (Some(_), Some(before)) => {
                    format!("a piece is missing between {before} and {file}")
                }
                (None, _) => format!("{partition} was saved twice: {} and {file}", entry.first),
            }));
        }
        entry.bytes += bytes;
        entry.files.push(file.clone());
    }
    Ok(saved)
}

/// What a file with the ending `rest` holds, and its suffix if it is a piece; none when it is not
/// of a partition.
fn parse<'a>(file: &str, rest: &'a str) -> Result<Option<(Content, Option<&'a str>)>, Fault> {
    let refuse = |program: &str| {
        Err(Fault::refuse(format!(
            "{file} was made by {program}, which is not read; restore it with Clonezilla and make \
             the image of that disk"
        )))
    };
    let words: Vec<&str> = rest.split('.').collect();
    // sda2.dd-img.aa, but sda1.ext4-ptcl-img.gz.aa.
    let (content, suffix) = match words[0] {
        // Without a file system that partclone knows, Clonezilla keeps all there is.
        "dd-img" => (Content::Raw, words.get(1)),
        "dd-ptcl-img" => (Content::Raw, words.get(2)),
        "ntfs-img" => return refuse("ntfsclone"),
        "000" => return refuse("partimage"),
        word if word.ends_with("-ptcl-img") => (Content::Partclone, words.get(2)),
        _ => return Ok(None),
    };
    let letters = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    Ok(match suffix.copied() {
        Some("info") => None,
        Some(word) if !letters(&word) => None,
        suffix => Some((content, suffix)),
    })
}

/// The suffix of piece `index`, as `split` counts: aa, ab, … az, ba, …
fn piece(index: usize, letters: usize) -> String {
    let mut left = index;
    let mut suffix = vec![b'a'; letters];
    for letter in suffix.iter_mut().rev() {
        *letter += (left % 26) as u8;
        left /= 26;
    }
    String::from_utf8_lossy(&suffix).into_owned()
}

/// Files read one after another.
pub(super) struct Joined {
    files: VecDeque<PathBuf>,
    current: Option<File>,
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.current {
                match file.read(buffer)? {
                    0 if !buffer.is_empty() => self.current = None,
                    count => return Ok(count),
                }
            }
            let Some(next) = self.files.pop_front() else {
                return Ok(0);
            };
            self.current = Some(File::open(next)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(names: &[&str]) -> Result<BTreeMap<String, Saved>, Fault> {
        group(&names.iter().map(|name| (name.to_string(), 10)).collect())
    }

    #[test]
    fn pieces_are_joined_in_order_and_none_may_be_missing() {
        let saved = grouped(&[
            "sda1.ext4-ptcl-img.gz.ab",
            "sda1.ext4-ptcl-img.gz.aa",
            "sda2.dd-img.aa",
            "sda2.dd-img.info",
            "sda3.vfat-ptcl-img.zst",
            "sda5.xfs-ptcl-img.uncomp.aaa",
            "sda-pt.sf",
            "blkid.list",
        ])
        .unwrap();
        assert_eq!(saved.len(), 4);
        let first = &saved["sda1"];
        assert_eq!((first.content, first.bytes), (Content::Partclone, 20));
        assert!(first.files[0].ends_with("aa") && first.files[1].ends_with("ab"));
        assert_eq!(saved["sda2"].content, Content::Raw);
        for (names, word) in [
            (
                &["sda1.ext4-ptcl-img.gz.aa", "sda1.ext4-ptcl-img.gz.ac"][..],
                "missing",
            ),
            (&["sda1.ext4-ptcl-img.gz.ab"], "missing"),
            (
                &["sda1.ext4-ptcl-img.gz", "sda1.ext4-ptcl-img.zst"],
                "twice",
            ),
            (&["sda1.ntfs-img.aa"], "ntfsclone"),
            (&["sda1.000"], "partimage"),
        ] {
            let refused = grouped(names).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn suffixes_count_as_those_of_split() {
        let suffixes: Vec<String> = [0, 25, 26, 675].map(|index| piece(index, 2)).into();
        assert_eq!(suffixes, ["aa", "az", "ba", "zz"]);
        assert_eq!(piece(26, 3), "aba");
    }
}
