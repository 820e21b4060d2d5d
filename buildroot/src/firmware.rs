//! Firmware files that the carried modules name, taken from a directory laid out like `/lib/firmware`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::modules::Selection;

/// Why a firmware file cannot be taken.
#[derive(Debug, Error)]
#[error("reading firmware {path}")]
pub struct FirmwareError {
    /// The file.
    path: PathBuf,
    source: io::Error,
}

/// What was found and what was not, by the names modules use.
#[derive(Debug, Default)]
pub(crate) struct Firmware {
    /// Name in the archive below `lib/firmware` → content. Compressed files stay so: the kernel unpacks them.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) missing: BTreeSet<String>,
}

/// Collects the firmware of `selection` from `directory`; without one, all of it is missing.
pub(crate) fn collect(
    selection: &Selection,
    directory: Option<&Path>,
) -> Result<Firmware, FirmwareError> {
    let mut firmware = Firmware::default();
    for name in selection
        .modules
        .values()
        .flat_map(|module| &module.info.firmware)
    {
        match directory
            .map(|directory| find(directory, name))
            .transpose()?
            .flatten()
        {
            Some((stored, content)) => _ = firmware.files.insert(stored, content),
            None => _ = firmware.missing.insert(name.clone()),
        }
    }
    Ok(firmware)
}

fn find(directory: &Path, name: &str) -> Result<Option<(String, Vec<u8>)>, FirmwareError> {
    // A name comes from a module; one that leads out of the directory is no firmware.
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Ok(None);
    }
    for ending in ["", ".xz", ".zst"] {
        let stored = format!("{name}{ending}");
        let path = directory.join(&stored);
        match fs::read(&path) {
            Ok(content) => return Ok(Some((stored, content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FirmwareError { path, source }),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::ModuleTree;
    use crate::modules::tests::made_up_tree;

    #[test]
    fn firmware_a_module_names_is_found_packed_or_plain_or_missed() {
        let root = tempfile::tempdir().unwrap();
        made_up_tree(root.path());
        let selection = ModuleTree::open(root.path())
            .unwrap()
            .select(["e1000_x"])
            .unwrap();
        let library = tempfile::tempdir().unwrap();
        let found = |directory| collect(&selection, directory).unwrap();
        assert!(found(None).missing.contains("e1000/x.fw"));
        assert!(found(Some(library.path())).missing.contains("e1000/x.fw"));
        fs::create_dir(library.path().join("e1000")).unwrap();
        fs::write(library.path().join("e1000/x.fw.zst"), "packed").unwrap();
        let firmware = found(Some(library.path()));
        assert_eq!(firmware.files["e1000/x.fw.zst"], b"packed");
        assert!(firmware.missing.is_empty());
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_directory() {
        assert_eq!(find(Path::new("/etc/x"), "../hostname").unwrap(), None);
        assert_eq!(find(Path::new("/etc"), "/hostname").unwrap(), None);
    }
}
