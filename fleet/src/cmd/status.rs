//! `netflash status`

use std::path::Path;

use clap::Args;

use super::{job, show};
use crate::Exit;
use crate::api::Status;
use crate::client::Client;
use crate::table::{Table, bytes};

/// Show sessions, and how far each machine's last job is
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  netflash status\n  netflash status lab1 lab2 --json")]
pub(crate) struct StatusArgs {
    /// Only these machines
    machines: Vec<String>,
}

pub(crate) fn run(args: &StatusArgs, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let client = Client::find(dir)?;
    let mut status: Status = client.get("status")?;
    if !args.machines.is_empty() {
        status
            .jobs
            .retain(|job| args.machines.contains(&job.machine_name));
    }
    show(json, &status, || text(&status))?;
    Ok(Exit::Done)
}

fn text(status: &Status) -> String {
    let Status {
        version,
        machines,
        seen,
        images,
        ..
    } = status;
    let mut text = format!(
        "netflash {version}: {machines} machines, {images} images, {seen} strangers seen\n"
    );
    if !status.sessions.is_empty() {
        let mut table = Table::new([
            "SESSION", "IMAGE", "GROUP", "HERE", "DONE", "SENT", "REPAIR", "MBIT/S", "",
        ]);
        for session in &status.sessions {
            table.row([
                format!("{:08x}", session.session),
                session.image_name.clone(),
                session.group.to_string(),
                session.receivers.to_string(),
                session.receivers_done.to_string(),
                bytes(session.sent_bytes),
                session.repair_symbols.to_string(),
                (session.rate_bits / 1_000_000).to_string(),
                match session.trouble.is_empty() {
                    true => session.rate_reason.clone(),
                    false => session.trouble.clone(),
                },
            ]);
        }
        text += &format!("\n{}", table.render());
    }
    if let Some(desk) = &status.fallback
        && desk.sent_bytes > 0
    {
        text += &format!(
            "\nover HTTP, where multicast does not pass: {} machines served, {} wait, {} sent\n",
            desk.served,
            desk.waiting,
            bytes(desk.sent_bytes)
        );
    }
    if !status.jobs.is_empty() {
        text += &format!("\n{}", job::table(&status.jobs));
    }
    text
}
