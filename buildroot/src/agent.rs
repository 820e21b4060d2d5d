//! The program that becomes `/init`: nothing else is in the initramfs, so it has to run alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::elf::{Elf, ElfError, MACHINE_X86_64, TYPE_DYNAMIC, TYPE_EXECUTABLE};

/// Why a file cannot be the agent.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The file cannot be read.
    #[error("reading agent {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged or no ELF file at all.
    #[error("agent {path} is no program")]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// The program is for another processor; `e_machine` as in the ELF specification.
    #[error(
        "agent {path} is built for another processor (ELF machine {machine}); build it for x86_64-unknown-linux-gnu"
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// Its `e_machine`.
        machine: u16,
    },
    /// A library or object file.
    #[error("agent {path} is an ELF file, but no program")]
    NoProgram {
        /// The file.
        path: PathBuf,
    },
    /// The program needs a dynamic linker, which the initramfs does not have: the kernel would find no init.
    #[error(
        "agent {path} needs a dynamic linker; build it with `cargo rustc -p netflash-init --release -- -C target-feature=+crt-static`"
    )]
    Interpreter {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the agent and makes sure that the kernel can start it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, AgentError> {
    let bytes = fs::read(path).map_err(|source| AgentError::Read {
        path: path.to_owned(),
        source,
    })?;
    check(path, &bytes)?;
    Ok(bytes)
}

fn check(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let damaged = |source| AgentError::Elf {
        path: path.to_owned(),
        source,
    };
    let elf = Elf::parse(bytes).map_err(damaged)?;
    let machine = elf.machine().map_err(damaged)?;
    if machine != MACHINE_X86_64 {
        return Err(AgentError::OtherMachine {
            path: path.to_owned(),
            machine,
        });
    }
    if elf.has_interpreter().map_err(damaged)? {
        return Err(AgentError::Interpreter {
            path: path.to_owned(),
        });
    }
    let is_program = matches!(elf.kind().map_err(damaged)?, TYPE_EXECUTABLE | TYPE_DYNAMIC)
        && elf.has_code().map_err(damaged)?
        && elf.entry().map_err(damaged)? != 0;
    if is_program {
        Ok(())
    } else {
        Err(AgentError::NoProgram {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::TYPE_RELOCATABLE;
    use crate::elf::tests::made_up;

    const LOAD: u32 = 1;
    const INTERPRETER: u32 = 3;

    fn verdict(bytes: &[u8]) -> Result<(), AgentError> {
        check(Path::new("agent"), bytes)
    }

    #[test]
    fn a_static_program_is_taken() {
        verdict(&made_up(TYPE_EXECUTABLE, 0x40_1000, &[LOAD], &[])).unwrap();
        verdict(&made_up(TYPE_DYNAMIC, 0x1000, &[LOAD, 2], &[])).unwrap();
    }

    #[test]
    fn a_dynamically_linked_program_is_refused_and_the_cure_named() {
        let error = verdict(&made_up(TYPE_DYNAMIC, 0x1000, &[LOAD, INTERPRETER], &[])).unwrap_err();
        assert!(matches!(error, AgentError::Interpreter { .. }));
        assert!(error.to_string().contains("crt-static"));
        // The test binary itself is the nearest real one.
        let own = std::env::current_exe().unwrap();
        assert!(matches!(read(&own), Err(AgentError::Interpreter { .. })));
    }

    #[test]
    fn libraries_objects_and_other_processors_are_refused() {
        let library = made_up(TYPE_DYNAMIC, 0, &[LOAD], &[]);
        assert!(matches!(
            verdict(&library),
            Err(AgentError::NoProgram { .. })
        ));
        let object = made_up(TYPE_RELOCATABLE, 0, &[], &[]);
        assert!(matches!(
            verdict(&object),
            Err(AgentError::NoProgram { .. })
        ));
        let mut arm = made_up(TYPE_EXECUTABLE, 0x1000, &[LOAD], &[]);
        arm[18] = 183;
        assert!(matches!(
            verdict(&arm),
            Err(AgentError::OtherMachine { machine: 183, .. })
        ));
        assert!(matches!(verdict(b"#!/bin/sh"), Err(AgentError::Elf { .. })));
        assert!(matches!(
            read(Path::new("/nonexistent")),
            Err(AgentError::Read { .. })
        ));
    }
}
