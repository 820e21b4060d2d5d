//! A real `netflash serve` in the room, and the command line that talks to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    job::JobView,
    patience::{stretch, wait_until},
    programs::Programs,
    room::{Machine, Room, SERVER_ADDRESS, SERVER_INTERFACE},
    shell,
};

/// The server makes its keys and answers within this time.
const SERVER_STARTS: Duration = Duration::from_secs(30);

/// What four emulated machines take on two idle cores, in bits per second: it is
/// their CPU that sets the limit, not the bridge.
const RATE_IDLE: f64 = 20e6;

/// However busy the machine is, slower than this the demo would never end.
const RATE_MIN: f64 = 4e6;

/// However busy it is, the session begins without those who are not there by then.
const WAIT_SECONDS_MAX: f64 = 240.0;

/// What the server of a room is told.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Cap of a session in bits per second.
    pub rate_bits: u64,
    /// Seconds a session waits, after its first machine, for the others.
    pub wait_seconds: u32,
    /// Whether it has `[dhcp]` at all; else somebody else lends addresses.
    pub lends: bool,
    /// More kernel parameters for the agent.
    pub kernel: String,
    /// What `[listen]` says besides the address.
    pub listen: String,
    /// What `[multicast]` says besides what every lab needs.
    pub multicast: String,
    /// What `[dhcp]` says besides its interface.
    pub dhcp: String,
    /// More tables for its configuration.
    pub more: String,
}

/// `[dhcp]` of a server that gives out the room's addresses.
const OWN_DHCP: &str = "range = [\"10.77.0.50\", \"10.77.0.200\"]";

impl Default for ServerOptions {
    /// Fit for the machine this is, as busy as it is now.
    fn default() -> ServerOptions {
        let stretch = stretch();
        ServerOptions {
            rate_bits: (RATE_IDLE / stretch).max(RATE_MIN) as u64,
            wait_seconds: (60.0 * stretch).min(WAIT_SECONDS_MAX) as u32,
            lends: true,
            kernel: String::new(),
            listen: String::new(),
            multicast: String::new(),
            dhcp: OWN_DHCP.to_owned(),
            more: String::new(),
        }
    }
}

/// A running server; it ends with this value.
pub struct ServerProcess<'room> {
    room: &'room Room,
    netflash: PathBuf,
    directory: PathBuf,
    process: Child,
}

impl<'room> ServerProcess<'room> {
    /// Writes the configuration, starts the server and waits for its first answer.
    pub fn start(
        room: &'room Room,
        programs: &Programs,
        options: &ServerOptions,
    ) -> Result<ServerProcess<'room>> {
        let netflash = programs.netflash()?;
        let directory = room.directory().join("server");
        fs::create_dir_all(&directory).context("creating the server's directory")?;
        fs::write(
            directory.join("netflash.toml"),
            configuration(programs, options)?,
        )
        .context("writing netflash.toml")?;
        let log = fs::File::create(room.directory().join("server.log"))
            .context("creating the server's log")?;
        let process = room
            .server_command(&netflash)
            .arg("--dir")
            .arg(&directory)
            .arg("serve")
            .stdout(log.try_clone().context("sharing the server's log")?)
            .stderr(log)
            .spawn()
            .context("starting netflash serve")?;
        let mut server = ServerProcess {
            room,
            netflash,
            directory,
            process,
        };
        wait_until("the server's first answer", SERVER_STARTS, || {
            server.check_alive()?;
            Ok(server.ask(&["status"]).is_ok())
        })?;
        Ok(server)
    }

    /// Runs `netflash --json` with these words against the server; the printed result.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let text = shell::text(self.client().arg("--json").args(words))?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .with_context(|| format!("netflash {} prints no JSON: {text}", words.join(" ")))
    }

    /// Enters an image file under a name.
    pub fn add_image(&self, name: &str, image: &Path) -> Result<()> {
        let image = image.to_str().context("the image's path is no text")?;
        self.ask(&["image", "add", name, image])?;
        Ok(())
    }

    /// Makes a machine of the room known, with its chassis as power control.
    pub fn add_machine(&self, machine: &Machine) -> Result<()> {
        let spec = machine.spec();
        let power = format!("chassis:{}", machine.control_socket().display());
        let mac = spec.mac();
        self.ask(&[
            "machine", "add", &spec.name, "--mac", &mac, "--power", &power,
        ])?;
        Ok(())
    }

    /// Arms these machines, by name, to be flashed with one image in one session.
    pub fn flash(&self, image: &str, machines: &[&str], disk: &str) -> Result<()> {
        let names = machines.join(",");
        self.ask(&[
            "job",
            "flash",
            image,
            "--machines",
            &names,
            "--disk",
            disk,
            "--yes",
        ])?;
        Ok(())
    }

    /// The latest job of a machine.
    pub fn job_of(&self, machine: &str) -> Result<JobView> {
        let answer = self.ask(&["job", "list"])?;
        let jobs: Vec<JobView> =
            serde_json::from_value(answer).context("understanding netflash job list --json")?;
        jobs.into_iter()
            .filter(|job| job.machine_name == machine)
            .max_by_key(|job| job.id)
            .with_context(|| format!("the server has no job of {machine}"))
    }

    /// The server's data directory, for `--dir` and `NETFLASH_DIR`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the server wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.room.directory().join("server.log")).unwrap_or_default()
    }

    fn client(&self) -> Command {
        let mut command = self.room.server_command(&self.netflash);
        command.arg("--dir").arg(&self.directory);
        command
    }

    fn check_alive(&mut self) -> Result<()> {
        let ended = self.process.try_wait().context("looking at the server")?;
        ensure!(
            ended.is_none(),
            "netflash serve ended: {}",
            self.log().trim()
        );
        Ok(())
    }
}

impl Drop for ServerProcess<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(programs: &Programs, options: &ServerOptions) -> Result<String> {
    let lab = programs.lab()?;
    let button = |name: &str| format!("{name} = [{lab:?}, \"power\", \"{{address}}\", \"{name}\"]");
    let dhcp = format!(
        "[dhcp]\ninterface = \"{SERVER_INTERFACE}\"\n{}\n",
        options.dhcp
    );
    Ok(format!(
        "[listen]\n\
         address = \"{SERVER_ADDRESS}\"\n\
         {listen}\n\
         [boot]\n\
         appliance = {appliance:?}\n\
         console = \"console=ttyS0,115200\"\n\
         # An emulated CPU that does not get its turn in time fails the kernel's timer check.\n\
         kernel_extra = \"no_timer_check mitigations=off nokaslr quiet {kernel}\"\n\
         {dhcp}\
         [multicast]\n\
         interface = \"{SERVER_INTERFACE}\"\n\
         rate = \"{rate}\"\n\
         wait_seconds = {wait}\n\
         # The emulated processors have no AES instructions.\n\
         cipher = \"chacha20-poly1305\"\n\
         {multicast}\n\
         [power.chassis]\n\
         driver = \"command\"\n\
         {on}\n{off}\n{cycle}\n{status}\n{more}\n",
        appliance = programs.appliance()?,
        dhcp = if options.lends { dhcp } else { String::new() },
        rate = options.rate_bits,
        wait = options.wait_seconds,
        kernel = options.kernel,
        listen = options.listen,
        multicast = options.multicast,
        more = options.more,
        on = button("on"),
        off = button("off"),
        cycle = button("cycle"),
        status = button("status"),
    ))
}
