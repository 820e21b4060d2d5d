//! Machines without a token.

use netflash_pxe::{EventKind, Firmware, Identity, Knock, Mac, Phase};

use crate::fleet::FlashRequest;
use crate::fleet::tests::{Room, events, hello};
use crate::job::{FlashWish, JobState};

fn knock(last: u8, again: bool) -> Knock {
    Knock {
        identity: Identity {
            macs: vec![Mac([0x52, 0x54, 0, 0, 0, last])],
            ..Identity::default()
        },
        firmware: Firmware::Uefi,
        again,
    }
}

fn order(room: &Room, machine: &str) {
    let request = FlashRequest {
        image: "tiny".to_owned(),
        machines: Some(vec![machine.to_owned()]),
        wish: FlashWish::default(),
    };
    room.fleet.flash(&request).unwrap();
}

#[test]
fn who_knocks_gets_a_token_only_with_a_job() {
    let room = Room::new("239.192.99.1:19321");
    let stranger = room.fleet.knock(&knock(9, false)).unwrap();
    assert_eq!(stranger.token, None);
    assert!(stranger.reason.contains("unknown machine"));
    let idle = room.fleet.knock(&knock(1, false)).unwrap();
    assert_eq!(idle.token, None);
    order(&room, "a");
    let token = room.fleet.knock(&knock(1, true)).unwrap().token.unwrap();
    assert_eq!(room.fleet.knock(&knock(2, true)).unwrap().token, None);
    let welcome = room.fleet.hello(&hello(&token, 1, 1)).unwrap();
    assert_eq!(welcome.name, "a");
    assert!(welcome.job.is_some());
}

#[test]
fn who_knocks_again_and_again_fills_no_log() {
    let room = Room::new("239.192.99.2:19322");
    let events = || room.fleet.events(0, 1000).unwrap().len();
    for last in [1, 9] {
        let before = events();
        room.fleet.knock(&knock(last, false)).unwrap();
        assert_eq!(events(), before + 1);
        for _ in 0..5 {
            room.fleet.knock(&knock(last, true)).unwrap();
        }
        assert_eq!(events(), before + 1);
    }
}

#[test]
fn the_loop_breaker_counts_knocks_too() {
    let room = Room::new("239.192.99.3:19323");
    order(&room, "a");
    let tokens = (0..5).filter_map(|_| room.fleet.knock(&knock(1, false)).unwrap().token);
    assert_eq!(tokens.count(), 3);
}

#[test]
fn whoever_names_a_machine_whose_agent_is_at_work_does_not_stop_it() {
    let room = Room::new("239.192.99.4:19324");
    order(&room, "a");
    let token = room.fleet.knock(&knock(1, false)).unwrap().token.unwrap();
    let welcome = room.fleet.hello(&hello(&token, 1, 1)).unwrap();
    let job = welcome.job.unwrap().id;
    let phase = EventKind::Phase {
        phase: Phase::Receiving,
        disk: None,
    };
    let report = |kinds| {
        room.fleet
            .agent_events(&welcome.bearer, job, &events(kinds))
    };
    report(vec![phase]).unwrap();
    for _ in 0..10 {
        assert!(room.fleet.knock(&knock(1, false)).unwrap().token.is_some());
    }
    assert_eq!(room.fleet.job(job).unwrap().state, JobState::Flashing);
}
