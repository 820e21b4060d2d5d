//! The preamble on its way in: its blocks, and the proof that they are what the announce promised.

use crate::block::{Layout, ObjectId};
use crate::fec::Fec;
use crate::guard::guard;

use super::session::Session;
use super::table::Table;

#[derive(Debug)]
pub(super) struct Preamble {
    pub(super) table: Table,
    parts: Vec<Vec<u8>>,
    layout: Layout,
    symbol_bytes: u16,
    object_id: ObjectId,
}

impl Preamble {
    /// Nothing of the preamble of `session` is here yet.
    pub(super) fn of(session: &Session) -> Preamble {
        let symbol_bytes = session.symbol_bytes;
        let layout = Layout::of_preamble(session.preamble_bytes, symbol_bytes);
        let (table, parts) = fresh(&layout, symbol_bytes);
        Preamble {
            table,
            parts,
            layout,
            symbol_bytes,
            object_id: session.object_id,
        }
    }

    /// Takes complete blocks out of the table. `None` while some lack, and `Some(None)` when all are
    /// here and are not what was promised: then it begins anew.
    pub(super) fn collect(&mut self, fec: &mut impl Fec) -> Option<Option<Vec<u8>>> {
        while let Some((index, parcel)) = self.table.deliver() {
            match parcel.open(fec) {
                Ok(payload) => {
                    self.table.accept(index);
                    self.parts[index as usize] = payload;
                }
                Err(_) => self.table.reject(index),
            }
        }
        if self.table.lacking() > 0 {
            return None;
        }
        let whole = self.parts.concat();
        if self.is_right(&whole) {
            return Some(Some(whole));
        }
        (self.table, self.parts) = fresh(&self.layout, self.symbol_bytes);
        Some(None)
    }

    /// Whether `whole` is what the announce promised.
    pub(super) fn is_right(&self, whole: &[u8]) -> bool {
        let right = *blake3::hash(whole).as_bytes() == self.object_id.0;
        guard!("preamble_hash", right)
    }
}

fn fresh(layout: &Layout, symbol_bytes: u16) -> (Table, Vec<Vec<u8>>) {
    let blocks = layout.len() as usize;
    let table = Table::new(layout.clone(), symbol_bytes, &vec![true; blocks]);
    (table, vec![Vec::new(); blocks])
}
