//! Rooms as they are: machines that come late, are killed, have slow disks; sessions side by side; sources of all kinds.
//!
//! What arrived is compared with `cmp`. Nothing here is decided by how long it took, only by what came before what.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    lab::{inside, sh},
    net::{Hall, Payload, Program, differing_mebibytes, netflash, wait_while},
};

#[path = "rooms/memory.rs"]
mod memory;

/// Size of the disks, in MiB.
const MEBIBYTES: usize = 32;
/// Of those beside a machine that is nearly cut off: it gets the rest in no time once it is not any more.
const SMALL: usize = 8;
/// How long a transfer of it may take on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Slow enough for something to happen meanwhile.
const SLOW: &str = "40M";

#[test]
fn machines_join_at_any_moment_and_return_after_a_kill() -> Result<()> {
    inside(
        "machines_join_at_any_moment_and_return_after_a_kill",
        || {
            let directory = tempfile::tempdir()?;
            let payload = Payload::random(directory.path(), MEBIBYTES)?;
            let hall = Hall::build(4, 1.0)?;
            let disk = |name: &str| directory.path().join(format!("{name}.raw"));
            let mut first = payload.receive("r1", &disk("r1"), &[])?;
            let sender = payload.send(hall.sender(), &["--receivers", "1", "--rate", SLOW])?;
            let mut others = Vec::new();
            // A quarter, a half and three quarters of the way.
            for (name, lacking) in [("r2", 24), ("r3", 16), ("r4", 8)] {
                wait_while(&mut first, "its part of the disk", LIMIT, || {
                    Ok(lacks(&payload, &disk("r1"), lacking))
                })?;
                others.push((name, payload.receive(name, &disk(name), &[])?));
            }
            let (name, mut victim) = others.remove(0);
            wait_while(&mut victim, "some of the disk", LIMIT, || {
                Ok(lacks(&payload, &disk(name), MEBIBYTES - 4))
            })?;
            victim.kill()?;
            others.push((name, payload.receive(name, &disk(name), &[])?));
            first.succeed(LIMIT)?;
            for (name, machine) in others {
                machine.succeed(LIMIT)?;
                payload.compare(&disk(name))?;
            }
            payload.compare(&disk("r1"))?;
            sender.succeed(LIMIT).map(drop)
        },
    )
}

#[test]
fn a_slow_machine_does_not_keep_the_others() -> Result<()> {
    inside("a_slow_machine_does_not_keep_the_others", || {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), SMALL)?;
        let hall = Hall::build(3, 0.0)?;
        let disk = |name: &str| directory.path().join(format!("{name}.raw"));
        // A hundredth of what flows reaches the third: it would need minutes.
        let path = directory.path().join("slow.nft");
        std::fs::write(
            &path,
            "table bridge slow {\nchain forward {\ntype filter hook forward priority -10;\n\
             oifname \"p-r3\" meta length > 1000 limit rate over 40/second drop\n}\n}\n",
        )?;
        sh(&format!("nft -f {}", path.display()))?;
        let slow = payload.receive("r3", &disk("r3"), &[])?;
        let others = ["r1", "r2"].map(|name| payload.receive(name, &disk(name), &[]));
        let sender = payload.send(hall.sender(), &["--receivers", "3", "--rate", "80M"])?;
        for (other, name) in others.into_iter().zip(["r1", "r2"]) {
            other?.succeed(LIMIT)?;
            payload.compare(&disk(name))?;
        }
        // The others are done and gone; it lacks nearly everything, and the session goes on for it.
        ensure!(slow.is_running()?, "the slow machine was not slow");
        let lacking = differing_mebibytes(&payload.raw, &disk("r3"))?;
        ensure!(lacking > SMALL / 2, "only {lacking} MiB lack");
        sh("nft delete table bridge slow")?;
        slow.succeed(LIMIT)?;
        payload.compare(&disk("r3"))?;
        sender.succeed(LIMIT).map(drop)
    })
}

#[test]
fn sessions_side_by_side_do_not_disturb_each_other() -> Result<()> {
    inside("sessions_side_by_side_do_not_disturb_each_other", || {
        let directory = tempfile::tempdir()?;
        let one = Payload::random(&sub(directory.path(), "one")?, MEBIBYTES)?;
        let other = Payload::random(&sub(directory.path(), "other")?, MEBIBYTES)?;
        let hall = Hall::build(3, 2.0)?;
        let groups = ["239.192.78.70:9078", "239.192.78.71:9079"];
        let disk = |name: &str| directory.path().join(format!("{name}.raw"));
        let mut machines = Vec::new();
        // The second machine is in both rooms.
        for (namespace, payload, group, name) in [
            ("r1", &one, groups[0], "a1"),
            ("r2", &one, groups[0], "a2"),
            ("r2", &other, groups[1], "b2"),
            ("r3", &other, groups[1], "b3"),
        ] {
            let machine = payload.receive(namespace, &disk(name), &["--group", group])?;
            machines.push((machine, payload, name));
        }
        let senders = [(&one, groups[0]), (&other, groups[1])].map(|(payload, group)| {
            let arguments = ["--receivers", "2", "--rate", "60M", "--group", group];
            payload.send(hall.sender(), &arguments)
        });
        for (machine, payload, name) in machines {
            machine.succeed(LIMIT)?;
            payload.compare(&disk(name))?;
        }
        for sender in senders {
            let result: Value = serde_json::from_str(&sender?.succeed(LIMIT)?.stdout)?;
            let names = result["receivers"].as_array().map_or(0, Vec::len);
            ensure!(names == 2, "{names} machines were heard: {result}");
        }
        Ok(())
    })
}

