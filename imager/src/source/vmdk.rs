//! VMDK disks: one sparse file, or a descriptor that names the files a disk is in.
//!
//! After VMware's "Virtual Disk Format 1.1". Extents of a descriptor are looked for beside it and
//! nowhere else: a descriptor of a stranger must not make an image of this machine's files. A disk
//! with a parent is half a disk, and refused.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Component, Path};

use crate::read_at::ReadAt;
use crate::source::chunks::{Concatenated, Mapped, Nothing};
use crate::source::fault::Fault;
use crate::source::medium::{Extract, Medium};
use crate::source::vmdk::descriptor::{Descriptor, ExtentKind};
use crate::source::vmdk::sparse::Sparse;

mod descriptor;
mod sparse;

/// What a sparse extent begins with.
pub(super) const MAGIC: &[u8] = b"KDMV";
/// What a descriptor begins with.
pub(super) const DESCRIPTOR_MAGIC: &[u8] = b"# Disk DescriptorFile";

const SECTOR_BYTES: u64 = 512;
/// Largest descriptor, bytes.
const DESCRIPTOR_BYTES_MAX: u64 = 1 << 20;

/// Opens a disk that is one sparse file.
///
/// # Errors
/// When it is damaged, has a parent, or is only a part of a disk.
pub(super) fn open_sparse(extract: Extract) -> Result<Box<dyn Medium>, Fault> {
    let sparse = Sparse::open(extract)?;
    if let Some(text) = sparse.descriptor()? {
        let descriptor = Descriptor::parse(&text)?;
        if descriptor.extents.len() != 1 {
            return Err(Fault::refuse(
                "it is one of several files; name the descriptor, the small .vmdk beside it",
            ));
        }
    } else {
        return Err(Fault::refuse(
            "it is a part of a disk; name the descriptor, the small .vmdk beside it",
        ));
    }
    Ok(Box::new(Mapped(sparse)))
}

/// Opens the disk that the descriptor `extract`, a file in `directory`, tells of.
///
/// # Errors
/// When it is damaged, has a parent, or when a file it names is not beside it.
pub(super) fn open_descriptor(
    extract: &Extract,
    directory: Option<&Path>,
) -> Result<Box<dyn Medium>, Fault> {
    if extract.raw_bytes() > DESCRIPTOR_BYTES_MAX {
        return Err(Fault::refuse("its descriptor is larger than one can be"));
    }
    let mut text = vec![0; extract.raw_bytes() as usize];
    extract.read_exact_at(0, &mut text).map_err(Fault::Read)?;
    let descriptor = Descriptor::parse(&String::from_utf8_lossy(&text))?;
    let mut disk = Concatenated::new();
    let mut sparse_files = BTreeSet::new();
    for extent in &descriptor.extents {
        let bytes = extent.sectors.checked_mul(SECTOR_BYTES);
        let bytes = bytes.ok_or_else(|| Fault::refuse("it is larger than any disk"))?;
        let part: Box<dyn Medium> = match extent.kind {
            ExtentKind::Zero => Box::new(Nothing(bytes)),
            ExtentKind::Flat => {
                let file = beside(directory, &extent.file)?;
                let start = extent.offset.checked_mul(SECTOR_BYTES);
                let part = start.and_then(|start| file.part(start, bytes));
                let name = &extent.file;
                Box::new(part.ok_or_else(|| Fault::refuse(format!("{name} is cut short")))?)
            }
            ExtentKind::Sparse => {
                // Its directory is kept in memory: once, as large as the file pays for.
                if !sparse_files.insert(&extent.file) {
                    let name = extent.file.escape_debug();
                    return Err(Fault::refuse(format!("it names the file {name} twice")));
                }
                let sparse = Sparse::open(beside(directory, &extent.file)?)?;
                let sparse = sparse.cut(bytes);
                let name = &extent.file;
                Box::new(Mapped(sparse.ok_or_else(|| {
                    Fault::refuse(format!("{name} is smaller than its descriptor says"))
                })?))
            }
        };
        if !disk.push(part) {
            return Err(Fault::refuse("it is larger than any disk"));
        }
    }
    Ok(Box::new(disk))
}

/// The file `name` in `directory`.
fn beside(directory: Option<&Path>, name: &str) -> Result<Extract, Fault> {
    let directory = directory.ok_or_else(|| {
        Fault::refuse("its descriptor names other files, which an archive or a spool has not")
    })?;
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(_)));
    if !plain || components.next().is_some() {
        let name = name.escape_debug();
        return Err(Fault::refuse(format!(
            "it names the file {name}; only files beside it are read"
        )));
    }
    let path = directory.join(name);
    // A link could lead anywhere, too.
    let metadata = std::fs::symlink_metadata(&path);
    let refuse = |error| Fault::refuse(format!("its file {}: {error}", name.escape_debug()));
    if !metadata.map_err(refuse)?.is_file() {
        let name = name.escape_debug();
        return Err(Fault::refuse(format!("its file {name} is no plain file")));
    }
    let mut file = File::open(path).map_err(refuse)?;
    let bytes = file.seek(SeekFrom::End(0)).map_err(Fault::Read)?;
    Ok(Extract::new(file, bytes))
}
