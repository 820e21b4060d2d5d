//! `netflash power`

use std::path::Path;

use clap::{Args, ValueEnum};

use super::show;
use crate::Exit;
use crate::api::{MachineList, PowerRequest};
use crate::client::Client;
use crate::power::{PowerAction, PowerOutcome};
use crate::table::Table;

/// Switch machines on and off
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  netflash power cycle lab1 lab2\n  netflash power status --all"
)]
pub(crate) struct PowerArgs {
    /// What to do
    #[arg(value_enum)]
    action: ActionWord,
    /// Names of the machines
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    machines: Vec<String>,
    /// All machines that were entered
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActionWord {
    On,
    Off,
    Cycle,
    Status,
}

pub(crate) fn run(args: PowerArgs, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let client = Client::find(dir)?;
    let machines = if args.all {
        let list: MachineList = client.get("machines")?;
        list.machines
            .into_iter()
            .map(|machine| machine.name)
            .collect()
    } else {
        args.machines
    };
    let request = PowerRequest {
        action: match args.action {
            ActionWord::On => PowerAction::On,
            ActionWord::Off => PowerAction::Off,
            ActionWord::Cycle => PowerAction::Cycle,
            ActionWord::Status => PowerAction::Status,
        },
        machines,
    };
    let outcomes: Vec<PowerOutcome> = client.post("power", &request)?;
    show(json, &outcomes, || {
        let mut table = Table::new(["MACHINE", "POWER", ""]);
        for outcome in &outcomes {
            let state = outcome
                .state
                .map_or("?".to_owned(), |state| state.to_string());
            table.row([
                outcome.machine.clone(),
                state,
                outcome.error.clone().unwrap_or_default(),
            ]);
        }
        table.render()
    })?;
    let failed = outcomes.iter().any(|outcome| outcome.error.is_some());
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
