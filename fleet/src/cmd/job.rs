//! `netflash job`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use netflash_pxe::{DiskSelector, FreePolicy, LastAction, VerifyPolicy};

use super::show;
use crate::Exit;
use crate::api::MachineList;
use crate::client::Client;
use crate::cmd::scope::ScopeArgs;
use crate::confirm::confirm_erasing;
use crate::fleet::FlashRequest;
use crate::interrupt::stop_on_signal;
use crate::job::{FlashWish, Job, JobState};
use crate::progress::StatusLine;
use crate::table::{Table, bytes};

mod capture;
mod verify;

use capture::CaptureArgs;
use verify::VerifyArgs;

/// How often a watched job is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Order, watch and cancel jobs
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    Flash(FlashArgs),
    Capture(CaptureArgs),
    Verify(VerifyArgs),
    List(ListArgs),
    Show(IdArgs),
    Watch(WatchArgs),
    Cancel(CancelArgs),
}

/// Which machines a job is for
#[derive(Debug, Args)]
struct Machines {
    /// Names of the machines, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    machines: Vec<String>,
    /// All machines that were entered
    #[arg(long)]
    all: bool,
}

impl Machines {
    /// Their names, as of now.
    fn names(self, client: &Client) -> anyhow::Result<Vec<String>> {
        let names = if self.all {
            let list: MachineList = client.get("machines")?;
            let machines = list.machines.into_iter();
            machines.map(|machine| machine.name).collect()
        } else {
            self.machines
        };
        anyhow::ensure!(
            !names.is_empty(),
            "there is no machine; netflash machine add enters one"
        );
        Ok(names)
    }
}

/// Flash machines with an image as soon as they boot over the network
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash job flash debian-13 --machines lab1,lab2 --disk auto
  netflash job flash debian-13 --all --keep 4          # partition 4 stays")]
