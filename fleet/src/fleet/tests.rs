//! The rules of the fleet, with a real store and no network but loopback.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use netflash_imager::{SealOptions, Source, seal};
use netflash_multicast::AgentKey;
use netflash_pxe::{
    AgentEvent, Boot, BootReason, EventKind, Hello, Hex32, Identity, Inventory, JobReport, Mac,
    Order, Platform, Progress,
};
use tempfile::TempDir;

use super::{BootRequest, FlashRequest, Fleet, FleetError, NewImage, Way};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::job::{FlashWish, JobState};
use crate::machine::NewMachine;
use crate::store::SqliteStore;

pub(super) struct Room {
    pub(super) scratch: TempDir,
    pub(super) fleet: Fleet,
}

const UUID: &str = "8c8a6d2e-1f52-4b5e-9c9b-0d6a2f3f1a01";

impl Room {
    /// A fleet with machines `a` and `b`, an image `tiny`, and sessions on loopback.
    pub(super) fn new(first_group: &str) -> Room {
        let scratch = tempfile::tempdir().unwrap();
        let fleet = Room::fleet(&scratch, first_group);
        for (name, last) in [("a", 1), ("b", 2)] {
            let new = NewMachine {
                name: name.to_owned(),
                macs: vec![mac(last)],
                ..NewMachine::default()
            };
            fleet.add_machine(&new).unwrap();
        }
        let path = tiny_image(&scratch);
        fleet
            .add_image(&NewImage {
                path: path.to_str().unwrap().to_owned(),
                name: "tiny".to_owned(),
            })
            .unwrap();
        Room { scratch, fleet }
    }

    pub(super) fn fleet(scratch: &TempDir, first_group: &str) -> Fleet {
        let mut config = Config::default();
        config.multicast.interface = "127.0.0.1".to_owned();
        config.multicast.loopback = true;
        config.multicast.group = first_group.parse().unwrap();
        config.boot.fruitless_boots_max = 3;
        let dir = DataDir::open(scratch.path()).unwrap();
        let store = SqliteStore::open(&dir.database()).unwrap();
        Fleet::open(config, dir, String::new(), Box::new(store)).unwrap()
    }

    fn flash(&self, machines: &[&str]) -> Result<Vec<crate::job::Job>, FleetError> {
        self.fleet.flash(&FlashRequest {
            image: "tiny".to_owned(),
            machines: Some(machines.iter().map(|name| (*name).to_owned()).collect()),
            wish: FlashWish::default(),
        })
    }

    fn boot(&self, last: u8) -> super::booting::BootAnswer {
        let request = BootRequest {
            identity: identity(last),
            platform: Platform::Bios,
            way: Way::Network,
        };
        self.fleet.boot(&request).unwrap()
    }

    /// The token a machine gets when it boots.
    pub(super) fn token(&self, last: u8) -> String {
        let ticket = self.boot(last).ticket.expect("it boots the agent");
        self.fleet.token_of(&ticket).expect("the ticket is fresh")
    }

    fn kinds(&self) -> Vec<String> {
        let events = self.fleet.events(0, 1000).unwrap();
        events.into_iter().map(|(_, event)| event.kind).collect()
    }
}

