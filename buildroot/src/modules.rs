//! The modules of one kernel, and the choice of those an appliance carries.
//!
//! A module is carried with everything it depends on, and with its soft dependencies as far as the kernel has them. A
//! soft dependency may name an algorithm, such as `crc32c`, instead of a module; then every module of the kernel's
//! crypto directories that answers to the name comes along, for the agent cannot be asked by the kernel to load one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::elf::ElfError;
use crate::modinfo::{Modinfo, canonical};
use crate::unpack::{UnpackError, unpack};

/// Directories whose modules answer to the name of an algorithm.
const ALGORITHMS: &[&str] = &["kernel/crypto/", "kernel/arch/x86/crypto/", "kernel/lib/"];
/// Directories below `/lib/modules/VERSION` are not nested deeper than this.
const DEPTH_MAX: usize = 16;

/// Why a kernel's modules cannot be read.
#[derive(Debug, Error)]
pub enum ModulesError {
    /// A file or directory cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A compressed module cannot be unpacked.
    #[error("unpacking module {path}")]
    Unpack {
        /// The module.
        path: PathBuf,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// A module is no ELF file, or a damaged one.
    #[error("module {path} is damaged")]
    Damaged {
        /// The module.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
}

/// One module that is carried.
#[derive(Debug)]
pub(crate) struct Module {
    /// Path below `/lib/modules/VERSION`, without the ending of a compression.
    pub(crate) path: String,
    /// The module, uncompressed.
    pub(crate) bytes: Vec<u8>,
    pub(crate) info: Modinfo,
}

/// The modules of a kernel, as its package lays them out: `/lib/modules/VERSION`.
#[derive(Debug)]
pub(crate) struct ModuleTree {
    root: PathBuf,
    /// Name → path below the root.
    files: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
    /// Text of `modules.builtin`.
    pub(crate) builtin_list: String,
}

/// What was chosen.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// By name.
    pub(crate) modules: BTreeMap<String, Module>,
    /// Asked for or depended upon, but the kernel has no such module.
    pub(crate) missing: BTreeSet<String>,
}

impl ModuleTree {
    /// Lists the modules below `root`.
    pub(crate) fn open(root: &Path) -> Result<Self, ModulesError> {
        let list = root.join("modules.builtin");
        let builtin_list = fs::read_to_string(&list)
            .map_err(|source| ModulesError::Read { path: list, source })?;
        let mut tree = Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            builtin: builtin_list.lines().filter_map(module_name).collect(),
            builtin_list,
        };
        tree.walk("kernel", DEPTH_MAX)?;
        Ok(tree)
    }

    /// The wanted modules and whatever they need.
    pub(crate) fn select<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a str>,
    ) -> Result<Selection, ModulesError> {
        let mut selection = Selection::default();
        let mut algorithms = None;
        let mut waiting: Vec<String> = wanted.into_iter().map(canonical).collect();
        while let Some(name) = waiting.pop() {
            if selection.modules.contains_key(&name) || self.builtin.contains(&name) {
                continue;
            }
            let Some(path) = self.files.get(&name) else {
                selection.missing.insert(name);
                continue;
            };
            let mut module = self.read(path)?;
            for list in [&mut module.info.soft_before, &mut module.info.soft_after] {
                *list = self.resolve(list, &mut algorithms)?;
            }
            waiting.extend(module.info.depends.iter().cloned());
            waiting.extend(
                module
                    .info
                    .soft_before
                    .iter()
                    .chain(&module.info.soft_after)
                    .cloned(),
            );
            selection.modules.insert(name, module);
        }
        Ok(selection)
    }

    /// Names of modules for what soft dependencies ask for; what the kernel does not have, or has built in, is left out.
    fn resolve(
        &self,
        asked: &[String],
        algorithms: &mut Option<Algorithms>,
    ) -> Result<Vec<String>, ModulesError> {
        let mut names = Vec::new();
        for name in asked {
            if self.files.contains_key(name) {
                names.push(name.clone());
            } else if !self.builtin.contains(name) {
                let known = match algorithms {
                    Some(known) => known,
                    None => algorithms.insert(self.algorithms()?),
                };
                names.extend(known.get(name).into_iter().flatten().cloned());
            }
        }
        Ok(names)
    }

    fn algorithms(&self) -> Result<Algorithms, ModulesError> {
        let mut algorithms = Algorithms::new();
        for (name, path) in &self.files {
            if ALGORITHMS
                .iter()
                .any(|directory| path.starts_with(directory))
            {
                for alias in self.read(path)?.info.aliases {
                    algorithms
                        .entry(canonical(&alias))
                        .or_default()
                        .push(name.clone());
                }
            }
        }
        Ok(algorithms)
    }

    fn read(&self, path: &str) -> Result<Module, ModulesError> {
        let file = self.root.join(path);
        let packed = fs::read(&file).map_err(|source| ModulesError::Read {
            path: file.clone(),
            source,
        })?;
        let bytes = unpack(path, packed).map_err(|source| ModulesError::Unpack {
            path: file.clone(),
            source,
        })?;
        let info = Modinfo::of_module(&bytes)
            .map_err(|source| ModulesError::Damaged { path: file, source })?;
        let plain = path.find(".ko").map_or(path, |at| &path[..at + 3]);
        Ok(Module {
            path: plain.to_owned(),
            bytes,
            info,
        })
    }

    fn walk(&mut self, directory: &str, depth: usize) -> Result<(), ModulesError> {
        let path = self.root.join(directory);
        let failed = |source| ModulesError::Read {
            path: path.clone(),
            source,
        };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            // A name that is no text cannot stand in modules.dep either.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let below = format!("{directory}/{name}");
            if kind.is_dir() && depth > 0 {
                self.walk(&below, depth - 1)?;
            } else if kind.is_file()
                && let Some(module) = module_name(&name)
            {
                self.files.insert(module, below);
            }
        }
        Ok(())
    }
}

