//! `netflash power`

use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::show;
use crate::Exit;
use crate::client::Client;
use crate::fleet::{Chosen, PowerRequest};
use crate::power::{NextBoot, OrderView, Plan, PowerAction, PowerOutcome};
use crate::table::Table;

mod login;

/// Pause between two looks at an order.
const LOOK: Duration = Duration::from_millis(200);

/// Switch machines on and off, and choose what they boot next
#[derive(Debug, Subcommand)]
pub(crate) enum PowerCommand {
    Status(StatusArgs),
    On(StartArgs),
    Off(OffArgs),
    Cycle(CycleArgs),
    Reset(ResetArgs),
    Bootdev(BootdevArgs),
    Trust(TrustArgs),
    Login(login::LoginArgs),
    Logins(login::LoginsArgs),
    Logout(login::LogoutArgs),
}

/// Which machines, and how many at a time.
#[derive(Debug, Args)]
struct Room {
    /// Names of the machines
    #[arg(required_unless_present_any = ["all", "group"])]
    machines: Vec<String>,
    /// The machines of a group
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["machines", "all"])]
    group: Option<String>,
    /// All machines that were entered
    #[arg(long, conflicts_with = "machines")]
    all: bool,
    /// Machines at a time
    #[arg(long, value_name = "N", default_value_t = 32)]
    parallel: usize,
}

/// How machines start.
#[derive(Debug, Args)]
struct Start {
    /// Seconds between the starts of two machines: not all at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1)]
    stagger: f64,
    /// Boot from the network once, and wait until the machine asks the server
    #[arg(long)]
    netboot: bool,
    /// How to boot from the network
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    boot: NextBoot,
    /// Seconds a machine may take until it asks
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    within: u64,
}

/// Say whether machines are on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power status --all")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    room: Room,
}

/// Switch machines on
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  netflash power on lab1 lab2\n  netflash power on --group room3 --netboot --within 180"
)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    start: Start,
}

/// Switch machines off
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power off --group room3 --soft")]
pub(crate) struct OffArgs {
    #[command(flatten)]
    room: Room,
    /// Ask the operating system first
    #[arg(long)]
    soft: bool,
}

/// Switch machines off and on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power cycle lab1 --netboot")]
pub(crate) struct CycleArgs {
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    start: Start,
}

/// Reset machines without taking their power away
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power reset lab1")]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    start: Start,
}

/// Choose what machines boot next, once
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power bootdev pxe lab1 lab2")]
pub(crate) struct BootdevArgs {
    /// What they boot
    #[arg(value_enum)]
    device: NextBoot,
    #[command(flatten)]
    room: Room,
}

/// Look at the certificates of controllers, and know them by these from now on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power trust --group room3 --yes")]
pub(crate) struct TrustArgs {
    #[command(flatten)]
    room: Room,
    /// Keep them; without this they are only shown
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(command: PowerCommand, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let client = Client::find(dir)?;
    let request = match command {
        PowerCommand::Status(args) => request(PowerAction::Status, args.room, None),
        PowerCommand::On(args) => request(PowerAction::On, args.room, Some(args.start)),
        PowerCommand::Cycle(args) => request(PowerAction::Cycle, args.room, Some(args.start)),
        PowerCommand::Reset(args) => request(PowerAction::Reset, args.room, Some(args.start)),
        PowerCommand::Off(args) => {
            let mut request = request(PowerAction::Off, args.room, None);
            request.plan.soft = args.soft;
            request
        }
        PowerCommand::Bootdev(args) => {
            let mut request = request(PowerAction::Bootdev, args.room, None);
            request.plan.boot = args.device;
            request
        }
        PowerCommand::Trust(args) => {
            let mut request = request(PowerAction::Trust, args.room, None);
            request.plan.accept = args.yes;
            request
        }
        PowerCommand::Login(args) => return login::enter(&client, args, json),
        PowerCommand::Logins(login::LoginsArgs {}) => return login::list(&client, json),
        PowerCommand::Logout(args) => return login::forget(&client, &args, json),
    };
    let order = watch(&client, &request)?;
    show(json, &order.outcomes, || table(&order.outcomes))?;
    let failed = order.outcomes.iter().any(|outcome| outcome.error.is_some());
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn request(action: PowerAction, room: Room, start: Option<Start>) -> PowerRequest {
    let machines = match (room.all, room.group) {
        (true, _) => Chosen::All,
        (false, Some(group)) => Chosen::Group(group),
        (false, None) => Chosen::Names(room.machines),
    };
    let plan = Plan {
        action,
        soft: false,
        boot: start.as_ref().map(|start| start.boot).unwrap_or_default(),
        netboot: start.as_ref().is_some_and(|start| start.netboot),
        within_seconds: start.as_ref().map_or(0, |start| start.within),
        accept: false,
        parallel: room.parallel,
        stagger_ms: start.map_or(0, |start| (start.stagger.max(0.0) * 1000.0) as u64),
    };
    PowerRequest { machines, plan }
}

/// Give an order and wait until it is over.
fn watch(client: &Client, request: &PowerRequest) -> anyhow::Result<OrderView> {
    let mut order: OrderView = client.post("power", request)?;
    eprintln!("{}", described(&order));
    while !order.over {
        thread::sleep(LOOK);
        order = client.get(&format!("power/{}", order.order))?;
    }
    eprintln!("over after {:.1} s", order.seconds);
    Ok(order)
}

/// What the server is about to do, in one line.
fn described(order: &OrderView) -> String {
    let plan = &order.plan;
    let mut text = format!(
        "{} machines, {} at a time, time-out {} s each",
        order.machines, plan.parallel, order.deadline_seconds
    );
    if plan.stagger_ms > 0 {
        text += &format!(", starts {} ms apart", plan.stagger_ms);
    }
    if plan.netboot {
        text += &format!(", seen within {} s", plan.within_seconds);
    }
    text
}

fn table(outcomes: &[PowerOutcome]) -> String {
    let mut table = Table::new(["MACHINE", "POWER", "SECONDS", "BY", ""]);
    for outcome in outcomes {
        let state = outcome.state.map_or("?".to_owned(), |s| s.to_string());
        let seen = |seconds| format!("asked what to boot after {seconds:.0} s");
        let words = match (&outcome.error, outcome.seen_seconds) {
            (Some(error), _) => error.clone(),
            (None, Some(seconds)) => seen(seconds),
            (None, None) => outcome.certificate.clone().unwrap_or_default(),
        };
        table.row([
            outcome.machine.clone(),
            state,
            format!("{:.1}", outcome.seconds),
            outcome.by.clone().unwrap_or_else(|| "-".to_owned()),
            words,
        ]);
    }
    table.render()
}
