//! What server and agent say to each other: JSON over TLS.
//!
//! ```text
//! POST /agent/v1/knock              Knock               → KnockAnswer, from machines without a token: see `knock`
//! POST /agent/v1/hello              Hello               → Welcome
//! GET  /agent/v1/job                Authorization: Bearer → JobAnswer
//! POST /agent/v1/jobs/{id}/events   [AgentEvent]        → EventsAnswer
//! GET  /agent/v1/jobs/{id}/announce  the session's last announce, for machines that multicast does not reach
//! GET  /agent/v1/jobs/{id}/manifest  the image's manifest; also for whoever only compares
//! GET  /agent/v1/jobs/{id}/image     the image's file, by ranges of bytes
//! GET, PUT, POST /agent/v1/jobs/{id}/capture  the disk becomes an image: see `capture`
//! ```
//! Manifest and image are admitted through a queue: 503 with `Retry-After` and [`POSITION_HEADER`] means "wait".
//! 401 means: the bearer is no longer good, say hello again. 403 means: the token is spent or foreign; the machine
//! must boot over the network again to get another.

use serde::{Deserialize, Serialize};

use crate::{Hex32, Identity, Inventory, Job};

/// The name in the server's certificate. The agent resolves it itself, to the address in `trust.img`.
pub const SERVER_NAME: &str = "server.netflash.internal";
/// Path of the hello.
pub const API_HELLO: &str = "/agent/v1/hello";
/// Path of the current job.
pub const API_JOB: &str = "/agent/v1/job";
/// Path of a job's events; `{id}` stands for [`Job::id`].
pub const API_EVENTS: &str = "/agent/v1/jobs/{id}/events";
/// Path of the announce of a job's session.
pub const API_ANNOUNCE: &str = "/agent/v1/jobs/{id}/announce";
/// Path of the manifest of a job's image.
pub const API_MANIFEST: &str = "/agent/v1/jobs/{id}/manifest";
/// Path of the file of a job's image.
pub const API_IMAGE: &str = "/agent/v1/jobs/{id}/image";
/// Header of an announce: the address it was sent from, which takes reports.
pub const SENDER_HEADER: &str = "netflash-sender";
/// Header of "wait": the place in the queue, from 1; 0 when even the queue is full.
pub const POSITION_HEADER: &str = "netflash-position";
/// Largest request an agent may send, in bytes.
pub const AGENT_BODY_MAX: usize = 256 * 1024;
/// Most events in one request.
pub const EVENTS_MAX: usize = 256;

/// Most entries in any list of a hello.
pub(crate) const LIST_MAX: usize = 256;
/// Longest text in a hello, in bytes.
pub(crate) const TEXT_MAX: usize = 512;

/// The agent's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The one-time token from `/netflash/token`.
    pub token: String,
    /// Who it is.
    pub identity: Identity,
    /// What it has.
    pub inventory: Inventory,
    /// X25519 public key made at this start of the agent; the keys of sealed sessions are sealed to it. The token's
    /// first use binds it to this key: a hello repeated after a lost answer is the same use, a hello with another key
    /// raises an alert.
    pub agent_key: Hex32,
    /// Version of the agent.
    pub agent_version: String,
}

/// The server's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The machine's number.
    pub machine: i64,
    /// The machine's name, for the console.
    pub name: String,
    /// Secret for all further requests.
    pub bearer: String,
    /// What to do now.
    pub job: Option<Job>,
    /// Seconds to wait before asking again when there is no job.
    pub poll_seconds: u32,
    /// Seconds since 1970 by the server's clock.
    pub server_time: u64,
}

/// The server's answer to "what is there to do?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAnswer {
    /// What to do now.
    pub job: Option<Job>,
    /// Seconds to wait before asking again when there is no job.
    pub poll_seconds: u32,
}

/// The server's answer to events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// The job was cancelled: stop, say so, and ask for the next job.
    pub cancel: bool,
    /// The session the job's image is being sent in now. Another number than in the order means that the server
    /// started again: stop receiving and ask for the job anew.
    pub session: Option<u32>,
}

