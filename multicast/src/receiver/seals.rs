//! Opening what a machine hears, and sealing what it says.

use crate::guard::guard;
use crate::seal::{Binding, GroupKeys, Member, Membership};
use crate::wire::{Announce, AnnounceHead, Data, Report, WireError, is_sealed};

use super::event::Obstacle;

/// The keys of one session, as one start of one machine has them.
#[derive(Debug)]
pub(super) struct Seals {
    machine: u32,
    binding: Binding,
    group: GroupKeys,
    member: Member,
}

/// An announce that could be read, and the keys of its session if it is sealed.
pub(super) type Introduced = (Announce, Option<Seals>);

/// Reads the announce of a session that is not joined. Its signature is not checked.
///
/// # Errors
/// What keeps this machine from reading it.
pub(super) fn introduce(
    membership: Option<&Membership>,
    number: u64,
    head: &AnnounceHead,
    datagram: &[u8],
    room: &mut Vec<u8>,
) -> Result<Introduced, Obstacle> {
    match (membership, head.binding()) {
        (None, Some(_)) => Err(Obstacle::Sealed),
        (Some(_), None) if !guard!("unsealed_announce", false) => Err(Obstacle::NotSealed),
        (_, None) => {
            let announce = Announce::peek(datagram).map_err(|_| Obstacle::Malformed)?;
            Ok((announce, None))
        }
        (Some(membership), Some(binding)) => {
            let group = GroupKeys::new(&membership.session_key, &binding);
            let announce =
                Announce::open(&group.announce, datagram, room).map_err(|_| Obstacle::OtherKey)?;
            let seals = Seals {
                machine: membership.machine,
                binding,
                group,
                member: Member::new(&membership.report_key, &binding, number),
            };
            Ok((announce, Some(seals)))
        }
    }
}

impl Seals {
    /// What the sender calls this start of this machine.
    pub(super) fn name(&self) -> u64 {
        self.member.name
    }

    /// Whether an announce is of the sender whose keys these are.
    pub(super) fn are_of(&self, head: &AnnounceHead) -> bool {
        head.binding() == Some(self.binding)
    }

    pub(super) fn announce(
        &self,
        datagram: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<Announce, WireError> {
        Announce::open(&self.group.announce, datagram, room)
    }

    pub(super) fn data<'a>(
        &self,
        datagram: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<Data<'a>, WireError> {
        if is_sealed(datagram) {
            Data::open(&self.group.data, datagram, room)
        } else if guard!("unsealed_data", false) {
            Data::parse(datagram)
        } else {
            Err(WireError::Unopened)
        }
    }

    pub(super) fn report(&self, mut report: Report, out: &mut Vec<u8>) {
        report.machine = self.machine;
        report.seal(&self.member.cipher, out);
    }
}
