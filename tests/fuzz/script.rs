//! What a script can make happen on a stage (`theatre.rs`): each act is read from the fuzzer's bytes.

use std::time::Duration;

use libfuzzer_sys::arbitrary::{Result, Unstructured};

use netflash_multicast::{GUARDS, Sabotage};

use crate::theatre::{MACHINES, Theatre, address};

/// Acts of one script at most: what a session needs several times over.
const ACTS_MAX: usize = 4000;

/// Whose door the mischief comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    #[allow(dead_code)]
    /// Datagrams to the group are lost, late, doubled, spoiled and forged.
    Receiver,
    #[allow(dead_code)]
    /// Reports are.
    Sender,
}

/// Plays a script to its end, and then the fair end.
pub fn play(bytes: &[u8], victim: Victim) {
    let mut script = Unstructured::new(bytes);
    let sealed = script.arbitrary().unwrap_or(false);
    let mut theatre = Theatre::new(sealed);
    // One who can mend a checksum excuses much: half of the scripts do without.
    theatre.forger = script.arbitrary().unwrap_or(false);
    for _ in 0..ACTS_MAX {
        if script.is_empty() || act(&mut script, &mut theatre, victim).is_err() {
            break;
        }
        theatre.take_sender_events();
        theatre.check();
    }
    theatre.fair_end();
}

fn act(script: &mut Unstructured<'_>, theatre: &mut Theatre, victim: Victim) -> Result<()> {
    let number = usize::from(script.arbitrary::<bool>()?) % MACHINES;
    let now = theatre.now;
    match script.int_in_range(0..=15_u8)? {
        0 | 1 => {
            theatre.transmit(script.int_in_range(1..=40)?);
        }
        2 | 3 => deliver(script, theatre, number)?,
        4 => theatre.wait(Duration::from_micros(u64::from(script.arbitrary::<u16>()?))),
        5 => theatre.wait(Duration::from_millis(script.int_in_range(1..=12_000)?)),
        6 => theatre.provide(script.arbitrary::<u8>()?.into()),
        7 => {
            let excuses = theatre.excuses;
            theatre.machines[number].take_event(excuses);
        }
        8 => theatre.machines[number].survey(now),
        9 => {
            let (which, refuse) = (script.arbitrary::<u8>()?, script.ratio(1, 4)?);
            theatre.machines[number].judge(now, which.into(), refuse);
        }
        10 => {
            let spoiled = script.arbitrary::<Option<u8>>()?.map(usize::from);
            theatre.machines[number].settle(now, spoiled);
        }
        11 => {
            let (backlog, room, overflow) = script.arbitrary::<(u64, bool, u32)>()?;
            theatre.machines[number].press(backlog, room, overflow);
        }
        12 => theatre.report(number),
        13 => answer(script, theatre)?,
        14 => mischief(script, theatre, victim, number)?,
        _ if script.ratio(1, 16)? => {
            theatre.excuses.ended = true;
            match script.arbitrary::<bool>()? {
                true => theatre.sender.end(now),
                false => theatre.machines[number]
                    .receiver
                    .fail(now, "a broken disk".to_owned()),
            }
        }
        _ => {}
    }
    Ok(())
}

/// Datagrams of the air reach a machine: some in a row, from anywhere in it; what is passed over stays, or is lost.
fn deliver(script: &mut Unstructured<'_>, theatre: &mut Theatre, number: usize) -> Result<()> {
    let from = usize::from(script.arbitrary::<u8>()?);
    let count = script.int_in_range(1..=32)?;
    for datagram in theatre
        .air
        .iter()
        .skip(from % theatre.air.len().max(1))
        .take(count)
    {
        theatre.machines[number]
            .receiver
            .handle_datagram(theatre.now, address(1), datagram);
    }
    if script.arbitrary()? {
        theatre.air.drain(..count.min(theatre.air.len()));
    }
    Ok(())
}

/// A report reaches the sender; it may come again.
fn answer(script: &mut Unstructured<'_>, theatre: &mut Theatre) -> Result<()> {
    let which = usize::from(script.arbitrary::<u8>()?) % theatre.reports.len().max(1);
    if let Some((number, report)) = theatre.reports.get(which) {
        let from = address(100 + *number as u16);
        theatre.sender.handle_datagram(theatre.now, from, report);
    }
    if script.arbitrary()? {
        theatre.reports.remove(which);
    }
    Ok(())
}

/// A datagram that nobody sent: one of the air changed here and there, perhaps with its checksum made right.
fn mischief(
    script: &mut Unstructured<'_>,
    theatre: &mut Theatre,
    victim: Victim,
    number: usize,
) -> Result<()> {
    let which = usize::from(script.arbitrary::<u8>()?);
    let seen = match victim {
        Victim::Receiver => theatre.air.get(which % theatre.air.len().max(1)).cloned(),
        Victim::Sender => theatre
            .reports
            .get(which % theatre.reports.len().max(1))
            .map(|(_, report)| report.clone()),
    };
    let mut datagram = seen.unwrap_or_default();
    for _ in 0..script.int_in_range(0..=6_u8)? {
        let (at, value): (u16, u8) = script.arbitrary()?;
        // The head is where the fields are.
        let span = if at & 0x8000 == 0 {
            datagram.len().min(100)
        } else {
            datagram.len()
        };
        if let Some(byte) = datagram.get_mut(usize::from(at & 0x7fff) % span.max(1)) {
            *byte = value;
        }
    }
    if script.ratio(1, 4)? {
        datagram.truncate(script.arbitrary::<u16>()?.into());
    }
    let mended = theatre.forger && script.arbitrary()? && datagram.len() > 4;
    if mended {
        let body = datagram.len() - 4;
        let checksum = crc32fast::hash(&datagram[..body]);
        datagram[body..].copy_from_slice(&checksum.to_be_bytes());
    }
    // Mostly under the name of another, as whoever wants to be heard would.
    let name = match victim {
        Victim::Receiver => 1,
        Victim::Sender => 100 + number as u16,
    };
    let from = match script.ratio(1, 4)? {
        true => address(script.arbitrary::<u8>()?.into()),
        false => address(name),
    };
    match victim {
        Victim::Receiver => {
            theatre.excuses.forged_data |= mended && !theatre.sealed;
            theatre.machines[number]
                .receiver
                .handle_datagram(theatre.now, from, &datagram);
        }
        Victim::Sender => {
            theatre.excuses.forged_reports |= mended && !theatre.sealed;
            theatre.sender.handle_datagram(theatre.now, from, &datagram);
        }
    }
    Ok(())
}

/// Takes away the guard that `NETFLASH_SABOTAGE` names: the fuzzer must find out.
pub fn sabotage() {
    let Ok(name) = std::env::var("NETFLASH_SABOTAGE") else {
        return;
    };
    let guard = GUARDS.iter().find(|guard| guard.name == name);
    let guard = guard.unwrap_or_else(|| panic!("no guard is called {name}"));
    // It stays away for as long as this process lives.
    std::mem::forget(Sabotage::remove(guard.name));
}
