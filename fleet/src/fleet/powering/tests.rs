//! What orders leave behind: logins, groups, and the log.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use netflash_pxe::{Identity, Mac, Platform};
use tempfile::TempDir;

use super::{Chosen, PowerRequest};
use crate::fleet::tests::Room;
use crate::fleet::{BootRequest, FlashRequest, Fleet, FleetError, NewImage};
use crate::job::FlashWish;
use crate::machine::NewMachine;
use crate::power::{
    Keyring, NewLogin, NextBoot, OrderView, Password, Plan, PowerAction, PowerAddress,
};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 77]);

/// A fleet with one machine in the group `bench`, whose lamp is a file.
fn bench(group: &str) -> (TempDir, Arc<Fleet>) {
    let scratch = tempfile::tempdir().unwrap();
    let mut fleet = Room::fleet(&scratch, group);
    let profile = "driver = 'command'\non = ['touch', '{address}']\noff = ['rm', '-f', '{address}']\n\
                   status = ['sh', '-c', 'test -e $0 && echo on || echo off', '{address}']";
    let profile = toml::from_str(profile).unwrap();
    fleet.config.power.insert("plug".to_owned(), profile);
    let new = NewMachine {
        name: "lamp".to_owned(),
        macs: vec![MAC],
        power: vec![format!("plug:{}/lamp", scratch.path().display())],
        groups: vec!["bench".to_owned()],
        ..NewMachine::default()
    };
    fleet.add_machine(&new).unwrap();
    (scratch, Arc::new(fleet))
}

fn plan(action: PowerAction, netboot: bool) -> Plan {
    Plan {
        action,
        soft: false,
        boot: NextBoot::Pxe,
        netboot,
        within_seconds: 600,
        accept: false,
        parallel: 4,
        stagger_ms: 0,
    }
}

fn order(fleet: &Arc<Fleet>, machines: Chosen, plan: Plan) -> Result<OrderView, FleetError> {
    fleet.begin_power(PowerRequest { machines, plan })
}

/// Wait until an order is over; meanwhile the machine boots, if it is to.
fn end(fleet: &Arc<Fleet>, order: u64, boots: bool) -> OrderView {
    loop {
        let view = fleet.power_order(order).unwrap();
        if view.over {
            return view;
        }
        if boots {
            let identity = Identity {
                macs: vec![MAC],
                ..Identity::default()
            };
            let request = BootRequest {
                identity,
                platform: Platform::Bios,
                ..BootRequest::default()
            };
            fleet.boot(&request).unwrap();
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_boot_from_the_network_is_in_the_log_under_the_machines_job() {
    let (scratch, fleet) = bench("239.192.81.1:9301");
    let path = crate::fleet::tests::tiny_image(&scratch);
    let image = NewImage {
        path: path.to_str().unwrap().to_owned(),
        name: "tiny".to_owned(),
    };
    fleet.add_image(&image).unwrap();
    let wish = FlashRequest {
        image: "tiny".to_owned(),
        machines: Some(vec!["lamp".to_owned()]),
        wish: FlashWish::default(),
    };
    let job = fleet.flash(&wish).unwrap()[0].id;
    let begun = order(
        &fleet,
        Chosen::Group("bench".to_owned()),
        plan(PowerAction::Cycle, true),
    );
    let view = end(&fleet, begun.unwrap().order, true);
    assert!(view.outcomes[0].seen_seconds.is_some(), "{view:?}");
    let events = fleet.events(0, 1000).unwrap();
    let mut events = events.into_iter().map(|(_, event)| event);
    let noted = events.find(|event| event.kind == "power_cycle").unwrap();
    assert_eq!(
        (noted.machine.as_deref(), noted.job),
        (Some("lamp"), Some(job))
    );
    assert!(
        noted.text.contains("asked what to boot after"),
        "{}",
        noted.text
    );
}

#[test]
fn a_look_is_not_logged_and_nobody_is_no_order() {
    let (_scratch, fleet) = bench("239.192.81.2:9302");
    let begun = order(&fleet, Chosen::All, plan(PowerAction::Status, false)).unwrap();
    end(&fleet, begun.order, false);
    let events = fleet.events(0, 1000).unwrap();
    assert!(
        events
            .iter()
            .all(|(_, event)| !event.kind.starts_with("power_"))
    );
    for machines in [
        Chosen::Group("none".to_owned()),
        Chosen::Names(vec!["x".to_owned()]),
    ] {
        assert!(matches!(
            order(&fleet, machines, plan(PowerAction::On, false)),
            Err(FleetError::Absent(_))
        ));
    }
    let twice = Chosen::Names(vec!["lamp".to_owned(), "lamp".to_owned()]);
    assert_eq!(
        order(&fleet, twice, plan(PowerAction::On, false))
            .unwrap()
            .machines,
        1
    );
}

#[test]
fn logins_survive_a_restart_sealed_and_each_has_a_stamp_of_its_own() {
    let (scratch, fleet) = bench("239.192.81.3:9303");
    let enter = |fleet: &Fleet, name: &str, password: &str| {
        let new = NewLogin {
            name: name.to_owned(),
            user: "admin".to_owned(),
            password: Password::new(password.to_owned()),
        };
        fleet.add_login(&new)
    };
    enter(&fleet, "plug", "first").unwrap();
    enter(&fleet, "plug:7", "seventh").unwrap();
    assert!(
        enter(&fleet, "nowhere", "x").is_err(),
        "there is no such profile"
    );
    assert!(enter(&fleet, "plug", "").is_err());
    let read = |fleet: &Fleet, place: &str| {
        let place: PowerAddress = place.parse().unwrap();
        let login = Keyring::login(fleet, &place).unwrap().unwrap();
        (login.password.text().to_owned(), login.stamp)
    };
    let (password, stamp) = read(&fleet, "plug:1");
    assert_eq!(password, "first");
    assert_eq!(read(&fleet, "plug:7").0, "seventh");
    enter(&fleet, "plug", "first").unwrap();
    assert_ne!(read(&fleet, "plug:1").1, stamp, "entered anew");
    drop(fleet);
    for file in ["netflash.db", "netflash.db-wal"] {
        let bytes = fs::read(scratch.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(7).any(|seven| seven == b"seventh"), "{file}");
    }
    let mut fleet = Room::fleet(&scratch, "239.192.81.3:9303");
    let profile = toml::from_str("driver = 'qmp'").unwrap();
    fleet.config.power.insert("plug".to_owned(), profile);
    assert_eq!(read(&fleet, "plug:7").0, "seventh");
    fleet.remove_login("plug:7").unwrap();
    assert_eq!(read(&fleet, "plug:7").0, "first", "the profile's");
    assert!(fleet.remove_login("plug:7").is_err());
}
