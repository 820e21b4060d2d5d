//! A room with one machine, and a server that switches it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::{
    Bus, Firmware, Machine, MachineSpec, Nic, Programs, Room, SMALL_DISK_BYTES, SMALL_DISK_SAYS,
    ServerOptions, ServerProcess, small_disk, wait_until,
};

use crate::desk::{lab, netflash};

/// From power-on to the words of the local disk.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// From power-on to the machine's question, as the command line is told; a busy desk is slow.
pub(crate) const SEEN_SECONDS: &str = "900";

/// A place for a room with one machine, and the power profiles of its server.
pub(crate) struct Stage {
    pub(crate) scratch: tempfile::TempDir,
    profiles: String,
}

impl Stage {
    pub(crate) fn set(profiles: &str) -> Result<Stage> {
        let scratch = tempfile::tempdir()?;
        Ok(Stage {
            scratch,
            profiles: profiles.to_owned(),
        })
    }

    /// More profiles, for what is known late.
    pub(crate) fn more(&mut self, profiles: &str) {
        self.profiles.push_str(profiles);
    }

    /// The place of the machine.
    pub(crate) fn place(&self) -> PathBuf {
        self.scratch.path().join("lab-1")
    }

    /// The room, its machine with the lab's small disk.
    pub(crate) fn room(&self) -> Result<Room> {
        self.room_with(small_disk)
    }

    /// The room, its machine with a disk that `make` makes.
    pub(crate) fn room_with(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<Room> {
        let directory = self.scratch.path();
        let spec = MachineSpec::new(1, Firmware::Bios, Nic::Virtio).disk(
            directory,
            Bus::Virtio,
            SMALL_DISK_BYTES,
        );
        make(&spec.disks[0].path)?;
        Room::build(directory, lab(), vec![spec], 0.0)
    }

    pub(crate) fn serve<'room>(&self, room: &'room Room) -> Result<ServerProcess<'room>> {
        let appliance = std::env::var_os("NETFLASH_APPLIANCE")
            .context("NETFLASH_APPLIANCE is not set: run ./scripts/test")?;
        let programs = Programs::new(netflash()?, PathBuf::from(appliance), lab().to_owned());
        let options = ServerOptions {
            more: self.profiles.clone(),
            ..ServerOptions::default()
        };
        ServerProcess::start(room, &programs, &options)
    }

    /// Enters a login.
    pub(crate) fn login(
        &self,
        server: &ServerProcess<'_>,
        name: &str,
        user: &str,
        password: &str,
    ) -> Result<()> {
        let file = self.scratch.path().join("password");
        fs::write(&file, password)?;
        let file = file.to_str().context("the path is no text")?;
        let login = [
            "power",
            "login",
            name,
            "--user",
            user,
            "--password-file",
            file,
        ];
        server.ask(&login).map(drop)
    }
}

/// The machine, as its server sees and switches it.
pub(crate) struct Player<'a> {
    server: &'a ServerProcess<'a>,
    machine: &'a Machine,
}

impl<'a> Player<'a> {
    /// Enters the machine with the ways to switch it.
    pub(crate) fn enter(
        server: &'a ServerProcess<'a>,
        machine: &'a Machine,
        power: &[&str],
    ) -> Result<Player<'a>> {
        let (name, mac) = (&machine.spec().name, machine.spec().mac());
        let mut words = vec!["machine", "add", name, "--mac", &mac];
        for power in power {
            words.extend(["--power", power]);
        }
        server.ask(&words)?;
        Ok(Player { server, machine })
    }

    /// What `netflash power` does to it.
    pub(crate) fn power(&self, words: &[&str]) -> Result<Value> {
        let name = self.machine.spec().name.as_str();
        let outcomes = self.server.ask(&[&["power"], words, &[name]].concat())?;
        Ok(outcomes[0].clone())
    }

    /// Started by `word`, which is on, cycle or reset: it must be seen at the server.
    pub(crate) fn starts_from_the_network(&self, word: &str) -> Result<Value> {
        let before = self.questions();
        let outcome = self.power(&[word, "--netboot", "--within", SEEN_SECONDS])?;
        println!("{word}: seen after {} s", outcome["seen_seconds"]);
        ensure!(outcome["seen_seconds"].is_f64(), "{outcome}");
        ensure!(
            self.questions() > before,
            "the server's log has no question of it at {word}"
        );
        Ok(outcome)
    }

    /// How often the server was asked by its MAC what to boot, as its log has it.
    pub(crate) fn questions(&self) -> usize {
        let mac = self.machine.spec().mac();
        let log = self.server.log();
        let asked = |line: &&str| line.contains("boot macs=") && line.contains(&mac);
        log.lines().filter(asked).count()
    }

    /// Waits for the words of its disk.
    pub(crate) fn boots_its_disk(&self, run: u32) -> Result<()> {
        wait_until(format!("run {run} to boot the disk"), BOOT_LIMIT, || {
            Ok(self.machine.said(run, SMALL_DISK_SAYS))
        })
    }
}
