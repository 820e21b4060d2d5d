//! The thread that fetches what multicast does not bring, and the orders it has.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::mpsc::{Receiver as Goods, SyncSender as Orders, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use crate::{
    block::{BlockId, ObjectId},
    driver::detour::{Bypass, DetourError},
};

/// Orders at a time: one under way, and one so that the way is never idle.
const IN_HAND_MAX: usize = 2;
/// Pause after the way failed.
const RETRY: Duration = Duration::from_secs(3);
/// Longest that somebody who was asked to wait does not ask again.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Something to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Announce,
    Preamble(ObjectId),
    Block(ObjectId, BlockId),
}

/// Something fetched.
#[derive(Debug)]
pub(super) enum Parcel {
    Announce(SocketAddr, Vec<u8>),
    Preamble(Vec<u8>),
    Block(BlockId, Vec<u8>),
}

type Delivery = (Order, Result<Parcel, DetourError>);

/// The orders. The thread ends when this is dropped, after the request it is at.
pub(super) struct Courier {
    orders: Orders<Order>,
    goods: Goods<Delivery>,
    in_hand: Vec<Order>,
    patience: Duration,
    vouches: bool,
    /// Nothing is ordered before this moment of the run.
    not_before: Duration,
    /// When an announce was ordered last.
    announce_at: Option<Duration>,
    /// Where the next block is looked for.
    pub(super) cursor: BlockId,
}

impl Courier {
    /// Starts the thread.
    pub(super) fn start(bypass: Bypass) -> io::Result<Courier> {
        let (orders, ordered) = sync_channel::<Order>(IN_HAND_MAX);
        let (deliver, goods) = sync_channel::<Delivery>(IN_HAND_MAX);
        let mut way = bypass.way;
        let vouches = way.vouches();
        thread::Builder::new()
            .name("detour".to_owned())
            .spawn(move || {
                for order in ordered {
                    let fetched = match order {
                        Order::Announce => way
                            .announce()
                            .map(|(from, datagram)| Parcel::Announce(from, datagram)),
                        Order::Preamble(object) => way.preamble(&object).map(Parcel::Preamble),
                        Order::Block(object, block) => way
                            .block(&object, block)
                            .map(|payload| Parcel::Block(block, payload)),
                    };
                    if deliver.send((order, fetched)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Courier {
            orders,
            goods,
            in_hand: Vec::new(),
            patience: bypass.patience,
            vouches,
            not_before: Duration::ZERO,
            announce_at: None,
            cursor: BlockId(0),
        })
    }

    /// How long multicast may fail before this way is gone.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether announces that come by this way are of now.
    pub(super) fn vouches(&self) -> bool {
        self.vouches
    }

    /// Whether something is under way.
    pub(super) fn is_out(&self) -> bool {
        !self.in_hand.is_empty()
    }

    /// What came, if something did.
    pub(super) fn take(&mut self, now: Duration) -> Option<Result<Parcel, DetourError>> {
        let (order, fetched) = self.goods.try_recv().ok()?;
        self.in_hand.retain(|other| *other != order);
        match &fetched {
            Ok(_) => {}
            Err(DetourError::Wait { again, .. }) => self.not_before = now + (*again).min(WAIT_MAX),
            Err(DetourError::Failed(_)) => self.not_before = now + RETRY,
        }
        Some(fetched)
    }

    /// Whether another order may be given.
    pub(super) fn is_free(&self, now: Duration) -> bool {
        now >= self.not_before && self.in_hand.len() < IN_HAND_MAX
    }

    /// Whether the last announce was ordered longer ago than `age`.
    pub(super) fn wants_announce(&self, now: Duration, age: Duration) -> bool {
        self.announce_at.is_none_or(|at| now >= at + age)
    }

    /// Gives an order, unless it is given already.
    pub(super) fn order(&mut self, now: Duration, order: Order) -> bool {
        if self.in_hand.contains(&order) {
            return false;
        }
        if order == Order::Announce {
            self.announce_at = Some(now);
        }
        match self.orders.try_send(order) {
            Ok(()) => self.in_hand.push(order),
            // The queue holds as many as are ever in hand, and the thread lives as long as this.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
        }
        true
    }

    /// Blocks ordered and not here.
    pub(super) fn blocks_in_hand(&self) -> BTreeSet<BlockId> {
        let block = |order: &Order| match order {
            Order::Block(_, block) => Some(*block),
            Order::Announce | Order::Preamble(_) => None,
        };
        self.in_hand.iter().filter_map(block).collect()
    }
}
