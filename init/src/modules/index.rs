//! `modules.dep`, `modules.alias` and `modules.softdep` of the running kernel.
//!
//! The files are text that `depmod` (or the appliance builder) wrote. A line that makes no
//! sense is skipped: a missing driver shows, a dead PID 1 does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::glob;

/// Modules one module may pull in; a longer chain is a damaged file.
const ORDER_MAX: usize = 256;

/// What `/lib/modules/VERSION` knows.
#[derive(Debug, Default)]
pub(crate) struct ModuleIndex {
    root: PathBuf,
    modules: BTreeMap<String, Module>,
    aliases: Vec<(String, String)>,
    soft: BTreeMap<String, SoftDependencies>,
}

#[derive(Debug, Default)]
struct Module {
    file: String,
    needs: Vec<String>,
}

#[derive(Debug, Default)]
struct SoftDependencies {
    before: Vec<String>,
    after: Vec<String>,
}

impl ModuleIndex {
    /// Reads the index of the kernel that runs.
    ///
    /// # Errors
    /// When there is no `modules.dep`: then no driver can be loaded at all.
    pub(crate) fn of_running_kernel() -> io::Result<ModuleIndex> {
        let uname = nix::sys::utsname::uname()?;
        let root = Path::new("/lib/modules").join(uname.release());
        // The others may be absent: no alias file means nothing is found by itself.
        let optional = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        let dependencies = fs::read_to_string(root.join("modules.dep"))?;
        let mut index = ModuleIndex::parse(
            &dependencies,
            &optional("modules.alias"),
            &optional("modules.softdep"),
        );
        index.root = root;
        Ok(index)
    }

    /// Reads the three files' texts.
    pub(crate) fn parse(dependencies: &str, aliases: &str, soft: &str) -> ModuleIndex {
        let mut index = ModuleIndex::default();
        for line in dependencies.lines() {
            if let Some((file, needs)) = line.split_once(':')
                && let Some(name) = name_of(file)
            {
                let module = Module {
                    file: file.to_owned(),
                    needs: needs.split_whitespace().filter_map(name_of).collect(),
                };
                index.modules.insert(name, module);
            }
        }
        for line in aliases.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module), None) =
                (words.next(), words.next(), words.next(), words.next())
            {
                index.aliases.push((pattern.to_owned(), canonical(module)));
            }
        }
        for line in soft.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("softdep")
                && let Some(module) = words.next()
            {
                let entry = index.soft.entry(canonical(module)).or_default();
                entry.read(words);
            }
        }
        index
    }

    /// Modules that serve a device with this modalias, each once, in the file's order.
    pub(crate) fn serving(&self, modalias: &str) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.aliases
            .iter()
            .filter(|(pattern, _)| glob::matches(pattern.as_bytes(), modalias.as_bytes()))
            .map(|(_, module)| module.as_str())
            .filter(|module| self.modules.contains_key(*module) && seen.insert(*module))
            .collect()
    }

    /// Files to load for a module, what is needed first coming first; empty if unknown.
    ///
    /// Soft dependencies that the appliance does not carry are left out.
    pub(crate) fn load_order(&self, module: &str) -> Vec<PathBuf> {
        let mut order = Vec::new();
        let mut visited = BTreeSet::new();
        self.visit(&canonical(module), &mut visited, &mut order);
        order.into_iter().map(|file| self.root.join(file)).collect()
    }

    fn visit<'a>(&'a self, name: &str, visited: &mut BTreeSet<String>, order: &mut Vec<&'a str>) {
        // A circle in a damaged file ends here, and so does a chain without end.
        if visited.len() >= ORDER_MAX || !visited.insert(name.to_owned()) {
            return;
        }
        let Some(module) = self.modules.get(name) else {
            return;
        };
        let soft = self.soft.get(name);
        for needed in soft.iter().flat_map(|soft| &soft.before) {
            self.visit(needed, visited, order);
        }
        for needed in &module.needs {
            self.visit(needed, visited, order);
        }
        order.push(&module.file);
        for wanted in soft.iter().flat_map(|soft| &soft.after) {
            self.visit(wanted, visited, order);
        }
    }
}

impl SoftDependencies {
    fn read<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mut list = None;
        for word in words {
            match word {
                "pre:" => list = Some(&mut self.before),
                "post:" => list = Some(&mut self.after),
                name => {
                    if let Some(list) = &mut list {
                        list.push(canonical(name));
                    }
                }
            }
        }
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` → `virtio_net`; nothing for another kind of file.
fn name_of(file: &str) -> Option<String> {
    let (stem, packing) = file.rsplit('/').next()?.split_once(".ko")?;
    let known = matches!(packing, "" | ".xz" | ".zst" | ".gz");
    (known && !stem.is_empty()).then(|| canonical(stem))
}

/// The kernel does not tell `-` from `_` in a module's name.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index() -> ModuleIndex {
        ModuleIndex::parse(
            "kernel/lib/crc.ko:\n\
             kernel/net/failover.ko.zst:\n\
             kernel/net/net-failover.ko: kernel/net/failover.ko.zst\n\
             kernel/drivers/net/virtio_net.ko.xz: kernel/net/net-failover.ko kernel/net/failover.ko.zst\n\
             kernel/drivers/sd_mod.ko: kernel/lib/crc.ko\n\
             kernel/a.ko: kernel/b.ko\n\
             kernel/b.ko: kernel/a.ko\n",
            "# a comment\n\
             alias virtio:d00000001v* virtio_net\n\
             alias virtio:d00000001v* virtio-net\n\
             alias scsi:t-0x00* sd_mod\n\
             alias scsi:t-0x00* absent\n",
            "softdep virtio-net pre: sd-mod absent post: b\n",
        )
    }

    fn order(module: &str) -> Vec<String> {
        index()
            .load_order(module)
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn a_device_finds_its_module_once() {
        assert_eq!(index().serving("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(index().serving("scsi:t-0x00"), ["sd_mod"]);
        assert!(index().serving("scsi:t-0x05").is_empty());
    }

    #[test]
    fn what_is_needed_comes_first_and_soft_dependencies_around() {
        assert_eq!(
            order("virtio_net"),
            [
                "kernel/lib/crc.ko",
                "kernel/drivers/sd_mod.ko",
                "kernel/net/failover.ko.zst",
                "kernel/net/net-failover.ko",
                "kernel/drivers/net/virtio_net.ko.xz",
                "kernel/a.ko",
                "kernel/b.ko",
            ]
        );
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(order("a"), ["kernel/b.ko", "kernel/a.ko"]);
    }

    #[test]
    fn an_unknown_module_loads_nothing() {
        assert!(order("nothing").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(dep in ".*", alias in ".*", soft in ".*", name in ".*") {
            let index = ModuleIndex::parse(&dep, &alias, &soft);
            index.serving(&name);
            index.load_order(&name);
        }

        #[test]
        fn damaged_lines_do_no_harm(
            dep in proptest::collection::vec("(kernel/)?[ab]?(\\.ko)?(:| )[ab/.ko ]{0,12}\n", 0..20),
            soft in proptest::collection::vec("softdep? ?[ab]? (pre:|post:)? ?[ab]?\n", 0..20),
        ) {
            let index = ModuleIndex::parse(&dep.concat(), "", &soft.concat());
            let order = index.load_order("a");
            let once: BTreeSet<_> = order.iter().collect();
            prop_assert_eq!(once.len(), order.len());
        }
    }
}
