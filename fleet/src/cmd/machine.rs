//! `netflash machine`

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use netflash_pxe::Mac;

use super::show;
use crate::Exit;
use crate::api::MachineList;
use crate::client::Client;
use crate::fleet::now;
use crate::machine::{Machine, MachineChange, NewMachine};
use crate::table::{Table, ago, bytes};

/// Enter, list and forget machines
#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    Add(AddArgs),
    List(ListArgs),
    Show(NameArgs),
    Set(SetArgs),
    Import(ImportArgs),
    Rm(RmArgs),
}

/// Enter a machine
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  netflash machine add lab1 --mac 52:54:00:aa:00:01 \\\n      --power qmp:/run/lab1.qmp"
)]
pub(crate) struct AddArgs {
    /// Its name: letters, digits, '.', '_', '-'
    name: String,
    /// A MAC address of it; may be given several times
    #[arg(long, value_name = "MAC")]
    mac: Vec<Mac>,
    /// Its SMBIOS UUID
    #[arg(long)]
    uuid: Option<String>,
    /// Its serial number
    #[arg(long)]
    serial: Option<String>,
    /// How it is switched on and off; several are tried in their order
    #[arg(long, value_name = "PROFILE:ADDRESS")]
    power: Vec<String>,
    /// A group it belongs to; may be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Kernel parameters of its agent, behind those of all
    #[arg(
        long,
        value_name = "PARAMETERS",
        default_value = "",
        hide_default_value = true
    )]
    kernel: String,
}

/// Change a machine
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash machine set lab1 --kernel netflash.vlan=20")]
pub(crate) struct SetArgs {
    /// Its name
    name: String,
    /// Kernel parameters of its agent, behind those of all; "" for none
    #[arg(long, value_name = "PARAMETERS", required = true)]
    kernel: Option<String>,
}

/// List machines, and strangers that were seen
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash machine list")]
pub(crate) struct ListArgs {}

/// Show all that is known of a machine
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash machine show lab1 --json")]
pub(crate) struct NameArgs {
    /// Its name
    name: String,
}

/// Forget machines
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash machine rm lab1 lab2")]
pub(crate) struct RmArgs {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Enter machines from a CSV file with a heading: name,mac,uuid,serial,power,group,kernel
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash machine import room3.csv")]
pub(crate) struct ImportArgs {
    /// The file, or - for standard input
    file: PathBuf,
}

pub(crate) fn run(command: MachineCommand, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let client = Client::find(dir)?;
    match command {
        MachineCommand::Add(args) => {
            let new = NewMachine {
                name: args.name,
                macs: args.mac,
                uuid: args.uuid,
                serial: args.serial,
                power: args.power,
                groups: args.group,
                kernel: args.kernel,
            };
            let machine: Machine = client.post("machines", &new)?;
            show(json, &machine, || format!("{} is entered\n", machine.name))?;
        }
        MachineCommand::Set(args) => {
            let change = MachineChange {
                kernel: args.kernel,
            };
            let path = format!("machines/{}", path_word(&args.name)?);
            let machine: Machine = client.post(&path, &change)?;
            show(json, &machine, || {
                format!("{} is changed, from its next boot\n", machine.name)
            })?;
        }
        MachineCommand::List(ListArgs {}) => {
            let list: MachineList = client.get("machines")?;
            show(json, &list, || list_table(&list))?;
        }
        MachineCommand::Show(args) => {
            let machine: Machine = client.get(&format!("machines/{}", path_word(&args.name)?))?;
            show(json, &machine, || description(&machine))?;
        }
        MachineCommand::Rm(args) => {
            for name in &args.names {
                client.delete(&format!("machines/{}", path_word(name)?))?;
            }
            show(json, &args.names, || {
                format!("{} forgotten\n", args.names.join(", "))
            })?;
        }
        MachineCommand::Import(args) => return import(&client, &args.file, json),
    }
    Ok(Exit::Done)
}

/// A name as part of a URL; whatever is no name cannot be on the server.
fn path_word(name: &str) -> anyhow::Result<&str> {
    anyhow::ensure!(Machine::is_name(name), "{name:?} is no name");
    Ok(name)
}

fn list_table(list: &MachineList) -> String {
    let mut table = Table::new(["MACHINE", "MAC", "SEEN", "LAST BOOT"]);
    let first = |macs: &[Mac]| macs.first().map_or("-".to_owned(), ToString::to_string);
    for machine in &list.machines {
        table.row([
            machine.name.clone(),
            first(&machine.identity.macs),
            machine
                .last_seen
                .map_or("never".to_owned(), |then| ago(then, now())),
            machine.last_decision.clone().unwrap_or_default(),
        ]);
    }
    for seen in &list.seen {
        table.row([
            "(seen)".to_owned(),
            first(&seen.identity.macs),
            ago(seen.last_seen, now()),
            format!("local disk: {}", seen.reason),
        ]);
    }
    table.render()
}

fn description(machine: &Machine) -> String {
    let mut table = Table::new(["FACT", "VALUE"]);
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("name", machine.name.clone());
    for mac in &machine.identity.macs {
        fact("mac", mac.to_string());
    }
    fact("uuid", machine.identity.uuid.clone().unwrap_or_default());
    for power in &machine.power {
        fact("power", power.clone());
    }
    for group in &machine.groups {
        fact("group", group.clone());
    }
    if !machine.kernel.is_empty() {
        fact("kernel", machine.kernel.clone());
    }
    if let Some(inventory) = &machine.inventory {
        fact(
            "model",
            format!("{} {}", inventory.manufacturer, inventory.product),
        );
        fact(
            "cpu",
            format!("{} x {}", inventory.cpu_count, inventory.cpu),
        );
        fact("memory", bytes(inventory.memory_bytes));
        fact(
            "firmware",
            format!("{:?}", inventory.firmware).to_lowercase(),
        );
        for disk in &inventory.disks {
            let serial = disk.serial.as_deref().unwrap_or("no serial");
            fact(
                "disk",
                format!(
                    "{} {} {} {serial}",
                    disk.path,
                    bytes(disk.bytes),
                    disk.model
                ),
            );
        }
        for nic in &inventory.nics {
            fact("nic", format!("{} {} {}", nic.name, nic.mac, nic.driver));
        }
        for orphan in &inventory.orphans {
            fact("unusable", orphan.to_string());
        }
    }
    fact(
        "last boot",
        machine.last_decision.clone().unwrap_or_default(),
    );
    table.render()
}

fn import(client: &Client, file: &Path, json: bool) -> anyhow::Result<Exit> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("reading standard input")?;
        text
    } else {
        fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?
    };
    // Everything is understood before anything is entered.
    let rows = parse_csv(&text)?;
    let mut entered = Vec::new();
    for (line, new) in rows {
        let machine: Machine = client
            .post("machines", &new)
            .with_context(|| format!("line {line} ({} entered before it)", entered.len()))?;
        entered.push(machine);
    }
    show(json, &entered, || {
        format!("{} machines entered\n", entered.len())
    })?;
    Ok(Exit::Done)
}

