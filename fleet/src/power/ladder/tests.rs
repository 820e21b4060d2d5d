//! Ladders of drivers that each lack something.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::Power;
use super::super::line::Lines;
use super::{Attempt, Deadline, Failure, Ladder, Move, PowerError, PowerState, Reached, Rung};

/// What happened to the machine that all drivers of a ladder switch.
#[derive(Debug, Default)]
struct Bench {
    outlet: bool,
    machine: bool,
    told: Vec<&'static str>,
}

type Shared = Arc<Mutex<Bench>>;

/// Asks an operating system: can switch off, and tells on only.
struct System(Shared);

impl Power for System {
    fn status(&mut self, _: Deadline) -> Result<PowerState, PowerError> {
        let bench = self.0.lock().unwrap();
        match (bench.machine, bench.told.contains(&"shut down")) {
            (true, _) => Ok(PowerState::On),
            (false, true) => Ok(PowerState::Off),
            (false, false) => Err(Failure::Unreachable.because("silence")),
        }
    }

    fn tells_off(&self) -> bool {
        false
    }

    fn switches_on(&self) -> bool {
        false
    }

    fn on(&mut self, _: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("it is off"))
    }

    fn off(&mut self, _: Deadline) -> Result<(), PowerError> {
        let mut bench = self.0.lock().unwrap();
        bench.told.push("shut down");
        bench.machine = false;
        Ok(())
    }
}

/// Wakes: can switch on, tells nothing, and only its third packet gets through.
struct Waker(Shared);

impl Power for Waker {
    fn status(&mut self, _: Deadline) -> Result<PowerState, PowerError> {
        Err(Failure::Unsupported.because("no answer"))
    }

    fn tells_off(&self) -> bool {
        false
    }

    fn switches_off(&self) -> bool {
        false
    }

    fn repeats(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn on(&mut self, _: Deadline) -> Result<(), PowerError> {
        let mut bench = self.0.lock().unwrap();
        bench.told.push("wake");
        let woken = bench.told.iter().filter(|told| **told == "wake").count() >= 3;
        bench.machine |= woken && bench.outlet;
        Ok(())
    }

    fn off(&mut self, _: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("it only wakes"))
    }
}

/// Gives current, and tells no more than that.
struct Outlet(Shared);

impl Power for Outlet {
    fn status(&mut self, _: Deadline) -> Result<PowerState, PowerError> {
        Ok(match self.0.lock().unwrap().outlet {
            true => PowerState::On,
            false => PowerState::Off,
        })
    }

    fn tells_on(&self) -> bool {
        false
    }

    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    fn on(&mut self, _: Deadline) -> Result<(), PowerError> {
        let mut bench = self.0.lock().unwrap();
        bench.told.push("current");
        (bench.outlet, bench.machine) = (true, true);
        Ok(())
    }

    fn off(&mut self, _: Deadline) -> Result<(), PowerError> {
        let mut bench = self.0.lock().unwrap();
        bench.told.push("no current");
        (bench.outlet, bench.machine) = (false, false);
        Ok(())
    }
}

fn rung(name: &str, driver: Box<dyn Power>) -> Rung {
    Rung {
        name: name.to_owned(),
        driver,
        line: Lines::default().line(name),
        stamp: 0,
        deadline: Duration::from_secs(2),
    }
}

fn climb(bench: &Shared, rungs: Vec<Rung>, wanted: Move) -> (Option<Reached>, Vec<Attempt>) {
    let witness = Arc::clone(bench);
    let seen = move || witness.lock().unwrap().machine;
    let mut failed = Vec::new();
    let mut ladder = Ladder { rungs, seen: &seen };
    (ladder.act(wanted, &mut failed), failed)
}

fn bench(outlet: bool, machine: bool) -> Shared {
    Arc::new(Mutex::new(Bench {
        outlet,
        machine,
        told: Vec::new(),
    }))
}

fn system(bench: &Shared) -> Rung {
    rung("os", Box::new(System(Arc::clone(bench))))
}

fn waker(bench: &Shared) -> Rung {
    rung("wake", Box::new(Waker(Arc::clone(bench))))
}

fn outlet(bench: &Shared) -> Rung {
    rung("pdu", Box::new(Outlet(Arc::clone(bench))))
}

#[test]
fn a_cycle_that_nobody_can_do_alone_is_done_by_two() {
    let bench = bench(true, true);
    let (reached, _) = climb(&bench, vec![system(&bench), waker(&bench)], Move::Cycle);
    assert_eq!(reached.map(|reached| reached.by).as_deref(), Some("wake"));
    let told = &bench.lock().unwrap().told;
    assert_eq!(told, &["shut down", "wake", "wake", "wake"]);
}

#[test]
fn what_can_only_switch_off_does_not_begin_a_cycle() {
    let bench = bench(true, true);
    let (reached, failed) = climb(&bench, vec![system(&bench)], Move::Cycle);
    assert_eq!(reached, None);
    assert_eq!(failed[0].failure, Failure::Unsupported);
    assert!(bench.lock().unwrap().told.is_empty());
}

#[test]
fn an_outlet_that_is_on_does_not_stand_for_the_machine() {
    let bench = bench(true, false);
    let rungs = vec![waker(&bench), outlet(&bench)];
    let (reached, _) = climb(&bench, rungs, Move::On);
    assert_eq!(reached.map(|reached| reached.by).as_deref(), Some("wake"));
    assert!(bench.lock().unwrap().machine, "it was woken all the same");
}

#[test]
fn an_outlet_that_was_on_all_along_has_started_nothing() {
    let bench = bench(true, false);
    let rungs = vec![system(&bench), outlet(&bench)];
    let (reached, failed) = climb(&bench, rungs, Move::On);
    assert_eq!(reached, None);
    let words: Vec<Failure> = failed.iter().map(|attempt| attempt.failure).collect();
    assert_eq!(words, [Failure::Unreachable, Failure::NotConfirmed]);
    assert!(bench.lock().unwrap().told.is_empty());
}

#[test]
fn an_outlet_that_is_off_is_switched_on_when_no_packet_wakes() {
    let bench = bench(false, false);
    let rungs = vec![waker(&bench), outlet(&bench)];
    let (reached, failed) = climb(&bench, rungs, Move::On);
    assert_eq!(reached.map(|reached| reached.by).as_deref(), Some("pdu"));
    assert_eq!(failed[0].failure, Failure::NotConfirmed);
    assert!(bench.lock().unwrap().machine);
}
