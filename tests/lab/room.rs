//! The room: a bridge with a port for each machine, and the server's namespace.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    chassis::{Chassis, ChassisStatus, Power, PowerState},
    loss::LossTable,
    patience::wait_until,
    qemu, shell,
    spec::{Boot, MachineSpec},
};

/// The server's namespace, card and addresses.
pub(super) const SERVER_NAMESPACE: &str = "server";
pub(super) const SERVER_INTERFACE: &str = "eth0";
pub(super) const SERVER_ADDRESS: &str = "10.77.0.1";

/// Datagrams that wait at a port for a machine without a turn on the CPU.
const PORT_QUEUE: u32 = 8192;

/// A chassis process answers its socket within this time.
const CHASSIS_STARTS: Duration = Duration::from_secs(10);

/// A bridge, machines and a place for a server.
pub struct Room {
    directory: PathBuf,
    machines: BTreeMap<String, Machine>,
    loss: LossTable,
}

/// One machine of the room, with its chassis process.
pub struct Machine {
    spec: MachineSpec,
    directory: PathBuf,
    chassis: Child,
}

impl Room {
    /// Builds the network and starts a chassis for each machine; all are off.
    ///
    /// `lab` is the program that knows `lab chassis`; files live in `directory`.
    /// Works once in a world.
    pub fn build(
        directory: &Path,
        lab: &Path,
        specs: Vec<MachineSpec>,
        loss_percent: f64,
    ) -> Result<Room> {
        build_network().context("building the room's network")?;
        let mut machines = BTreeMap::new();
        let mut ports = Vec::new();
        for spec in specs {
            let tap = spec.tap();
            shell::sh(&format!("ip tuntap add {tap} mode tap"))?;
            // An emulated machine waits long for its turn: the port's queue bridges that,
            // so that what is lost is what the rules drop.
            shell::sh(&format!("ip link set {tap} txqueuelen {PORT_QUEUE}"))?;
            shell::sh(&format!("ip link set {tap} master br0 up"))?;
            ports.push(tap);
            let machine = Machine::install(directory, lab, spec)?;
            machines.insert(machine.spec.name.clone(), machine);
        }
        Ok(Room {
            directory: directory.to_owned(),
            machines,
            loss: LossTable::install(ports, loss_percent)?,
        })
    }

    /// A program to be run in the server's namespace.
    pub fn server_command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", SERVER_NAMESPACE])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(program.as_ref())
            .stdin(Stdio::null());
        command
    }

    /// Where the room keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A machine by name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines
            .get(name)
            .with_context(|| format!("the room has no machine {name}"))
    }

    /// All machines, by name.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// The room's loss and its counters.
    pub fn loss(&self) -> &LossTable {
        &self.loss
    }

    /// CPU seconds of QEMU used so far, all machines and runs.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let mut sum = 0.0;
        for machine in self.machines() {
            let runs = machine.press(Power::Status)?.runs;
            sum += runs.iter().map(|run| run.cpu_seconds).sum::<f64>();
        }
        Ok(sum)
    }
}

impl Machine {
    fn install(room: &Path, lab: &Path, spec: MachineSpec) -> Result<Machine> {
        let directory = room.join(&spec.name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        for disk in &spec.disks {
            if !disk.path.exists() {
                let file = fs::File::create(&disk.path)
                    .with_context(|| format!("creating disk {}", disk.path.display()))?;
                file.set_len(disk.bytes).context("sizing a blank disk")?;
            }
        }
        spec.save(&directory)?;
        let log =
            fs::File::create(directory.join("chassis.log")).context("creating the chassis log")?;
        let chassis = Command::new(lab)
            .args(["chassis", "--dir"])
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the chassis log")?)
            .stderr(log)
            // Ctrl-C is for the lab, which then asks each chassis itself.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {} chassis", lab.display()))?;
        let machine = Machine {
            spec,
            directory,
            chassis,
        };
        wait_until("a chassis to answer", CHASSIS_STARTS, || {
            Ok(machine.press(Power::Status).is_ok())
        })?;
        Ok(machine)
    }

    /// Changes how it boots, from the next power-on.
    pub fn set_boot(&self, boot: Boot) -> Result<()> {
        let mut spec = self.spec.clone();
        spec.boot = boot;
        spec.save(&self.directory)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it is made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// The chassis' control socket, for the server's power driver `command`.
    pub fn control_socket(&self) -> PathBuf {
        Chassis::socket(&self.directory)
    }

    /// QEMU's own socket, for the server's power driver `qmp`.
    pub fn qmp_socket(&self) -> PathBuf {
        qemu::qmp_path(&self.directory)
    }

    /// Presses a button of its chassis.
    pub fn press(&self, power: Power) -> Result<ChassisStatus> {
        Power::press(power, &self.control_socket())
            .with_context(|| format!("machine {}", self.spec.name))
    }

    /// Runs so far, the present one included.
    pub fn run_count(&self) -> Result<u32> {
        Ok(self.press(Power::Status)?.runs.len() as u32)
    }

    /// Everything the machine wrote to its serial line in one run (from 1).
    pub fn serial(&self, run: u32) -> String {
        fs::read(qemu::serial_path(&self.directory, run))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Has this text been seen on the serial line of the run?
    pub fn said(&self, run: u32, text: &str) -> bool {
        self.serial(run).contains(text)
    }

    /// Waits until the machine switched itself off; a QEMU that failed is an error.
    pub fn is_off(&self) -> Result<bool> {
        let status = self.press(Power::Status)?;
        let failed = status
            .runs
            .last()
            .is_some_and(|run| run.end == Some(super::chassis::RunEnd::Failed));
        ensure!(
            !failed,
            "QEMU of {} failed: {}",
            self.spec.name,
            self.qemu_log(status.runs.len() as u32)
        );
        Ok(status.power == PowerState::Off)
    }

    fn qemu_log(&self, run: u32) -> String {
        fs::read_to_string(self.directory.join(format!("qemu-{run}.log"))).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The chassis takes its QEMU along by PDEATHSIG.
        let _ = self.chassis.kill();
        let _ = self.chassis.wait();
    }
}

fn build_network() -> Result<()> {
    // Snooping with a querier: a machine that does not report its group by IGMP
    // gets no multicast here, as on a managed switch.
    for line in [
        "ip netns add server",
        "ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 1 mcast_querier 1",
        "ip link add s0 type veth peer name eth0 netns server",
        // An emulated machine may take seconds to answer; a switch that prunes sooner
        // would take the session from one that left and joined again.
        "ip link set br0 type bridge mcast_last_member_interval 3000",
        "ip link set s0 master br0 up",
        "ip link set br0 up",
        "ip -n server link set lo up",
        "ip -n server link set eth0 up",
        "ip -n server addr add 10.77.0.1/24 brd + dev eth0",
        "ip -n server addr add fd6e:6674::1/64 dev eth0 nodad",
        "ip -n server route add 224.0.0.0/4 dev eth0",
        // With offload a loss rule would drop dozens of datagrams at once.
        "ip netns exec server ethtool -K eth0 tx off gso off tx-udp-segmentation off",
    ] {
        shell::sh(line)?;
    }
    Ok(())
}
