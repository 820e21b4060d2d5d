//! A server on loopback with power profiles, and the command line that talks to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// A server in a directory of its own, ended by force with this value.
pub(crate) struct Desk {
    pub(crate) scratch: TempDir,
    process: Child,
}

/// How a command of `netflash` ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) printed: Value,
    pub(crate) said: String,
}

impl Desk {
    /// Starts a server with these power profiles.
    pub(crate) fn open(profiles: &str) -> Result<Desk> {
        let scratch = tempfile::tempdir()?;
        let config = format!(
            "[listen]\nhttps = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             [multicast]\ninterface = \"127.0.0.1\"\nquerier = \"off\"\n{profiles}"
        );
        fs::write(scratch.path().join("netflash.toml"), config)?;
        let log = fs::File::create(scratch.path().join("server.log"))?;
        let mut process = command(scratch.path())?
            .arg("serve")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting netflash serve")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("its output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let desk = Desk { scratch, process };
        ensure!(!line.is_empty(), "netflash serve ended: {}", desk.log());
        Ok(desk)
    }

    /// Enters a machine; its MAC address follows from `number`.
    pub(crate) fn add(&self, name: &str, number: u8, power: &[&str]) -> Result<()> {
        let mac = format!("52:54:00:99:00:{number:02x}");
        let mut words = vec!["machine", "add", name, "--mac", &mac];
        for power in power {
            words.extend(["--power", power]);
        }
        self.ask(&words).map(drop)
    }

    /// Enters a login.
    pub(crate) fn login(&self, name: &str, user: &str, password: &str) -> Result<()> {
        let ended = command(self.scratch.path())?
            .args(["power", "login", name, "--user", user])
            .args(["--password-env", "DESK_PASSWORD"])
            .env("DESK_PASSWORD", password)
            .output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "netflash power login: {said}");
        Ok(())
    }

    /// A command, however it ends.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Ended> {
        let output = command(self.scratch.path())?.args(words).output()?;
        Ok(Ended {
            code: output.status.code().context("it was killed")?,
            printed: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// A command that must succeed.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Value> {
        let ended = self.run(words)?;
        let (code, said) = (ended.code, &ended.said);
        ensure!(
            code == 0,
            "netflash {words:?} ended with {code}: {said} {}",
            ended.printed
        );
        Ok(ended.printed)
    }

    /// What `netflash power` says of one machine, whether it worked or not.
    pub(crate) fn power(&self, words: &[&str]) -> Result<Value> {
        let ended = self.run(&[&["power"], words].concat())?;
        let outcome = ended.printed[0].clone();
        ensure!(
            outcome.is_object(),
            "netflash power {words:?}: {}",
            ended.said
        );
        let failed = outcome["failure"].is_string();
        ensure!(
            ended.code == i32::from(failed),
            "it ended with {}: {outcome}",
            ended.code
        );
        Ok(outcome)
    }

    /// What an action on all machines, some of which fail, comes to for each: its failure, else its state.
    pub(crate) fn words(&self, action: &str) -> Result<BTreeMap<String, String>> {
        let ended = self.run(&["power", action, "--all"])?;
        ensure!(ended.code == 1, "{}: {}", ended.code, ended.said);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let outcomes = ended.printed.as_array().context("no list")?;
        let words = outcomes.iter().map(|one| {
            let word = text(&one["failure"]).or(text(&one["state"]));
            println!("{one}");
            Some((text(&one["machine"])?, word?))
        });
        words
            .collect::<Option<_>>()
            .context("neither failure nor state")
    }

    /// What the server wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(directory: &Path) -> Result<Command> {
    let mut command = Command::new(netflash()?);
    command.arg("--dir").arg(directory).arg("--json");
    command.stdin(Stdio::null());
    Ok(command)
}

/// The program under test.
pub(crate) fn netflash() -> Result<PathBuf> {
    let path =
        std::env::var_os("NETFLASH_BIN").context("NETFLASH_BIN is not set: run ./scripts/test")?;
    Ok(path.into())
}

/// The program `lab`.
pub(crate) fn lab() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lab"))
}
