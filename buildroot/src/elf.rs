//! The little of ELF that matters here: is this program able to run alone, and what does a kernel module say of itself.
//!
//! Only 64-bit little-endian files are read. Every offset comes from the file and is checked before use; a damaged or
//! hostile file is an [`ElfError`].

use thiserror::Error;

/// `e_machine` of x86-64.
pub(crate) const MACHINE_X86_64: u16 = 62;
/// `e_type` of a relocatable file, such as a kernel module.
pub(crate) const TYPE_RELOCATABLE: u16 = 1;
/// `e_type` of a program at a fixed address.
pub(crate) const TYPE_EXECUTABLE: u16 = 2;
/// `e_type` of a shared object, and of a position-independent program.
pub(crate) const TYPE_DYNAMIC: u16 = 3;

const SEGMENT_LOAD: u32 = 1;
const SEGMENT_INTERPRETER: u32 = 3;

/// Why a file cannot be read as ELF.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    /// The file does not begin with the mark of ELF.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit or big-endian file.
    #[error("not a 64-bit little-endian ELF file")]
    OtherClass,
    /// A table or section lies outside the file.
    #[error("ELF file is damaged: {0} lies outside of it")]
    Outside(&'static str),
}

/// An ELF file in memory.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        if bytes.get(4..6) != Some(&[2, 1]) {
            return Err(ElfError::OtherClass);
        }
        if bytes.len() < 64 {
            return Err(ElfError::Outside("the header"));
        }
        Ok(Self { bytes })
    }

    /// What kind of file it is: one of the `TYPE_` numbers, or another.
    pub(crate) fn kind(&self) -> Result<u16, ElfError> {
        self.u16(16, "the header")
    }

    pub(crate) fn machine(&self) -> Result<u16, ElfError> {
        self.u16(18, "the header")
    }

    /// Address of the first instruction; 0 for a library.
    pub(crate) fn entry(&self) -> Result<u64, ElfError> {
        self.u64(24, "the header")
    }

    /// Whether the kernel must start another program, the dynamic linker, to run this one.
    pub(crate) fn has_interpreter(&self) -> Result<bool, ElfError> {
        Ok(self.segment_types()?.contains(&SEGMENT_INTERPRETER))
    }

    /// Whether there is anything to load into memory.
    pub(crate) fn has_code(&self) -> Result<bool, ElfError> {
        Ok(self.segment_types()?.contains(&SEGMENT_LOAD))
    }

    /// The content of the section called `name`, if there is one.
    pub(crate) fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ElfError> {
        const TABLE: &str = "the section table";
        let table = self.u64(40, TABLE)?;
        let (entry_bytes, count) = (self.u16(58, TABLE)?, self.u16(60, TABLE)?);
        let names_index = self.u16(62, TABLE)?;
        let header = |index: u16| table.checked_add(u64::from(index) * u64::from(entry_bytes));
        let content = |index: u16| {
            let header = header(index).ok_or(ElfError::Outside(TABLE))?;
            let field = |at| {
                self.u64(
                    header.checked_add(at).ok_or(ElfError::Outside(TABLE))?,
                    TABLE,
                )
            };
            self.slice(field(24)?, field(32)?, "a section")
        };
        if count == 0 {
            return Ok(None);
        }
        let names = content(names_index)?;
        for index in 0..count {
            let at = header(index).ok_or(ElfError::Outside(TABLE))?;
            let start = usize::try_from(self.u32(at, TABLE)?).unwrap_or(usize::MAX);
            let found = names
                .get(start..)
                .and_then(|rest| rest.split(|byte| *byte == 0).next());
            if found == Some(name.as_bytes()) {
                return content(index).map(Some);
            }
        }
        Ok(None)
    }

    fn segment_types(&self) -> Result<Vec<u32>, ElfError> {
        const TABLE: &str = "the program header";
        let table = self.u64(32, TABLE)?;
        let (entry_bytes, count) = (self.u16(54, TABLE)?, self.u16(56, TABLE)?);
        (0..count)
            .map(|index| {
                let at = table.checked_add(u64::from(index) * u64::from(entry_bytes));
                self.u32(at.ok_or(ElfError::Outside(TABLE))?, TABLE)
            })
            .collect()
    }

    fn slice(&self, offset: u64, length: u64, what: &'static str) -> Result<&'a [u8], ElfError> {
        let outside = || ElfError::Outside(what);
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start
            .checked_add(usize::try_from(length).map_err(|_| outside())?)
            .ok_or_else(outside)?;
        self.bytes.get(start..end).ok_or_else(outside)
    }

    fn array<const N: usize>(&self, offset: u64, what: &'static str) -> Result<[u8; N], ElfError> {
        let bytes = self.slice(offset, N as u64, what)?;
        Ok(bytes.try_into().expect("the slice is N long"))
    }

    fn u16(&self, offset: u64, what: &'static str) -> Result<u16, ElfError> {
        self.array(offset, what).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: u64, what: &'static str) -> Result<u32, ElfError> {
        self.array(offset, what).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: u64, what: &'static str) -> Result<u64, ElfError> {
        self.array(offset, what).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A minimal ELF file: a header, then one program header per segment type, then sections.
    pub(crate) fn made_up(
        kind: u16,
        entry: u64,
        segments: &[u32],
        sections: &[(&str, &[u8])],
    ) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&MACHINE_X86_64.to_le_bytes());
        bytes[24..32].copy_from_slice(&entry.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for segment in segments {
            bytes.extend(segment.to_le_bytes());
            bytes.extend([0; 52]);
        }
        let mut names = Vec::new();
        let mut headers = Vec::new();
        for (name, content) in sections {
            headers.push((names.len() as u32, bytes.len() as u64, content.len() as u64));
            names.extend(name.bytes().chain([0]));
            bytes.extend_from_slice(content);
        }
        headers.push((
            names.len() as u32,
            bytes.len() as u64,
            names.len() as u64 + 10,
        ));
        names.extend(b".shstrtab\0");
        bytes.extend_from_slice(&names);
        let table = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        bytes[62..64].copy_from_slice(&(headers.len() as u16 - 1).to_le_bytes());
        for (name, offset, length) in headers {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&length.to_le_bytes());
            bytes.extend(header);
        }
        bytes
    }

    #[test]
    fn a_section_is_found_by_name() {
        let bytes = made_up(
            TYPE_RELOCATABLE,
            0,
            &[],
            &[(".text", b"code"), (".modinfo", b"name=x\0")],
        );
        let elf = Elf::parse(&bytes).unwrap();
        assert_eq!(elf.section(".modinfo"), Ok(Some(&b"name=x\0"[..])));
        assert_eq!(elf.section(".data"), Ok(None));
    }

    #[test]
    fn other_files_are_told_apart() {
        assert_eq!(Elf::parse(b"#!/bin/sh\n").err(), Some(ElfError::NotElf));
        assert_eq!(
            Elf::parse(b"\x7fELF\x01\x01").err(),
            Some(ElfError::OtherClass)
        );
        assert_eq!(
            Elf::parse(b"\x7fELF\x02\x01").err(),
            Some(ElfError::Outside("the header"))
        );
    }

    proptest! {
        #[test]
        fn damage_is_an_error_not_a_panic(at in 16usize..700, value: u64) {
            let mut bytes = made_up(TYPE_DYNAMIC, 1, &[SEGMENT_LOAD, 2], &[(".modinfo", &[b'x'; 300])]);
            let at = at.min(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let elf = Elf::parse(&bytes).unwrap();
            let _ = (elf.kind(), elf.machine(), elf.entry(), elf.has_interpreter(), elf.has_code(), elf.section(".modinfo"));
        }
    }
}