type Algorithms = BTreeMap<String, Vec<String>>;

/// `kernel/drivers/net/e1000-x.ko.xz` → `e1000_x`; nothing for a file that is no module.
fn module_name(path: &str) -> Option<String> {
    let (stem, packing) = path.rsplit('/').next()?.split_once(".ko")?;
    matches!(packing, "" | ".xz" | ".zst" | ".gz").then(|| canonical(stem))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elf::TYPE_RELOCATABLE;
    use crate::elf::tests::made_up;

    /// A module with this `.modinfo`, its entries divided by `|`.
    pub(crate) fn made_up_module(modinfo: &str) -> Vec<u8> {
        made_up(
            TYPE_RELOCATABLE,
            0,
            &[],
            &[(".modinfo", modinfo.replace('|', "\0").as_bytes())],
        )
    }

    /// A `/lib/modules/VERSION` of modules that each depend on another in its own way.
    pub(crate) fn made_up_tree(root: &Path) {
        for (path, modinfo) in [
            (
                "drivers/net/e1000-x.ko",
                "depends=mii|alias=pci:v00008086d0000100Esv*|firmware=e1000/x.fw",
            ),
            ("drivers/net/mii.ko", "depends="),
            ("drivers/scsi/sd_mod.ko", "depends=t10-pi,scsi_mod"),
            ("lib/t10-pi.ko", "depends=crc-t10dif"),
            (
                "lib/crc-t10dif.ko",
                "softdep=pre: crct10dif absent_algorithm builtin_algorithm",
            ),
            (
                "crypto/crct10dif_generic.ko",
                "alias=crct10dif|alias=crypto-crct10dif",
            ),
            (
                "arch/x86/crypto/crct10dif-fast.ko",
                "alias=crct10dif|depends=circle_a",
            ),
            ("crypto/circle_a.ko", "depends=circle_b"),
            ("crypto/circle_b.ko", "depends=circle_a"),
            ("drivers/unused.ko", "depends=mii"),
            ("drivers/lonely.ko", "depends=not_there"),
        ] {
            let path = root.join("kernel").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, made_up_module(modinfo)).unwrap();
        }
        fs::write(root.join("kernel/drivers/README"), "no module").unwrap();
        fs::write(
            root.join("modules.builtin"),
            "kernel/drivers/scsi_mod.ko\nkernel/builtin-algorithm.ko\n",
        )
        .unwrap();
    }

    fn names(wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        made_up_tree(root.path());
        let selection = ModuleTree::open(root.path())
            .unwrap()
            .select(wanted.iter().copied())
            .unwrap();
        (
            selection.modules.into_keys().collect(),
            selection.missing.into_iter().collect(),
        )
    }

    #[test]
    fn a_module_brings_what_it_depends_on() {
        assert_eq!(
            names(&["e1000-x"]),
            (vec!["e1000_x".into(), "mii".into()], vec![])
        );
    }

    #[test]
    fn an_algorithm_brings_every_module_that_answers_to_it() {
        let (modules, missing) = names(&["sd_mod"]);
        let expected = [
            "circle_a",
            "circle_b",
            "crc_t10dif",
            "crct10dif_fast",
            "crct10dif_generic",
            "sd_mod",
            "t10_pi",
        ];
        assert_eq!(modules, expected);
        assert!(
            missing.is_empty(),
            "soft dependencies and built-in modules are not missed: {missing:?}"
        );
    }

    #[test]
    fn what_the_kernel_does_not_have_is_named() {
        assert_eq!(
            names(&["lonely", "never_was"]),
            (
                vec!["lonely".into()],
                vec!["never_was".into(), "not_there".into()]
            )
        );
    }

    #[test]
    fn a_built_in_module_needs_no_file() {
        assert_eq!(names(&["scsi_mod"]), (vec![], vec![]));
    }

    #[test]
    fn a_compressed_module_is_carried_plain() {
        let root = tempfile::tempdir().unwrap();
        made_up_tree(root.path());
        let plain = made_up_module("depends=mii");
        fs::write(
            root.path().join("kernel/new.ko.zst"),
            zstd::encode_all(&plain[..], 3).unwrap(),
        )
        .unwrap();
        let selection = ModuleTree::open(root.path())
            .unwrap()
            .select(["new"])
            .unwrap();
        assert_eq!(selection.modules["new"].path, "kernel/new.ko");
        assert_eq!(selection.modules["new"].bytes, plain);
        assert!(selection.modules.contains_key("mii"));
    }

    #[test]
    fn a_damaged_module_is_named() {
        let root = tempfile::tempdir().unwrap();
        made_up_tree(root.path());
        fs::write(root.path().join("kernel/bad.ko"), "garbage").unwrap();
        let error = ModuleTree::open(root.path())
            .unwrap()
            .select(["bad"])
            .unwrap_err();
        assert!(error.to_string().contains("kernel/bad.ko"));
    }
}
