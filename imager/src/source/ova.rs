//! OVA files: a tar archive with a machine's description (OVF), its disks, and checksums of them.
//!
//! After DMTF DSP0243. The disk is read where it lies in the archive.

use ring::digest;

use crate::read_at::ReadAt;
use crate::source::fault::Fault;
use crate::source::medium::Extract;
use crate::source::ova::archive::{Archive, Member};
use crate::source::spool::{STEP_BYTES, Workshop};

mod archive;
mod ovf;

/// Where a tar archive says what it is, and what it says.
pub(super) const MAGIC_AT: usize = 257;
pub(super) const MAGIC: &[u8] = b"ustar";

/// Largest description or list of checksums, bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// The disk that is wanted, and notes about others.
///
/// # Errors
/// When the archive is damaged or is no machine, when a checksum is wrong, when there is no such
/// disk.
pub(super) fn open(
    extract: &Extract,
    workshop: &mut Workshop,
) -> Result<(Extract, Vec<String>), Fault> {
    let archive = Archive::read(extract)?;
    let description = archive.ending(".ovf");
    let description = description.ok_or_else(|| {
        Fault::refuse("it is a tar archive without the description (.ovf) of a machine; unpack it")
    })?;
    let disks = ovf::disks(&text(&description.content)?);
    let index = workshop.disk.map_or(0, |number| number as usize - 1);
    let Some(name) = disks.get(index) else {
        return Err(Fault::refuse(match disks.len() {
            0 => "its description names no disk".into(),
            count => format!("it has no disk {}, only {count}", index + 1),
        }));
    };
    let mut notes = Vec::new();
    if disks.len() > 1 && workshop.disk.is_none() {
        let count = disks.len();
        notes.push(format!(
            "of its {count} disks this is the first, {name}; see --disk"
        ));
    }
    let disk = archive.named(name);
    let disk = disk.ok_or_else(|| {
        let name = name.escape_debug();
        Fault::refuse(format!("the disk {name} is not in it"))
    })?;
    if let Some(list) = archive.ending(".mf") {
        let list = text(&list.content)?;
        check(&list, description, workshop)?;
        check(&list, disk, workshop)?;
    } else {
        notes.push("the OVA has no checksums (.mf): it is taken as it is".into());
    }
    Ok((disk.content.clone(), notes))
}

fn text(extract: &Extract) -> Result<String, Fault> {
    if extract.raw_bytes() > TEXT_BYTES_MAX {
        return Err(Fault::refuse("its description is larger than one can be"));
    }
    let mut bytes = vec![0; extract.raw_bytes() as usize];
    extract.read_exact_at(0, &mut bytes).map_err(Fault::Read)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Compares `member` with the checksum in `list`, lines like `SHA256(disk1.vmdk)= 0123…`.
fn check(list: &str, member: &Member, workshop: &mut Workshop) -> Result<(), Fault> {
    let name = &member.name;
    let listed = list.lines().find_map(|line| {
        let (left, sum) = line.rsplit_once('=')?;
        let (algorithm, file) = left.trim().strip_suffix(')')?.split_once('(')?;
        (file.trim() == name).then_some((algorithm.trim(), sum.trim()))
    });
    let Some((algorithm, sum)) = listed else {
        return Err(Fault::refuse(format!("its list of checksums lacks {name}")));
    };
    let algorithm = match algorithm.to_ascii_uppercase().as_str() {
        "SHA1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "SHA256" => &digest::SHA256,
        "SHA384" => &digest::SHA384,
        "SHA512" => &digest::SHA512,
        other => {
            let other = other.escape_debug();
            return Err(Fault::refuse(format!("checksums by {other} are not known")));
        }
    };
    let mut context = digest::Context::new(algorithm);
    let total = member.content.raw_bytes();
    let mut buffer = vec![0; STEP_BYTES];
    let mut done = 0;
    while done < total {
        let count = (total - done).min(STEP_BYTES as u64) as usize;
        let piece = &mut buffer[..count];
        member
            .content
            .read_exact_at(done, piece)
            .map_err(Fault::Read)?;
        context.update(piece);
        done += count as u64;
        workshop.step(done, total)?;
    }
    let digest = context.finish();
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match hex.eq_ignore_ascii_case(sum) {
        true => Ok(()),
        false => Err(Fault::refuse(format!(
            "the checksum of {name} is wrong: the file is damaged; fetch it again"
        ))),
    }
}
