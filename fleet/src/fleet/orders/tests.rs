//! Orders about single partitions: what is refused at once, and what the agent is told.

use std::sync::atomic::AtomicBool;

use netflash_imager::{PartitionSet, SealOptions, Source, seal};
use netflash_pxe::Order;

use super::super::tests::{Room, hello};
use super::*;
use crate::fleet::NewImage;

const MIB: usize = 1 << 20;

/// A room with an image of two partitions, of which the second was left out.
fn room(group: &str) -> Room {
    let room = Room::new(group);
    let mut raw = vec![7; 4 * MIB];
    raw[..512].fill(0);
    for (index, start) in [2048u32, 4096].into_iter().enumerate() {
        let entry = 446 + index * 16;
        raw[entry + 4] = 0x83;
        raw[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        raw[entry + 12..entry + 16].copy_from_slice(&2048u32.to_le_bytes());
    }
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    let disk = room.scratch.path().join("parts.raw");
    std::fs::write(&disk, raw).unwrap();
    let path = room.scratch.path().join("parts.img.zst");
    let options = SealOptions {
        used_only: true,
        whole: Default::default(),
        only: Some(PartitionSet::new([1]).unwrap()),
        level: 1,
        note: String::new(),
        parent: None,
        created: 0,
        threads: 1,
    };
    let source = Source::open(&disk, room.scratch.path()).unwrap();
    seal(
        source,
        &path,
        &options,
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .unwrap();
    let image = NewImage {
        path: path.to_str().unwrap().to_owned(),
        name: "parts".to_owned(),
    };
    room.fleet.add_image(&image).unwrap();
    room
}

fn order(room: &Room, scope: FlashScope) -> Result<Vec<Job>, FleetError> {
    room.fleet.flash(&FlashRequest {
        image: "parts".to_owned(),
        machines: Some(vec!["a".to_owned()]),
        wish: FlashWish {
            scope,
            ..FlashWish::default()
        },
    })
}

fn scope(only: &[u32], keep: &[u32]) -> FlashScope {
    FlashScope {
        only: only.to_vec(),
        keep: keep.to_vec(),
        incomplete: false,
    }
}

#[test]
fn what_the_image_cannot_give_is_refused_before_a_machine_boots_for_it() {
    let room = room("239.192.79.41:9141");
    let cases = [
        (scope(&[1], &[2]), "choose one of the two"),
        (scope(&[0], &[]), "is not the number of a partition"),
        (scope(&[7], &[]), "parts has no partition 7"),
        (scope(&[1, 2], &[]), "without the content of partition 2"),
        (scope(&[], &[]), "without the content of partition 2"),
    ];
    for (wish, words) in cases {
        let refused = order(&room, wish).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    assert!(room.fleet.jobs(9).unwrap().is_empty());
}

#[test]
fn an_agent_is_told_of_single_partitions_by_an_order_that_an_old_one_does_not_know() {
    let room = room("239.192.79.42:9142");
    let wish = scope(&[], &[2]);
    let jobs = order(&room, wish.clone()).unwrap();
    assert_eq!(jobs[0].wish.scope, wish);
    let welcome = room.fleet.hello(&hello(&room.token(1), 1, 1)).unwrap();
    let job = welcome.job.expect("there is a job");
    let told = serde_json::to_value(&job.order).unwrap();
    assert_eq!(told["kind"], "partial_flash");
    let Order::PartialFlash(order) = job.order else {
        panic!("another order")
    };
    assert_eq!(
        (order.scope, order.flash.image_name.as_str()),
        (wish, "parts")
    );
}

#[test]
fn an_image_that_lacks_a_partition_is_written_whole_when_that_is_said() {
    let room = room("239.192.79.43:9143");
    let wish = FlashScope {
        incomplete: true,
        ..FlashScope::default()
    };
    assert!(order(&room, wish).is_ok());
}