/// Machines with their line numbers. Fields have no quotes: none of them may hold a comma.
fn parse_csv(text: &str) -> anyhow::Result<Vec<(usize, NewMachine)>> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()));
    let mut filled = lines
        .by_ref()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, heading) = filled.next().context("the file is empty")?;
    let columns: Vec<&str> = heading.split(',').map(str::trim).collect();
    let mut machines = Vec::new();
    for (number, line) in filled {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        anyhow::ensure!(
            fields.len() <= columns.len(),
            "line {number}: more fields than headings"
        );
        let mut new = NewMachine::default();
        for (column, field) in columns.iter().zip(fields) {
            let text = (!field.is_empty()).then(|| field.to_owned());
            match *column {
                "name" => new.name = field.to_owned(),
                "mac" => {
                    let macs = field.split_whitespace().map(str::parse);
                    new.macs = macs
                        .collect::<Result<_, _>>()
                        .with_context(|| format!("line {number}"))?;
                }
                "uuid" => new.uuid = text,
                "serial" => new.serial = text,
                "power" => new.power = field.split_whitespace().map(str::to_owned).collect(),
                "kernel" => new.kernel = field.to_owned(),
                "group" => new.groups = field.split_whitespace().map(str::to_owned).collect(),
                other => anyhow::bail!(
                    "unknown heading {other:?}; known are name, mac, uuid, serial, power, group, kernel"
                ),
            }
        }
        machines.push((number, new));
    }
    Ok(machines)
}

#[cfg(test)]
mod tests {
    use super::parse_csv;

    #[test]
    fn a_room_is_read_from_csv() {
        let text = "# room 3\nname, mac, power\nlab1, 52:54:00:aa:00:01 52:54:00:aa:00:02, qmp:/run/a\n\nlab2,52:54:00:aa:00:03\n";
        let machines = parse_csv(text).unwrap();
        assert_eq!(machines.len(), 2);
        assert_eq!(machines[0].1.macs.len(), 2);
        assert_eq!((machines[1].0, machines[1].1.name.as_str()), (5, "lab2"));
        assert!(machines[1].1.power.is_empty());
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let error = parse_csv("name,mac\na,52:54\n").unwrap_err();
        assert!(format!("{error:#}").starts_with("line 2"));
        assert!(parse_csv("name,colour\na,red\n").is_err());
        assert!(parse_csv("").is_err());
    }
}
