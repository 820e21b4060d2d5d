//! A machine that multicast does not reach: its group has another port than the sender's.

use std::net::SocketAddr;

use super::*;
use crate::receiver::Blockage;

/// Long enough for announces to come, ten a second.
const HASTE: Duration = Duration::from_millis(700);

/// The last announce and where it was sent from.
type Board = Arc<Mutex<Option<(SocketAddr, Vec<u8>)>>>;

/// Everything of a payload, by another way.
struct Hatch {
    payload: Payload,
    board: Board,
    /// How often it says "wait" first.
    waits: u32,
}

impl Detour for Hatch {
    fn announce(&mut self) -> Result<(SocketAddr, Vec<u8>), DetourError> {
        let announce = self.board.lock().expect("no panic").clone();
        announce.ok_or_else(|| DetourError::Failed("no announce yet".to_owned()))
    }

    fn preamble(&mut self, object: &ObjectId) -> Result<Vec<u8>, DetourError> {
        assert_eq!(*object, object_of(&self.payload.preamble));
        Ok(self.payload.preamble.clone())
    }

    fn block(&mut self, _: &ObjectId, block: BlockId) -> Result<Vec<u8>, DetourError> {
        if self.waits > 0 {
            self.waits -= 1;
            return Err(DetourError::Wait {
                position: self.waits + 1,
                again: Duration::from_millis(20),
            });
        }
        Ok(self.payload.blocks[block.0 as usize].clone())
    }
}

fn pin(board: &Board, address: &mut Option<SocketAddr>, event: SendEvent) {
    match event {
        SendEvent::Open { address: from, .. } => *address = Some(from),
        SendEvent::Announced { datagram } => {
            let from = address.expect("opened before");
            *board.lock().expect("no panic") = Some((from, datagram));
        }
        _ => {}
    }
}

#[test]
fn a_machine_that_hears_no_announce_gets_everything_the_other_way() {
    let payload = Payload::of(&[1_400_000, 1_300_001, 77, 900_000]);
    let (near, far) = (Shelf::default(), Shelf::default());
    let board = Board::default();
    let hatch = Hatch {
        payload: payload.clone(),
        board: Arc::clone(&board),
        waits: 3,
    };
    let bypass = Bypass {
        way: Box::new(hatch),
        patience: HASTE,
    };
    let mut waited = Vec::new();
    let (sent, reached, report) = thread::scope(|scope| {
        let reached = scope.spawn(|| receive(receiving(47_110), near.clone(), |_| {}, &GO));
        let beside = scope.spawn(|| {
            let observer = |event| {
                if let ReceiveEvent::Detour { trouble } = event {
                    waited.push(trouble);
                }
            };
            receive_beside(receiving(47_111), Some(bypass), far.clone(), observer, &GO)
        });
        let mut address = None;
        let observer = |event| pin(&board, &mut address, event);
        let mut config = sending(47_110, 2, &payload);
        config.wait = Duration::from_secs(20);
        let sent = send(config, payload.clone(), observer, &GO);
        let join = "no panic";
        (
            sent,
            reached.join().expect(join),
            beside.join().expect(join),
        )
    });
    let report = report.expect("by the other way");
    let detour = report.detour.expect("it was taken");
    assert!(matches!(detour.reason, Blockage::NoAnnounce { .. }));
    assert_eq!(detour.blocks, 4);
    assert!(detour.bytes >= payload.layout.total_bytes());
    assert_eq!(report.stats.datagrams, 0);
    assert!(
        waited
            .iter()
            .any(|said| matches!(said, DetourError::Wait { position: 3, .. }))
    );
    assert!(reached.expect("by multicast").detour.is_none());
    assert_full(&near, &payload);
    assert_full(&far, &payload);
    // Both reported: the one that heard nothing knew from the announce it fetched where to.
    let done = |machine: &&ReceiverInfo| machine.phase == Phase::Done;
    let sent = sent.expect("sent");
    assert_eq!(sent.receivers.iter().filter(done).count(), 2);
    let bytes = payload.layout.total_bytes();
    assert!(sent.wire_bytes < bytes * 5 / 4, "{}", sent.wire_bytes);
}

#[test]
fn without_another_way_a_blocked_machine_says_why_and_gives_up() {
    let payload = Payload::of(&[500_000]);
    let board = Board::default();
    let hatch = Hatch {
        payload,
        board,
        waits: 0,
    };
    let bypass = Bypass {
        way: Box::new(hatch),
        patience: HASTE,
    };
    let config = ReceiveConfig {
        search: Some(Duration::from_secs(5)),
        ..receiving(47_112)
    };
    let mut said = Vec::new();
    let observer = |event| match event {
        ReceiveEvent::Blocked { reason } => said.push(reason.to_string()),
        ReceiveEvent::Detour { trouble } => said.push(trouble.to_string()),
        _ => {}
    };
    let outcome = receive_beside(config, Some(bypass), Shelf::default(), observer, &GO);
    assert!(matches!(outcome, Err(ReceiveError::NoSession { .. })));
    assert!(said[0].starts_with("no announce heard"), "{said:?}");
    assert_eq!(said[1], "no announce yet");
}