pub(super) fn tiny_image(scratch: &TempDir) -> PathBuf {
    let raw = scratch.path().join("tiny.raw");
    fs::write(&raw, vec![7; 3 << 20]).unwrap();
    let path = scratch.path().join("tiny.img.zst");
    let source = Source::open(&raw, scratch.path()).unwrap();
    let options = SealOptions {
        used_only: true,
        whole: Default::default(),
        only: None,
        level: 1,
        note: String::new(),
        parent: None,
        created: 0,
        threads: 1,
    };
    seal(
        source,
        &path,
        &options,
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .unwrap();
    path
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn identity(last: u8) -> Identity {
    Identity {
        macs: vec![mac(last)],
        ..Identity::default()
    }
}

pub(super) fn hello(token: &str, last: u8, key: u8) -> Hello {
    Hello {
        token: token.to_owned(),
        identity: Identity {
            uuid: Some(UUID.to_owned()),
            ..identity(last)
        },
        inventory: Inventory::default(),
        agent_key: Hex32([key; 32]),
        agent_version: "test".to_owned(),
    }
}

pub(super) fn events(kinds: Vec<EventKind>) -> Vec<AgentEvent> {
    let numbered = kinds.into_iter().zip(0..);
    numbered
        .map(|(event, sequence)| AgentEvent {
            sequence,
            uptime_ms: 0,
            event,
        })
        .collect()
}

pub(super) fn done() -> EventKind {
    EventKind::Done(JobReport {
        image_id: Hex32([0; 32]),
        disk: "/dev/vda".to_owned(),
        seconds: 1.0,
        received_bytes: 1,
        repair_symbols: 0,
        lost_symbols: 0,
        kept_frames: 0,
        written_frames: 3,
        verified: true,
        fallback: None,
    })
}

#[test]
fn a_room_is_flashed_in_one_session_that_ends_with_the_last_job() {
    let room = Room::new("239.192.79.1:9101");
    let jobs = room.flash(&["a", "b"]).unwrap();
    assert!(jobs.iter().all(|job| job.state == JobState::Armed));
    assert_eq!(jobs[0].batch, jobs[1].batch);
    for (last, machine) in [(1, &jobs[0]), (2, &jobs[1])] {
        assert_eq!(room.fleet.sessions.all().len(), 1);
        let mut hello = hello(&room.token(last), last, last);
        hello.identity.uuid = None;
        let welcome = room.fleet.hello(&hello).unwrap();
        let job = welcome.job.expect("there is a job");
        assert_eq!(job.id, machine.id);
        let answer = room
            .fleet
            .agent_events(&welcome.bearer, job.id, &events(vec![done()]))
            .unwrap();
        assert!(!answer.cancel);
        assert!(matches!(room.boot(last).decision.reason, BootReason::NoJob));
    }
    assert!(room.fleet.sessions.all().is_empty());
    let log = room.kinds();
    for kind in [
        "jobs_entered",
        "job_armed",
        "job_booting",
        "job_flashing",
        "job_done",
    ] {
        assert!(log.iter().any(|known| known == kind), "{kind} in {log:?}");
    }
}

#[test]
fn a_stranger_is_seen_and_sent_to_its_disk_while_others_are_flashed() {
    let room = Room::new("239.192.79.2:9102");
    room.flash(&["a", "b"]).unwrap();
    let answer = room.boot(9);
    assert_eq!(answer.decision.boot, Boot::LocalDisk);
    assert!(answer.ticket.is_none());
    assert_eq!(room.fleet.sightings().unwrap()[0].identity.macs, [mac(9)]);
}

#[test]
fn a_token_is_good_for_one_agent() {
    let room = Room::new("239.192.79.3:9103");
    room.flash(&["a"]).unwrap();
    let token = room.token(1);
    let first = room.fleet.hello(&hello(&token, 1, 1)).unwrap();
    let again = room.fleet.hello(&hello(&token, 1, 1)).unwrap();
    assert_eq!(
        first.bearer, again.bearer,
        "a repeated hello is the same use"
    );
    let thief = room.fleet.hello(&hello(&token, 1, 2));
    assert!(matches!(thief, Err(FleetError::Forbidden(_))));
    assert!(room.kinds().contains(&"alert".to_owned()));
    assert!(
        room.fleet.job_of(&first.bearer).is_ok(),
        "the first agent goes on"
    );
    let guess = room.fleet.hello(&hello("guess", 1, 1));
    assert!(matches!(guess, Err(FleetError::Forbidden(_))));
}

#[test]
fn a_token_of_one_machine_is_no_use_to_another() {
    let room = Room::new("239.192.79.4:9104");
    room.flash(&["a"]).unwrap();
    let token = room.token(1);
    let mut other = hello(&token, 2, 1);
    other.identity.uuid = None;
    assert!(matches!(
        room.fleet.hello(&other),
        Err(FleetError::Forbidden(_))
    ));
    assert!(room.kinds().contains(&"alert".to_owned()));
}

#[test]
fn nobody_waits_for_a_machine_whose_job_is_over() {
    let room = Room::new("239.192.79.12:9112");
    let jobs = room.flash(&["a", "b"]).unwrap();
    let awaited = || room.fleet.sessions.all()[0].awaited;
    assert_eq!(awaited(), 2);
    let mut hello = hello(&room.token(1), 1, 1);
    hello.identity.uuid = None;
    let welcome = room.fleet.hello(&hello).unwrap();
    let reason = "no disk".to_owned();
    let failed = events(vec![EventKind::Failed { reason }]);
    for _ in 0..2 {
        // What an agent says twice counts once.
        let said = room
            .fleet
            .agent_events(&welcome.bearer, jobs[0].id, &failed);
        said.unwrap();
        assert_eq!(awaited(), 1);
    }
    room.fleet.cancel(jobs[1].id).unwrap();
    assert!(room.fleet.sessions.all().is_empty());
}

#[test]
fn a_machine_that_comes_back_gets_the_same_job_and_session_and_its_old_agent_is_out() {
    let room = Room::new("239.192.79.5:9105");
    room.flash(&["a"]).unwrap();
    let order = |welcome: &netflash_pxe::Welcome| {
        let job = welcome.job.clone().expect("there is a job");
        let Order::Flash(flash) = job.order else {
            panic!("another order")
        };
        (job.id, flash.session)
    };
    let first = room.fleet.hello(&hello(&room.token(1), 1, 1)).unwrap();
    let second = room.fleet.hello(&hello(&room.token(1), 1, 2)).unwrap();
    let ((id, session), (id_again, session_again)) = (order(&first), order(&second));
    assert_eq!((id, session.session), (id_again, session_again.session));
    assert_ne!(session.keys, session_again.keys);
    assert!(matches!(
        room.fleet.job_of(&first.bearer),
        Err(FleetError::Unauthorized)
    ));
}

#[test]
fn a_machine_that_gets_nowhere_fails_its_job() {
    let room = Room::new("239.192.79.6:9106");
    let id = room.flash(&["a"]).unwrap()[0].id;
    for _ in 0..3 {
        assert_eq!(room.boot(1).decision.boot, Boot::Agent { job: id });
    }
    assert_eq!(room.boot(1).decision.boot, Boot::LocalDisk);
    let job = room.fleet.job(id).unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(
        job.reason.contains("3 times without progress"),
        "{}",
        job.reason
    );
}

#[test]
fn a_cancelled_job_stops_its_agent_and_boots_the_disk() {
    let room = Room::new("239.192.79.7:9107");
    let id = room.flash(&["a"]).unwrap()[0].id;
    let welcome = room.fleet.hello(&hello(&room.token(1), 1, 1)).unwrap();
    room.fleet.cancel(id).unwrap();
    let progress = EventKind::Progress(Progress::default());
    let answer = room
        .fleet
        .agent_events(&welcome.bearer, id, &events(vec![progress]))
        .unwrap();
    assert!(answer.cancel);
    assert_eq!(room.fleet.job_of(&welcome.bearer).unwrap().job, None);
    assert_eq!(room.boot(1).decision.boot, Boot::LocalDisk);
    assert!(matches!(room.fleet.cancel(id), Err(FleetError::Refused(_))));
}

#[test]
fn an_agent_speaks_for_its_own_job_only() {
    let room = Room::new("239.192.79.8:9108");
    let jobs = room.flash(&["a", "b"]).unwrap();
    let welcome = room.fleet.hello(&hello(&room.token(1), 1, 1)).unwrap();
    let other = room
        .fleet
        .agent_events(&welcome.bearer, jobs[1].id, &events(vec![done()]));
    assert!(matches!(other, Err(FleetError::Absent(_))));
    assert_eq!(room.fleet.job(jobs[1].id).unwrap().state, JobState::Armed);
}

#[test]
fn after_a_restart_a_job_goes_on_in_a_new_session() {
    let room = Room::new("239.192.79.9:9109");
    let id = room.flash(&["a"]).unwrap()[0].id;
    let hello = hello(&room.token(1), 1, 1);
    let welcome = room.fleet.hello(&hello).unwrap();
    let before = room.fleet.sessions.all()[0].session;
    let Room { scratch, fleet } = room;
    fleet.sessions.keep_only(&[]);
    drop(fleet);
    let fleet = Room::fleet(&scratch, "239.192.79.9:9110");
    assert_eq!(fleet.job(id).unwrap().state, JobState::Armed);
    // The key of its agent was in memory only: it is asked to say hello again.
    assert!(matches!(
        fleet.job_of(&welcome.bearer),
        Err(FleetError::Unauthorized)
    ));
    let again = fleet.hello(&hello).unwrap();
    assert_eq!(again.bearer, welcome.bearer);
    let job = again.job.expect("its token is still good");
    let Order::Flash(order) = job.order else {
        panic!("another order")
    };
    assert_ne!(order.session.session, before);
    assert_eq!(order.session.session, fleet.sessions.all()[0].session);
}

#[test]
fn an_image_that_changed_on_disk_is_not_sent() {
    let room = Room::new("239.192.79.10:9111");
    fs::write(room.scratch.path().join("tiny.img.zst"), b"damaged").unwrap();
    assert!(matches!(room.flash(&["a"]), Err(FleetError::Session(_))));
    assert_eq!(room.fleet.jobs(10).unwrap()[0].state, JobState::Failed);
    assert_eq!(room.boot(1).decision.boot, Boot::LocalDisk);
}

#[test]
fn two_machines_cannot_share_a_sign() {
    let room = Room::new("239.192.79.11:9112");
    let new = |name: &str, macs: Vec<Mac>| NewMachine {
        name: name.to_owned(),
        macs,
        ..NewMachine::default()
    };
    for refused in [
        new("c", vec![mac(1)]),
        new("a", vec![mac(7)]),
        new("c", vec![]),
        new("c c", vec![mac(7)]),
    ] {
        assert!(room.fleet.add_machine(&refused).is_err(), "{refused:?}");
    }
    room.flash(&["a"]).unwrap();
    assert!(matches!(
        room.fleet.remove_machine("a"),
        Err(FleetError::Refused(_))
    ));
    room.fleet.remove_machine("b").unwrap();
}

#[test]
fn the_keys_of_a_session_are_for_the_agent_that_said_hello() {
    let room = Room::new("239.192.79.31:9131");
    room.flash(&["a"]).unwrap();
    let agent = AgentKey::generate().unwrap();
    let mut hello = hello(&room.token(1), 1, 1);
    hello.agent_key = Hex32(agent.public());
    let welcome = room.fleet.hello(&hello).unwrap();
    let keys_of = |job: Option<netflash_pxe::Job>| {
        let Order::Flash(order) = job.expect("there is a job").order else {
            panic!("another order")
        };
        let ticket = order.session;
        let keys = ticket.keys.expect("sessions are sealed by default");
        (keys, ticket.session)
    };
    let (sealed, session) = keys_of(welcome.job);
    let membership = agent.open(&sealed.0, session).unwrap();
    assert_eq!(i64::from(membership.machine), welcome.machine);
    let stranger = AgentKey::generate().unwrap();
    assert!(stranger.open(&sealed.0, session).is_err());

    // Asked again it gets the same keys, sealed anew.
    let answer = room.fleet.job_of(&welcome.bearer).unwrap();
    let (again, session) = keys_of(answer.job);
    assert_ne!(again, sealed);
    let same = agent.open(&again.0, session).unwrap();
    let (ours, theirs) = (membership.report_key, same.report_key);
    assert_eq!(ours.as_bytes(), theirs.as_bytes());

    // A server that was started again does not know the agent's key: it asks for the hello.
    room.fleet.agent_keys.lock().unwrap().clear();
    let forgotten = room.fleet.job_of(&welcome.bearer);
    assert!(matches!(forgotten, Err(FleetError::Unauthorized)));
    assert_eq!(room.fleet.hello(&hello).unwrap().bearer, welcome.bearer);
    assert!(room.fleet.job_of(&welcome.bearer).unwrap().job.is_some());
}