#[test]
fn a_queue_gives_each_machine_the_image_it_asked_for() -> Result<()> {
    inside("a_queue_gives_each_machine_the_image_it_asked_for", || {
        let directory = tempfile::tempdir()?;
        let first = Payload::random(&sub(directory.path(), "first")?, 8)?;
        let second = Payload::random(&sub(directory.path(), "second")?, 8)?;
        let hall = Hall::build(2, 0.0)?;
        let disk = |name: &str| directory.path().join(format!("{name}.raw"));
        // Whom the second image is for is there from the beginning.
        let late = second.receive("r2", &disk("r2"), &["--image-id", &image_id(&second)?])?;
        let early = first.receive("r1", &disk("r1"), &["--image-id", &image_id(&first)?])?;
        let more = second.image.display().to_string();
        let sender = first.send(hall.sender(), &[&more, "--receivers", "1"])?;
        early.succeed(LIMIT)?;
        late.succeed(LIMIT)?;
        first.compare(&disk("r1"))?;
        second.compare(&disk("r2"))?;
        let stdout = sender.succeed(LIMIT)?.stdout;
        let ids: Vec<String> = stdout
            .lines()
            .map(|line| Ok(text(&serde_json::from_str::<Value>(line)?["image_id"])))
            .collect::<Result<_>>()?;
        ensure!(ids == [image_id(&first)?, image_id(&second)?], "{stdout}");
        Ok(())
    })
}

#[test]
fn a_sealed_stream_is_sent_as_it_is_and_leaves_nothing_behind() -> Result<()> {
    inside(
        "a_sealed_stream_is_sent_as_it_is_and_leaves_nothing_behind",
        || {
            let directory = tempfile::tempdir()?;
            let payload = Payload::random(directory.path(), 4)?;
            let hall = Hall::build(1, 0.0)?;
            let spool = sub(directory.path(), "spool")?;
            let disk = directory.path().join("r1.raw");
            let machine = payload.receive("r1", &disk, &["--image-id", &image_id(&payload)?])?;
            let line = format!(
                "cat {} | {} send - --spool {} --json",
                payload.image.display(),
                netflash()?.display(),
                spool.display()
            );
            let sender = Program::start("netflash send -", hall.sender(), "sh", ["-c", &line])?;
            machine.succeed(LIMIT)?;
            sender.succeed(LIMIT)?;
            payload.compare(&disk)?;
            ensure!(
                std::fs::read_dir(&spool)?.next().is_none(),
                "the spool is not empty"
            );

            // An input that never ends is interrupted, and leaves nothing either.
            let line = format!(
                "exec {} send - --spool {} < <(sleep 600 2>/dev/null)",
                netflash()?.display(),
                spool.display()
            );
            let mut silent =
                Program::start("netflash send -", hall.sender(), "bash", ["-c", &line])?;
            wait_while(&mut silent, "its spool", LIMIT, || {
                Ok(std::fs::read_dir(&spool)?.next().is_some())
            })?;
            silent.ask_to_end()?;
            let ended = silent.wait(LIMIT)?;
            ensure!(
                ended.code == Some(130),
                "exit code {:?}: {}",
                ended.code,
                ended.stderr
            );
            ensure!(
                std::fs::read_dir(&spool)?.next().is_none(),
                "the spool is not empty"
            );
            Ok(())
        },
    )
}

#[test]
fn a_session_for_named_machines_says_who_is_missing() -> Result<()> {
    inside("a_session_for_named_machines_says_who_is_missing", || {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), 4)?;
        let hall = Hall::build(2, 0.0)?;
        let disk = directory.path().join("r1.raw");
        let machine = payload.receive("r1", &disk, &[])?;
        let arguments = ["--machines", "r1,lab9", "--wait", "2s"];
        let sender = payload.send(hall.sender(), &arguments)?;
        machine.succeed(LIMIT)?;
        payload.compare(&disk)?;
        let ended = sender.wait(LIMIT)?;
        ensure!(ended.code == Some(1), "exit code {:?}", ended.code);
        for words in ["not here yet: lab9", "1 machine did not finish: lab9"] {
            ensure!(ended.stderr.contains(words), "{}", ended.stderr);
        }
        Ok(())
    })
}

/// Whether a disk is there and lacks no more than so many mebibytes.
fn lacks(payload: &Payload, disk: &Path, at_most: usize) -> bool {
    disk.exists() && differing_mebibytes(&payload.raw, disk).is_ok_and(|lacking| lacking <= at_most)
}

fn sub(directory: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = directory.join(name);
    std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

fn image_id(payload: &Payload) -> Result<String> {
    let info = sh(&format!(
        "{} image info {} --json",
        netflash()?.display(),
        payload.image.display()
    ))?;
    Ok(text(&serde_json::from_str::<Value>(&info)?["image_id"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
