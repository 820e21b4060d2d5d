//! One machine's way through the demo.
//!
//! ```text
//!   Flashing --agent reboots--> Flashed --compared, a turn is free--> Booting
//!      |  ^                        |                                    |
//!      |  | power on again         | disk differs                       | login prompt
//!      v  |                        v                                    v
//!     Killed (one machine)       Missed                              Arrived
//! ```
//! A limit that runs out is a miss too. Nothing here ends the demo: it goes on
//! with the other machines, and all misses are told at the end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{
    chassis::Power,
    job::JobView,
    oracle::GuestDisk,
    patience::Patience,
    room::{Machine, Room},
    server::ServerProcess,
};

/// From power-on to the agent's reboot, on an idle machine.
const FLASH_LIMIT: Duration = Duration::from_secs(420);

/// From power-on to the login prompt.
const LOGIN_LIMIT: Duration = Duration::from_secs(300);

/// What the flashed system prints when it is ready.
const LOGIN_PROMPT: &str = "login:";

/// What the server's boot script prints before it goes on to the machine's own disk.
const LOCAL_DECISION: &str = "netflash: no active job";

/// Where a machine is.
#[derive(Debug)]
enum Stage {
    Flashing,
    Flashed,
    Booting { run: u32 },
    Arrived,
    Missed(String),
}

/// A machine, where it is, and what was seen on its way.
pub(super) struct Journey<'room> {
    machine: &'room Machine,
    stage: Stage,
    patience: Patience,
    /// The server's last word about its job.
    pub(super) job: JobView,
}

impl<'room> Journey<'room> {
    /// The machine has just been switched on for its flash.
    pub(super) fn begin(room: &'room Room, name: &str) -> Result<Journey<'room>> {
        Ok(Journey {
            machine: room.machine(name)?,
            stage: Stage::Flashing,
            patience: Patience::new(format!("{name} to be flashed"), FLASH_LIMIT),
            job: JobView::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.machine.spec().name
    }

    pub(super) fn machine(&self) -> &'room Machine {
        self.machine
    }

    /// The machine uses a CPU.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Flashing | Stage::Booting { .. })
    }

    pub(super) fn is_flashing(&self) -> bool {
        matches!(self.stage, Stage::Flashing)
    }

    /// The disk is right and the machine waits for its turn to boot.
    pub(super) fn is_flashed(&self) -> bool {
        matches!(self.stage, Stage::Flashed)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Arrived | Stage::Missed(_))
    }

    pub(super) fn has_arrived(&self) -> bool {
        matches!(self.stage, Stage::Arrived)
    }

    /// Why it did not arrive.
    pub(super) fn miss(&self) -> Option<&str> {
        match &self.stage {
            Stage::Missed(why) => Some(why),
            _ => None,
        }
    }

    /// After a kill: everything is allowed to take its time once more.
    pub(super) fn begin_again(&mut self) {
        self.patience = Patience::new(format!("{} to be flashed", self.name()), FLASH_LIMIT);
    }

    /// Looks at the machine and goes on when it is time; an error is a miss.
    pub(super) fn look(&mut self, server: &ServerProcess<'_>, guest: &GuestDisk) {
        if let Err(error) = self.advance(server, guest) {
            eprintln!("{}: MISS: {error:#}", self.name());
            self.stage = Stage::Missed(format!("{error:#}"));
        }
    }

    /// Lets the flashed machine boot by the server's power control.
    pub(super) fn boot(&mut self, server: &ServerProcess<'_>) {
        match self.power_on(server) {
            Ok(run) => self.stage = Stage::Booting { run },
            Err(error) => self.stage = Stage::Missed(format!("{error:#}")),
        }
    }

    fn advance(&mut self, server: &ServerProcess<'_>, guest: &GuestDisk) -> Result<()> {
        match self.stage {
            Stage::Flashing => {
                self.job = server.job_of(self.name())?;
                ensure!(
                    !self.job.has_failed(),
                    "the job failed: {}",
                    self.job.reason
                );
                if self.machine.is_off()? {
                    return self.compare(server, guest);
                }
                self.spend()
            }
            Stage::Booting { run } => {
                if self.machine.said(run, LOGIN_PROMPT) {
                    ensure!(
                        self.machine.said(run, LOCAL_DECISION),
                        "booted without the server's decision for its own disk"
                    );
                    eprintln!("{}: login prompt", self.name());
                    self.stage = Stage::Arrived;
                    self.machine.press(Power::Off)?;
                    return Ok(());
                }
                ensure!(!self.machine.is_off()?, "switched itself off while booting");
                self.spend()
            }
            Stage::Flashed | Stage::Arrived | Stage::Missed(_) => Ok(()),
        }
    }

    /// The agent's reboot ended QEMU: the disk lies still.
    fn compare(&mut self, server: &ServerProcess<'_>, guest: &GuestDisk) -> Result<()> {
        self.job = server.job_of(self.name())?;
        ensure!(
            self.job.is_done(),
            "went off while its job is {}",
            self.job.state
        );
        let disk = &self.machine.spec().disks[0].path;
        guest.compare(disk).context("comparing while it is off")?;
        eprintln!("{}: flashed, disk compared while off", self.name());
        self.stage = Stage::Flashed;
        Ok(())
    }

    fn power_on(&mut self, server: &ServerProcess<'_>) -> Result<u32> {
        let run = self.machine.run_count()? + 1;
        server.ask(&["power", "on", self.name()])?;
        self.patience = Patience::new(format!("{}'s login prompt", self.name()), LOGIN_LIMIT);
        Ok(run)
    }

    fn spend(&mut self) -> Result<()> {
        self.patience.look()
    }
}
