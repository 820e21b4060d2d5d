//! A thread that decodes blocks, so that the one at the socket never waits for that.

use std::{
    sync::mpsc::{Receiver as Answers, SyncSender as Requests, TryRecvError, sync_channel},
    thread::Scope,
};

use crate::{
    block::BlockId,
    fec::{Fec, FecError, ReedSolomon},
    receiver::Parcel,
};

/// Blocks that wait to be decoded, are, or wait to be fetched, at most: one in work and one behind it.
const BUSY_MAX: usize = 2;

type Opened = (BlockId, Result<Vec<u8>, FecError>);

/// The queues to the thread and back. It ends when this is dropped.
pub(super) struct Decoder {
    parcels: Requests<(BlockId, Parcel)>,
    opened: Answers<Opened>,
    busy: usize,
    busy_bytes: usize,
}

impl Decoder {
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Decoder {
        let (parcels, requests) = sync_channel::<(BlockId, Parcel)>(BUSY_MAX);
        let (answers, opened) = sync_channel(BUSY_MAX);
        scope.spawn(move || work(&requests, &answers, &mut ReedSolomon::new()));
        Decoder {
            parcels,
            opened,
            busy: 0,
            busy_bytes: 0,
        }
    }

    /// Whether another parcel may come.
    pub(super) fn has_room(&self) -> bool {
        self.busy < BUSY_MAX
    }

    /// Whether something will come back.
    pub(super) fn is_busy(&self) -> bool {
        self.busy > 0
    }

    /// Memory of the blocks that are here, in bytes.
    pub(super) fn busy_bytes(&self) -> usize {
        self.busy_bytes
    }

    /// Takes a parcel. Does not wait while there [is room](Decoder::has_room).
    pub(super) fn submit(&mut self, block: BlockId, parcel: Parcel) {
        self.busy += 1;
        self.busy_bytes += parcel.memory();
        self.parcels
            .send((block, parcel))
            .expect("the decoder lives as long as this end of its queue");
    }

    /// A block that was opened, if one is ready.
    pub(super) fn poll(&mut self) -> Option<Opened> {
        match self.opened.try_recv() {
            Ok(opened) => {
                self.busy -= 1;
                if self.busy == 0 {
                    self.busy_bytes = 0;
                }
                Some(opened)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

fn work(requests: &Answers<(BlockId, Parcel)>, answers: &Requests<Opened>, fec: &mut impl Fec) {
    for (block, parcel) in requests {
        if answers.send((block, parcel.open(fec))).is_err() {
            return;
        }
    }
}
