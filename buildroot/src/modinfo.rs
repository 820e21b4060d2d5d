//! What a kernel module says of itself, in its `.modinfo` section: `key=value` strings, each ended by a zero byte.
//!
//! The kernel's build writes `depends=` after it has resolved every symbol, so no symbol table needs reading here.

use crate::elf::{Elf, ElfError, TYPE_RELOCATABLE};

/// The facts of one module.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Modinfo {
    /// Modules whose symbols it uses.
    pub(crate) depends: Vec<String>,
    /// What to load before it, when there is such a thing: module names or aliases.
    pub(crate) soft_before: Vec<String>,
    /// What to load after it.
    pub(crate) soft_after: Vec<String>,
    /// Patterns of the devices it serves, and other names it is asked for by.
    pub(crate) aliases: Vec<String>,
    /// Files below `/lib/firmware` it may ask for.
    pub(crate) firmware: Vec<String>,
}

impl Modinfo {
    /// Reads the section of an uncompressed module. A module without one says nothing.
    pub(crate) fn of_module(bytes: &[u8]) -> Result<Self, ElfError> {
        let elf = Elf::parse(bytes)?;
        if elf.kind()? != TYPE_RELOCATABLE {
            return Ok(Self::default());
        }
        Ok(Self::parse(elf.section(".modinfo")?.unwrap_or_default()))
    }

    fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for line in section.split(|byte| *byte == 0) {
            // Keys and the values used here are ASCII; a description may be anything and is not looked at.
            let Some((key, value)) = std::str::from_utf8(line)
                .ok()
                .and_then(|text| text.split_once('='))
            else {
                continue;
            };
            match key {
                "depends" => info.depends.extend(
                    value
                        .split(',')
                        .filter(|name| !name.is_empty())
                        .map(canonical),
                ),
                "softdep" => info.add_soft(value),
                "alias" if !value.contains(char::is_whitespace) => {
                    info.aliases.push(value.to_owned())
                }
                "firmware" => info.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        info
    }

    fn add_soft(&mut self, value: &str) {
        let mut list = None;
        for word in value.split_whitespace() {
            match word {
                "pre:" => list = Some(&mut self.soft_before),
                "post:" => list = Some(&mut self.soft_after),
                name => {
                    if let Some(list) = &mut list {
                        list.push(canonical(name));
                    }
                }
            }
        }
    }
}

/// A module's name as the kernel lists it: `-` and `_` are the same there.
pub(crate) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elf::tests::made_up;

    #[test]
    fn the_facts_of_a_module_are_read() {
        let section = b"license=GPL\0depends=libata,scsi-mod\0softdep=pre: crc32c post: b\0softdep=pre: a-x\0\
            alias=pci:v00008086d*\0alias=two words\0firmware=rtl_nic/rtl8168d-1.fw\0description=\xff=\0depends=\0";
        let module = made_up(
            TYPE_RELOCATABLE,
            0,
            &[],
            &[(".text", b"\0"), (".modinfo", section)],
        );
        let info = Modinfo::of_module(&module).unwrap();
        assert_eq!(info.depends, ["libata", "scsi_mod"]);
        assert_eq!(info.soft_before, ["crc32c", "a_x"]);
        assert_eq!(info.soft_after, ["b"]);
        assert_eq!(info.aliases, ["pci:v00008086d*"]);
        assert_eq!(info.firmware, ["rtl_nic/rtl8168d-1.fw"]);
    }

    #[test]
    fn a_module_without_the_section_says_nothing() {
        let module = made_up(TYPE_RELOCATABLE, 0, &[], &[]);
        assert_eq!(Modinfo::of_module(&module), Ok(Modinfo::default()));
    }

    proptest! {
        #[test]
        fn any_section_is_read(section: Vec<u8>) {
            Modinfo::parse(&section);
        }
    }
}
