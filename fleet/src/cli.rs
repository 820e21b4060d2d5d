//! The command line: what there is, and how it ends.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use crate::cmd::{
    appliance, doctor, image, init, job, lab, machine, power, receive, send, serve, status,
    store_image, verify,
};
use crate::exit::{Exit, exit_of};

/// One image, a whole room of machines, once over the wire
#[derive(Debug, Parser)]
#[command(name = "netflash", version, max_term_width = 80)]
struct Cli {
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Directory of the server: configuration, keys, database
    #[arg(
        long,
        global = true,
        env = "NETFLASH_DIR",
        default_value = ".",
        value_name = "DIR"
    )]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Appliance(appliance::ApplianceArgs),
    Doctor(doctor::DoctorArgs),
    /// Make, check and restore images; enter them into the server
    #[command(subcommand)]
    Image(ImageCommand),
    Init(init::InitArgs),
    #[command(subcommand)]
    Job(job::JobCommand),
    Lab(lab::LabArgs),
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    #[command(subcommand)]
    Power(power::PowerCommand),
    Receive(receive::ReceiveArgs),
    Send(send::SendArgs),
    Serve(serve::ServeArgs),
    Status(status::StatusArgs),
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    #[command(flatten)]
    File(image::ImageCommand),
    #[command(flatten)]
    Store(store_image::StoreImageCommand),
}

/// The whole command line as clap sees it, for documentation and tests.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Run the program with the arguments of this process.
pub fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match dispatch(cli) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("netflash: {error:#}");
            exit_of(&error)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { json, dir, command } = cli;
    let dir: &Path = &dir;
    match command {
        Command::Appliance(args) => appliance::run(args, dir, json),
        Command::Doctor(args) => doctor::run(&args, json),
        Command::Image(ImageCommand::File(command)) => image::run(&command, json),
        Command::Image(ImageCommand::Store(command)) => store_image::run(command, dir, json),
        Command::Init(args) => init::run(&args, dir, json),
        Command::Job(command) => job::run(command, dir, json),
        Command::Lab(args) => lab::run(args),
        Command::Machine(command) => machine::run(command, dir, json),
        Command::Power(command) => power::run(command, dir, json),
        Command::Receive(args) => receive::run(&args, json),
        Command::Send(args) => send::run(&args, json),
        Command::Serve(args) => serve::run(&args, dir, json),
        Command::Status(args) => status::run(&args, dir, json),
        Command::Verify(args) => verify::run(&args, json),
    }
}
