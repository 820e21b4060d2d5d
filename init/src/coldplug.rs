//! Drivers for what the machine has: every modalias below `/sys` until nothing new turns up.
//!
//! A loaded bus driver makes new devices with new modaliases, USB and RAID controllers take
//! seconds; so the walk is repeated, fast at first and slowly for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use crate::modules::{LoadError, ModuleIndex, load};

/// Pause between walks while devices still turn up.
const FAST: Duration = Duration::from_millis(200);
/// Pause once the machine is quiet: a disk may be plugged in while it waits for a job.
const SLOW: Duration = Duration::from_secs(3);
/// Quiet walks before the pace slows down: 15 seconds.
const QUIET_WALKS: u32 = 75;
/// How deep `/sys/devices` may be nested; USB hubs behind bridges reach 20.
const DEPTH_MAX: u32 = 40;
/// Modules no device asks for by name. Cards of the MMC bus have no `modalias` in `/sys`.
const ALWAYS: &[&str] = &["mmc_block"];

/// Walks `/sys` and loads modules.
#[derive(Debug)]
pub(crate) struct Coldplug {
    index: ModuleIndex,
    modaliases: BTreeSet<String>,
    tried: BTreeSet<PathBuf>,
    loaded: usize,
}

impl Coldplug {
    /// A walker that has seen nothing yet.
    pub(crate) fn new(index: ModuleIndex) -> Coldplug {
        Coldplug {
            index,
            modaliases: BTreeSet::new(),
            tried: BTreeSet::new(),
            loaded: 0,
        }
    }

    /// Walks until a walk finds nothing new, then goes on in a thread of its own. `more` are further modules no device
    /// asks for.
    pub(crate) fn start(mut self, more: &[&str]) {
        for module in ALWAYS.iter().chain(more) {
            self.load_module(module);
        }
        while self.walk() > 0 {}
        log::info!(
            "coldplug devices={} modules={}",
            self.modaliases.len(),
            self.loaded
        );
        let spawned = thread::Builder::new()
            .name("coldplug".into())
            .spawn(move || self.watch());
        if let Err(error) = spawned {
            log::warn!("devices that turn up later get no driver: {error}");
        }
    }

    fn watch(mut self) {
        let mut quiet = 0;
        loop {
            thread::sleep(if quiet < QUIET_WALKS { FAST } else { SLOW });
            quiet = if self.walk() > 0 {
                0
            } else {
                quiet.saturating_add(1)
            };
        }
    }

    /// One walk; how many modules it put into the kernel.
    fn walk(&mut self) -> usize {
        let mut found = Vec::new();
        collect(Path::new("/sys/devices"), DEPTH_MAX, &mut found);
        let before = self.loaded;
        for modalias in found {
            if self.modaliases.contains(&modalias) {
                continue;
            }
            let modules: Vec<String> = self
                .index
                .serving(&modalias)
                .into_iter()
                .map(str::to_owned)
                .collect();
            self.modaliases.insert(modalias);
            for module in modules {
                self.load_module(&module);
            }
        }
        self.loaded - before
    }

    fn load_module(&mut self, module: &str) {
        for file in self.index.load_order(module) {
            if !self.tried.insert(file.clone()) {
                continue;
            }
            match load(&file) {
                Ok(()) => {
                    self.loaded += 1;
                    log::debug!("module {}", file.display());
                }
                // Made for a processor or board this machine is not: nothing is missing.
                Err(LoadError::Refused {
                    source: Errno::ENODEV,
                    ..
                }) => log::debug!("module {} is not for this machine", file.display()),
                // One driver less may or may not matter; the disk or link it serves will tell.
                Err(error) => log::warn!("{error}"),
            }
        }
    }
}

/// Every `modalias` below a directory. Links are not followed: the tree has no other way up.
fn collect(directory: &Path, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 {
            collect(&entry.path(), depth - 1, found);
        } else if kind.is_file()
            && entry.file_name() == "modalias"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            let text = text.trim_end();
            if !text.is_empty() {
                found.push(text.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modaliases_are_found_at_any_depth_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("pci0000:00/0000:00:03.0/virtio0");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("modalias"), "virtio:d00000001v00001AF4\n").unwrap();
        fs::write(root.path().join("modalias"), "\n").unwrap();
        std::os::unix::fs::symlink(root.path(), deep.join("up")).unwrap();
        let mut found = Vec::new();
        collect(root.path(), DEPTH_MAX, &mut found);
        assert_eq!(found, ["virtio:d00000001v00001AF4"]);
    }

    #[test]
    fn the_depth_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("modalias"), "deep").unwrap();
        let mut found = Vec::new();
        collect(root.path(), 1, &mut found);
        assert!(found.is_empty());
    }
}