/// Why a hello is not worth looking at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// A list is too long.
    #[error("{what}: {found} entries, at most {LIST_MAX} are accepted")]
    List {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
    },
    /// A text is too long.
    #[error("{what}: text of {found} bytes, at most {TEXT_MAX} are accepted")]
    Text {
        /// Which text.
        what: &'static str,
        /// Its length in bytes.
        found: usize,
    },
}

impl Hello {
    /// Check the sizes of everything the sender chose.
    ///
    /// # Errors
    /// Names the first list or text that is too long.
    pub fn check(&self) -> Result<(), ContractError> {
        let lists = [
            ("identity.macs", self.identity.macs.len()),
            ("inventory.disks", self.inventory.disks.len()),
            ("inventory.nics", self.inventory.nics.len()),
            ("inventory.orphans", self.inventory.orphans.len()),
        ];
        if let Some((what, found)) = lists.into_iter().find(|(_, len)| *len > LIST_MAX) {
            return Err(ContractError::List { what, found });
        }
        let identity = &self.identity;
        let optional = [
            ("identity.uuid", &identity.uuid),
            ("identity.serial", &identity.serial),
            ("identity.board_serial", &identity.board_serial),
        ];
        let inventory = &self.inventory;
        let plain = [
            ("token", &self.token),
            ("agent_version", &self.agent_version),
            ("inventory.manufacturer", &inventory.manufacturer),
            ("inventory.product", &inventory.product),
            ("inventory.bios_version", &inventory.bios_version),
            ("inventory.cpu", &inventory.cpu),
            ("inventory.kernel", &inventory.kernel),
        ];
        let disks = inventory.disks.iter().flat_map(|disk| {
            [
                ("disk.path", disk.path.len()),
                ("disk.model", disk.model.len()),
                ("disk.transport", disk.transport.len()),
                ("disk.serial", disk.serial.as_ref().map_or(0, String::len)),
                ("disk.wwn", disk.wwn.as_ref().map_or(0, String::len)),
            ]
        });
        let nics = inventory.nics.iter().flat_map(|nic| {
            [
                ("nic.name", nic.name.len()),
                ("nic.driver", nic.driver.len()),
            ]
        });
        let orphans = inventory.orphans.iter().flat_map(|orphan| {
            [
                ("orphan.bus", orphan.bus.len()),
                ("orphan.address", orphan.address.len()),
                ("orphan.id", orphan.id.len()),
            ]
        });
        let texts = optional
            .into_iter()
            .map(|(what, text)| (what, text.as_ref().map_or(0, String::len)))
            .chain(plain.into_iter().map(|(what, text)| (what, text.len())))
            .chain(disks)
            .chain(nics)
            .chain(orphans);
        for (what, found) in texts {
            if found > TEXT_MAX {
                return Err(ContractError::Text { what, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ContractError, Hello};
    use crate::{Hex32, Identity, Inventory, Job, Mac};

    fn hello() -> Hello {
        Hello {
            token: "t".to_owned(),
            identity: Identity::default(),
            inventory: Inventory::default(),
            agent_key: Hex32([1; 32]),
            agent_version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_hello_of_a_hostile_size_is_refused() {
        let mut long = hello();
        long.inventory.cpu = "x".repeat(513);
        assert!(matches!(
            long.check(),
            Err(ContractError::Text {
                what: "inventory.cpu",
                ..
            })
        ));
        let mut many = hello();
        many.identity.macs = vec![Mac([2; 6]); 257];
        assert!(matches!(
            many.check(),
            Err(ContractError::List { found: 257, .. })
        ));
        assert_eq!(hello().check(), Ok(()));
    }

    #[test]
    fn an_order_of_an_unknown_kind_is_an_error_and_not_a_guess() {
        let text = r#"{"id":1,"order":{"kind":"dance"}}"#;
        assert!(serde_json::from_str::<Job>(text).is_err());
    }
}