pub(crate) struct FlashArgs {
    /// Name of the image
    image: String,
    #[command(flatten)]
    machines: Machines,
    /// Disk to erase: auto, serial:…, wwn:…, /dev/… or size:200G..300G
    #[arg(long, value_name = "SELECTOR", default_value = "auto")]
    disk: DiskSelector,
    #[command(flatten)]
    scope: ScopeArgs,
    /// What becomes of space the image does not use
    #[arg(long, value_enum, default_value = "leave")]
    free: FreeWord,
    /// How much is read back
    #[arg(long, value_enum, default_value = "full")]
    verify: VerifyWord,
    /// Compare first; leave a disk alone that is the image already
    #[arg(long, conflicts_with_all = ["only", "keep", "incomplete"])]
    if_different: bool,
    /// What a machine does afterwards
    #[arg(long = "then", value_enum, default_value = "reboot")]
    last: LastWord,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FreeWord {
    Leave,
    Discard,
    Zero,
}

impl From<FreeWord> for FreePolicy {
    fn from(word: FreeWord) -> FreePolicy {
        match word {
            FreeWord::Leave => FreePolicy::Leave,
            FreeWord::Discard => FreePolicy::Discard,
            FreeWord::Zero => FreePolicy::Zero,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VerifyWord {
    Full,
    Sample,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LastWord {
    Reboot,
    Poweroff,
    Wait,
}

impl From<LastWord> for LastAction {
    fn from(word: LastWord) -> LastAction {
        match word {
            LastWord::Reboot => LastAction::Reboot,
            LastWord::Poweroff => LastAction::PowerOff,
            LastWord::Wait => LastAction::Wait,
        }
    }
}

/// List jobs, the newest first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash job list --active")]
pub(crate) struct ListArgs {
    /// Only jobs that are not over
    #[arg(long)]
    active: bool,
}

/// Show all that is known of a job
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash job show 7 --json")]
pub(crate) struct IdArgs {
    /// Its number
    id: u64,
}

/// Wait for jobs to be over; fails unless all are done
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash job watch 7 8 9")]
pub(crate) struct WatchArgs {
    /// Their numbers; all active jobs unless given
    ids: Vec<u64>,
}

/// Cancel jobs
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash job cancel 7")]
pub(crate) struct CancelArgs {
    /// Their numbers
    #[arg(required = true)]
    ids: Vec<u64>,
}

pub(crate) fn run(command: JobCommand, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let client = Client::find(dir)?;
    match command {
        JobCommand::Flash(args) => flash(&client, args, json),
        JobCommand::Capture(args) => capture::run(&client, args, json),
        JobCommand::Verify(args) => verify::run(&client, args, json),
        JobCommand::List(args) => {
            let mut jobs: Vec<Job> = client.get("jobs")?;
            jobs.retain(|job| !args.active || job.state.is_active());
            show(json, &jobs, || table(&jobs))?;
            Ok(Exit::Done)
        }
        JobCommand::Show(args) => {
            let job: Job = client.get(&format!("jobs/{}", args.id))?;
            show(json, &job, || table(std::slice::from_ref(&job)))?;
            Ok(Exit::Done)
        }
        JobCommand::Watch(args) => watch(&client, args.ids, json),
        JobCommand::Cancel(args) => {
            let mut jobs: Vec<Job> = Vec::new();
            for id in args.ids {
                jobs.push(client.post(&format!("jobs/{id}/cancel"), &())?);
            }
            show(json, &jobs, || table(&jobs))?;
            Ok(Exit::Done)
        }
    }
}

fn flash(client: &Client, args: FlashArgs, json: bool) -> anyhow::Result<Exit> {
    let names = args.machines.names(client)?;
    confirm_erasing(
        &args
            .scope
            .part_of(format!("disk {} of {}", args.disk, names.join(", "))),
        args.yes,
    )?;
    let request = FlashRequest {
        image: args.image,
        // Exactly the machines that were named in the question, not those entered since.
        machines: Some(names),
        wish: FlashWish {
            disk: args.disk,
            free: args.free.into(),
            scope: args.scope.of_job(),
            verify: match args.verify {
                VerifyWord::Full => VerifyPolicy::Full,
                VerifyWord::Sample => VerifyPolicy::Sample,
            },
            last: args.last.into(),
            if_different: args.if_different,
        },
    };
    let jobs: Vec<Job> = client.post("jobs/flash", &request)?;
    show(json, &jobs, || table(&jobs))?;
    Ok(Exit::Done)
}

fn watch(client: &Client, ids: Vec<u64>, json: bool) -> anyhow::Result<Exit> {
    let stop = stop_on_signal()?;
    let ids = if ids.is_empty() {
        let jobs: Vec<Job> = client.get("jobs")?;
        jobs.iter()
            .filter(|job| job.state.is_active())
            .map(|job| job.id)
            .collect()
    } else {
        ids
    };
    let mut line = StatusLine::new();
    let mut known: BTreeMap<u64, (JobState, String)> = BTreeMap::new();
    loop {
        let mut jobs: Vec<Job> = Vec::new();
        for id in &ids {
            jobs.push(client.get(&format!("jobs/{id}"))?);
        }
        for job in &jobs {
            let now = (job.state, job.reason.clone());
            if known.insert(job.id, now.clone()) != Some(now) && !json {
                line.clear();
                println!("{}", sentence(job));
            }
        }
        if jobs.iter().all(|job| !job.state.is_active()) {
            line.clear();
            show(json, &jobs, || table(&jobs))?;
            let all_done = jobs.iter().all(|job| job.state == JobState::Done);
            return Ok(if all_done { Exit::Done } else { Exit::Failed });
        }
        line.show(&summary(&jobs));
        if stop.load(Ordering::Relaxed) {
            line.clear();
            return Ok(Exit::Interrupted);
        }
        thread::sleep(LOOK);
    }
}

fn sentence(job: &Job) -> String {
    let reason = if job.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", job.reason)
    };
    format!("job {} {} {}{reason}", job.id, job.machine_name, job.state)
}

fn summary(jobs: &[Job]) -> String {
    let active = jobs.iter().filter(|job| job.state.is_active());
    let words: Vec<String> = active
        .take(6)
        .map(|job| format!("{} {} {}", job.machine_name, job.state, percent(job)))
        .collect();
    words.join(", ")
}

/// How much of the image is on the disk, or of the disk in the image.
pub(crate) fn percent(job: &Job) -> String {
    match job.progress {
        _ if job.state == JobState::Done => "100 %".to_owned(),
        Some(progress) if progress.total_bytes > 0 => {
            let share =
                progress.done_bytes.min(progress.total_bytes) as f64 / progress.total_bytes as f64;
            format!("{:.0} %", share * 100.0)
        }
        _ => "-".to_owned(),
    }
}

/// Jobs as people read them.
pub(crate) fn table(jobs: &[Job]) -> String {
    let mut table = Table::new(["JOB", "MACHINE", "STATE", "IMAGE", "DONE", "RATE", ""]);
    for job in jobs {
        let active = job.state.is_active();
        let rate = job
            .progress
            .filter(|_| active)
            .map(|p| format!("{}/s", bytes(p.bytes_per_second)));
        table.row([
            job.id.to_string(),
            job.machine_name.clone(),
            job.state.to_string(),
            if job.wish.scope.is_plain() {
                job.image_name.clone()
            } else {
                format!("{} ({})", job.image_name, job.wish.scope)
            },
            percent(job),
            rate.unwrap_or_default(),
            match (&job.report, &job.captured) {
                (_, Some(captured)) if job.state == JobState::Done => format!(
                    "{} in {:.0} s, {} stored",
                    captured.disk,
                    captured.took_ms as f64 / 1000.0,
                    bytes(captured.bytes)
                ),
                (Some(report), _) => format!(
                    "{} in {:.0} s, {} received",
                    report.disk,
                    report.seconds,
                    bytes(report.received_bytes)
                ),
                _ => job.reason.clone(),
            },
        ]);
    }
    table.render()
}
