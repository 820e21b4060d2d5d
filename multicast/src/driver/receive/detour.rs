//! What the receiving loop does when multicast fails: it sends the courier, and goes on listening.

use std::time::Duration;

use super::{
    ReceiveEvent,
    courier::{Courier, Order, Parcel},
    run::Run,
};
use crate::{
    block::{BlockId, BlockSink},
    driver::detour::{DetourError, DetourReport},
    receiver::{Blockage, Health},
};

/// How long multicast may fail before it is said, when there is no other way.
const PATIENCE: Duration = Duration::from_secs(10);
/// How old the announce of a machine on the detour gets.
const ANNOUNCE_AGE: Duration = Duration::from_secs(2);
/// The same while it waits to be acknowledged.
const ANNOUNCE_AGE_AWAITED: Duration = Duration::from_millis(250);
/// Blocks are fetched as long as those that wait for the disk are less than this, in bytes.
const BACKLOG_MAX: usize = 8 << 20;

/// How multicast fares, and what is done about it.
pub(super) struct Detour {
    courier: Option<Courier>,
    /// What is wrong now.
    blocked: Option<Blockage>,
    /// What was wrong when the other way was taken first.
    reason: Option<Blockage>,
    /// What was said last about the other way, so that it is said once.
    trouble: Option<DetourError>,
}

impl Detour {
    pub(super) fn new(courier: Option<Courier>) -> Detour {
        Detour {
            courier,
            blocked: None,
            reason: None,
            trouble: None,
        }
    }

    /// Whether something is on its way.
    pub(super) fn is_out(&self) -> bool {
        self.courier.as_ref().is_some_and(Courier::is_out)
    }
}

impl<'scope, S: BlockSink + 'scope> Run<'scope, '_, S> {
    /// Takes what was fetched, looks how multicast fares, and orders what lacks.
    pub(super) fn tend_detour(&mut self, observer: &mut impl FnMut(ReceiveEvent)) {
        self.take_parcels(observer);
        self.look_at_health(observer);
        if self.detour.blocked.is_some() {
            self.give_orders();
        }
    }

    fn look_at_health(&mut self, observer: &mut impl FnMut(ReceiveEvent)) {
        let now = self.ticks.now();
        let courier = self.detour.courier.as_ref();
        let patience = courier.map_or(PATIENCE, Courier::patience);
        match (self.receiver.health(now, patience), self.detour.blocked) {
            (Health::Blocked(reason), None) => {
                log::warn!("receiver state=blocked reason=\"{reason}\"");
                self.detour.blocked = Some(reason);
                observer(ReceiveEvent::Blocked { reason });
            }
            (Health::Fine, Some(_)) => {
                log::info!("receiver state=unblocked");
                self.detour.blocked = None;
                self.detour.trouble = None;
                self.receiver.set_detour(now, false);
                observer(ReceiveEvent::Unblocked);
            }
            _ => {}
        }
    }

    fn take_parcels(&mut self, observer: &mut impl FnMut(ReceiveEvent)) {
        let (now, elapsed) = (self.ticks.now(), self.ticks.elapsed());
        while let Some(fetched) = self
            .detour
            .courier
            .as_mut()
            .and_then(|courier| courier.take(elapsed))
        {
            // What multicast brings now is for multicast; a block that was on its way is taken all the same.
            let blocked = self.detour.blocked;
            if let Some(reason) = blocked {
                let lost = matches!(fetched, Err(DetourError::Failed(_)));
                self.receiver.set_detour(now, !lost);
                self.detour.reason.get_or_insert(reason);
            }
            match fetched {
                Ok(parcel) => {
                    self.detour.trouble = None;
                    self.take_parcel(parcel);
                }
                Err(trouble) => {
                    if blocked.is_some() && self.detour.trouble.as_ref() != Some(&trouble) {
                        observer(ReceiveEvent::Detour {
                            trouble: trouble.clone(),
                        });
                    }
                    self.detour.trouble = Some(trouble);
                }
            }
        }
    }

    fn take_parcel(&mut self, parcel: Parcel) {
        let now = self.ticks.now();
        match parcel {
            Parcel::Announce(from, datagram) => {
                let courier = self.detour.courier.as_ref();
                let vouched = courier.is_some_and(Courier::vouches);
                self.receiver.handle_relayed(now, from, &datagram, vouched);
            }
            Parcel::Preamble(whole) => {
                self.receiver.take_preamble(now, whole);
            }
            Parcel::Block(block, payload) => {
                self.receiver.take_block(block, payload);
            }
        }
    }

    fn give_orders(&mut self) {
        let elapsed = self.ticks.elapsed();
        let age = match self.receiver.awaits_announce() {
            true => ANNOUNCE_AGE_AWAITED,
            false => ANNOUNCE_AGE,
        };
        let Some(courier) = self.detour.courier.as_mut() else {
            return;
        };
        while courier.is_free(elapsed) {
            if courier.wants_announce(elapsed, age) {
                courier.order(elapsed, Order::Announce);
                continue;
            }
            let Some((_, object, _)) = self.session else {
                return;
            };
            let order = if self.receiver.lacks_preamble() {
                Order::Preamble(object)
            } else if self.receiver.held_bytes() >= BACKLOG_MAX {
                return;
            } else {
                let ordered = courier.blocks_in_hand();
                let next = |from| self.receiver.next_lacking(from);
                let mut found = next(courier.cursor).or_else(|| next(BlockId(0)));
                while let Some(block) = found
                    && ordered.contains(&block)
                {
                    found = next(BlockId(block.0 + 1));
                }
                let Some(block) = found else { return };
                courier.cursor = BlockId(block.0 + 1);
                Order::Block(object, block)
            };
            if !courier.order(elapsed, order) {
                return;
            }
        }
    }

    /// What came the other way, if it was ever taken.
    pub(super) fn detour_report(&self) -> Option<DetourReport> {
        let stats = self.receiver.stats();
        self.detour.reason.map(|reason| DetourReport {
            reason,
            blocks: stats.detour_blocks,
            bytes: stats.detour_bytes,
        })
    }
}
