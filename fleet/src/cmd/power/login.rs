//! `netflash power login`, `logins`, `logout`

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::Value;

use super::super::show;
use crate::Exit;
use crate::client::Client;
use crate::fleet::now;
use crate::power::{LoginView, NewLogin, Password};
use crate::table::{Table, ago};

/// Enter user and password of power devices
///
/// The password is asked for on the terminal, or read from a file or the
/// environment; never from the command line, which others can read. The server
/// keeps it sealed with its key.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  netflash power login bmc --user admin\n  netflash power login bmc:10.0.1.7 --user ops --password-file ops.pw"
)]
pub(crate) struct LoginArgs {
    /// A profile, or PROFILE:ADDRESS for one device of it
    name: String,
    /// The user
    #[arg(long)]
    user: String,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,
    /// Environment variable that holds the password
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
}

/// List the logins of power devices, without their passwords
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power logins")]
pub(crate) struct LoginsArgs {}

/// Forget a login of power devices
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash power logout bmc:10.0.1.7")]
pub(crate) struct LogoutArgs {
    /// As it was entered
    name: String,
}

pub(super) fn enter(client: &Client, args: LoginArgs, json: bool) -> anyhow::Result<Exit> {
    let password = match (&args.password_file, &args.password_env) {
        (Some(file), _) => from_file(file)?,
        (None, Some(name)) => {
            let found = std::env::var(name);
            Password::new(found.with_context(|| format!("reading the environment's {name}"))?)
        }
        (None, None) => from_terminal(&args.name, &args.user)?,
    };
    let new = NewLogin {
        name: args.name,
        user: args.user,
        password,
    };
    let entered: LoginView = client.post("logins", &new)?;
    show(json, &entered, || {
        format!("{} logs in as {}\n", entered.name, entered.user)
    })?;
    Ok(Exit::Done)
}

pub(super) fn list(client: &Client, json: bool) -> anyhow::Result<Exit> {
    let logins: Vec<LoginView> = client.get("logins")?;
    show(json, &logins, || {
        let mut table = Table::new(["LOGIN", "USER", "ENTERED"]);
        for login in &logins {
            let entered = ago(login.entered, now());
            table.row([login.name.clone(), login.user.clone(), entered]);
        }
        table.render()
    })?;
    Ok(Exit::Done)
}

pub(super) fn forget(client: &Client, args: &LogoutArgs, json: bool) -> anyhow::Result<Exit> {
    client.post::<Value>("logins/forget", &args.name)?;
    show(json, &args.name, || format!("{} forgotten\n", args.name))?;
    Ok(Exit::Done)
}

fn from_file(file: &Path) -> anyhow::Result<Password> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(Password::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}

/// Ask without showing what is typed.
fn from_terminal(name: &str, user: &str) -> anyhow::Result<Password> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("there is no terminal to ask on; use --password-file or --password-env")?;
    write!(terminal, "Password of {user} at {name}: ")?;
    let usual = tcgetattr(terminal.as_fd()).context("asking the terminal how it is set")?;
    let mut silent = usual.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &silent).context("silencing the terminal")?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    let restored = tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &usual);
    writeln!(terminal)?;
    read.context("reading the password")?;
    restored.context("setting the terminal as it was")?;
    Ok(Password::new(
        line.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}
