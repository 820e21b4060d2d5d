//! Proxy-DHCP: the boot file, beside a DHCP server that gives the address.
//!
//! ```text
//!   machine -- DISCOVER, to all ------> DHCP server: OFFER with an address
//!                                 \---> proxy: OFFER with a boot file, without an address
//!   machine -- REQUEST, to all -------> DHCP server: ACK           (the proxy is silent)
//!   machine -- REQUEST, port 4011 ----> proxy: ACK with the boot file        (UEFI asks so)
//! ```
//!
//! A pure function of the question. Three rules keep the other server's clients untouched: only who boots from the
//! network is answered ([`BootQuestion`]), only DISCOVER is answered at the port that both servers hear, and no
//! answer holds an address, a router or a lease. PXE 2.1; UEFI 2.10 section 24.7.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::Mac;
use crate::question::{BootClient, BootMessage, BootQuestion, QuestionError, option};

/// Where machines that have an address ask for their boot file.
pub const BOOT_SERVER_PORT: u16 = 4011;

/// Longest boot file name: the field holds 128 bytes with its end.
const FILE_BYTES_MAX: usize = 127;
/// The shortest message of BOOTP, RFC 951; some relays and ROMs drop shorter ones.
const ANSWER_BYTES_MIN: usize = 300;
const BOOT_REPLY: u8 = 2;
const OFFER: u8 = 2;
const ACK: u8 = 5;
/// In the first byte of the flags.
const BROADCAST: u8 = 0x80;
/// PXE option 43, boot server discovery: "take the file named here, ask nobody else".
const TAKE_THIS_FILE: [u8; 4] = [6, 1, 8, 255];

/// Processors and firmware of RFC 4578 that have a loader.
const ARCH_BIOS: u16 = 0;
const ARCH_EFI_X64: [u16; 2] = [7, 9];
const ARCH_HTTP_X64: u16 = 16;

/// What a proxy offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOffers {
    server: Ipv4Addr,
    bios_loader: String,
    uefi_loader: String,
    start: String,
    http_loader: Option<String>,
}

/// At which port a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The one that all DHCP servers of a network share.
    Shared,
    /// [`BOOT_SERVER_PORT`].
    BootServer,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAnswer {
    /// Payload of the datagram.
    pub bytes: Vec<u8>,
    /// Where it goes from the shared port: back to the relay, or to all. From the boot server's: to who asked.
    pub relay: Option<Ipv4Addr>,
    /// Who asked.
    pub mac: Mac,
    /// What it boots, for the log.
    pub file: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It is not for us.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The other server answers this one.
    #[error("it is for the DHCP server")]
    NotOurs,
    /// There is no loader for such a machine.
    #[error("{mac}: no loader for firmware of kind {arch}")]
    Arch {
        /// Who asked.
        mac: Mac,
        /// RFC 4578 section 2.1.
        arch: u16,
    },
    /// UEFI HTTP boot is switched off.
    #[error("HTTP boot is switched off")]
    HttpOff,
}

/// A name that is too long for the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no boot file name: it must have 1 to {FILE_BYTES_MAX} bytes")]
pub struct BootFileError(String);

impl ProxyOffers {
    /// `http` is where iPXE goes on; `loaders` are names below the TFTP root, for BIOS and for UEFI. With `http_boot`
    /// UEFI HTTP clients get the latter by HTTP.
    pub fn new(
        http: SocketAddrV4,
        loaders: [&str; 2],
        http_boot: bool,
    ) -> Result<ProxyOffers, BootFileError> {
        let fit = |name: String| match name.len() {
            1..=FILE_BYTES_MAX => Ok(name),
            _ => Err(BootFileError(name)),
        };
        let [bios, uefi] = loaders;
        let http_loader = http_boot.then(|| fit(format!("http://{http}/boot/{uefi}")));
        Ok(ProxyOffers {
            server: *http.ip(),
            bios_loader: fit(bios.to_owned())?,
            uefi_loader: fit(uefi.to_owned())?,
            start: fit(format!("http://{http}/boot/start.ipxe"))?,
            http_loader: http_loader.transpose()?,
        })
    }

    /// Whose address answers come from.
    pub fn server(&self) -> Ipv4Addr {
        self.server
    }

    /// The answer to the payload of a datagram.
    pub fn answer(&self, payload: &[u8], door: Door) -> Result<ProxyAnswer, Silence> {
        let question = BootQuestion::parse(payload)?;
        let kind = match (door, question.message) {
            (Door::Shared, BootMessage::Discover) => OFFER,
            (Door::BootServer, BootMessage::Request | BootMessage::Inform) => ACK,
            _ => return Err(Silence::NotOurs),
        };
        let file = self.file(&question)?;
        Ok(ProxyAnswer {
            bytes: self.render(&question, kind, file),
            relay: (!question.relay.is_unspecified()).then_some(question.relay),
            mac: question.mac,
            file: file.to_owned(),
        })
    }

    fn file(&self, question: &BootQuestion<'_>) -> Result<&str, Silence> {
        let (mac, arch) = (question.mac, question.arch);
        match (question.client, arch) {
            (BootClient::Ipxe, _) => Ok(&self.start),
            (BootClient::Pxe, ARCH_BIOS) => Ok(&self.bios_loader),
            (BootClient::Pxe, arch) if ARCH_EFI_X64.contains(&arch) => Ok(&self.uefi_loader),
            (BootClient::Http, ARCH_HTTP_X64) => {
                self.http_loader.as_deref().ok_or(Silence::HttpOff)
            }
            _ => Err(Silence::Arch { mac, arch }),
        }
    }

    fn render(&self, question: &BootQuestion<'_>, kind: u8, file: &str) -> Vec<u8> {
        // Transaction, flags, address, relay and hardware address go back as they came; all else is empty.
        let mut bytes = question.head.to_vec();
        bytes[0] = BOOT_REPLY;
        bytes[3] = 0;
        bytes[8..10].fill(0);
        // A relay delivers to the address in the answer, and there is none: it must broadcast.
        if !question.relay.is_unspecified() {
            bytes[10] |= BROADCAST;
        }
        bytes[16..20].fill(0);
        bytes[20..24].copy_from_slice(&self.server.octets());
        bytes[44..236].fill(0);
        // Next server as a name too: some ROMs look nowhere else.
        let name = self.server.to_string();
        bytes[44..44 + name.len()].copy_from_slice(name.as_bytes());
        bytes[108..108 + file.len()].copy_from_slice(file.as_bytes());

        let mut add = |code: u8, value: &[u8]| {
            // Every value is a constant, an address, a name that fits, or came in an option itself.
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        };
        add(option::MESSAGE, &[kind]);
        add(option::SERVER, &self.server.octets());
        match question.client {
            BootClient::Http => {
                add(option::CLASS, b"HTTPClient");
                add(option::BOOT_FILE, file.as_bytes());
            }
            BootClient::Pxe | BootClient::Ipxe => add(option::CLASS, b"PXEClient"),
        }
        if let Some(machine) = question.machine {
            add(option::MACHINE, machine);
        }
        // BIOS ROMs want to be told that this is all. UEFI firmware that is told so ignores the offer on some
        // machines; without it, it asks at the boot server's port.
        if question.client == BootClient::Pxe && question.arch == ARCH_BIOS {
            add(option::VENDOR, &TAKE_THIS_FILE);
        }
        // RFC 3046: last of all.
        if let Some(note) = question.relay_note {
            add(option::RELAY, note);
        }
        bytes.push(option::END);
        bytes.resize(bytes.len().max(ANSWER_BYTES_MIN), option::PAD);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Door, ProxyOffers, Silence};
    use crate::Mac;
    use crate::question::tests::{DISCOVER, HTTP, PXE, asked};

    const REQUEST: (u8, &[u8]) = (53, &[3]);
    const BIOS: (u8, &[u8]) = (93, &[0, 0]);

    fn offers(http_boot: bool) -> ProxyOffers {
        let http = "10.77.0.1:8080".parse().unwrap();
        ProxyOffers::new(http, ["undionly.kpxe", "snponly.efi"], http_boot).unwrap()
    }

    fn file(options: &[(u8, &[u8])], door: Door) -> Result<String, Silence> {
        let answer = offers(true).answer(&asked(options), door)?;
        Ok(answer.file)
    }

    /// The options of an answer, up to its end.
    fn options(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        let mut rest = &bytes[240..];
        while rest[0] != 255 {
            let length = usize::from(rest[1]);
            found.push((rest[0], rest[2..2 + length].to_vec()));
            rest = &rest[2 + length..];
        }
        found
    }

    #[test]
    fn each_kind_of_machine_gets_its_loader() {
        let shared = |options: &[(u8, &[u8])]| file(options, Door::Shared).unwrap();
        assert_eq!(shared(&[DISCOVER, PXE, BIOS]), "undionly.kpxe");
        assert_eq!(shared(&[DISCOVER, PXE]), "snponly.efi");
        assert_eq!(shared(&[DISCOVER, PXE, (93, &[0, 9])]), "snponly.efi");
        assert_eq!(
            shared(&[DISCOVER, HTTP]),
            "http://10.77.0.1:8080/boot/snponly.efi"
        );
        for arch in [0, 7] {
            let ipxe = [DISCOVER, PXE, (93, &[0, arch][..]), (175, &[])];
            assert_eq!(shared(&ipxe), "http://10.77.0.1:8080/boot/start.ipxe");
        }
        let arm = file(&[DISCOVER, PXE, (93, &[0, 11])], Door::Shared);
        assert!(
            matches!(arm, Err(Silence::Arch { arch: 11, .. })),
            "{arm:?}"
        );
        let off = offers(false).answer(&asked(&[DISCOVER, HTTP]), Door::Shared);
        assert_eq!(off, Err(Silence::HttpOff));
    }

    #[test]
    fn a_request_is_answered_at_the_boot_servers_port_alone() {
        assert_eq!(file(&[REQUEST, PXE], Door::Shared), Err(Silence::NotOurs));
        assert_eq!(
            file(&[DISCOVER, PXE], Door::BootServer),
            Err(Silence::NotOurs)
        );
        assert_eq!(
            file(&[REQUEST, PXE], Door::BootServer).unwrap(),
            "snponly.efi"
        );
        assert_eq!(
            file(&[(53, &[8]), PXE], Door::BootServer).unwrap(),
            "snponly.efi"
        );
        assert_eq!(
            file(&[(53, &[7]), PXE], Door::BootServer),
            Err(Silence::NotOurs)
        );
    }

    #[test]
    fn an_offer_has_a_boot_file_and_no_address() {
        let machine = [&[0][..], &[7; 16]].concat();
        let question = asked(&[DISCOVER, PXE, BIOS, (97, &machine), (82, b"port 7")]);
        let answer = offers(false).answer(&question, Door::Shared).unwrap();
        let bytes = &answer.bytes;
        assert_eq!(answer.mac, Mac([0x52, 0x54, 0, 0x77, 0, 1]));
        assert_eq!(bytes[..4], [2, 1, 6, 0]);
        assert_eq!(bytes[4..8], question[4..8], "the transaction");
        assert_eq!(bytes[16..20], [0; 4], "an address");
        assert_eq!(bytes[20..24], [10, 77, 0, 1], "the next server");
        assert!(bytes[108..].starts_with(b"undionly.kpxe\0"));
        let told = options(bytes);
        let codes: Vec<u8> = told.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [53, 54, 60, 97, 43, 82], "and the relay's note last");
        assert_eq!(told[0].1, [2]);
        assert_eq!(told[2].1, b"PXEClient");
        assert_eq!(told[3].1, machine);
        assert!(bytes.len() >= 300);
    }

    #[test]
    fn a_relay_is_told_to_broadcast() {
        let mut question = asked(&[DISCOVER, PXE]);
        question[10] = 0;
        let plain = offers(false).answer(&question, Door::Shared).unwrap();
        assert_eq!((plain.relay, plain.bytes[10]), (None, 0));
        question[24..28].copy_from_slice(&[10, 79, 0, 1]);
        let relayed = offers(false).answer(&question, Door::Shared).unwrap();
        assert_eq!(relayed.relay, Some("10.79.0.1".parse().unwrap()));
        assert_eq!(relayed.bytes[10], 0x80);
        assert_eq!(relayed.bytes[24..28], [10, 79, 0, 1]);
    }

    #[test]
    fn an_http_client_hears_its_own_class_and_an_address_of_the_web() {
        let answer = offers(true)
            .answer(&asked(&[DISCOVER, HTTP]), Door::Shared)
            .unwrap();
        let told = options(&answer.bytes);
        assert!(told.contains(&(60, b"HTTPClient".to_vec())));
        assert!(told.contains(&(67, b"http://10.77.0.1:8080/boot/snponly.efi".to_vec())));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused_at_the_start() {
        let http = "10.77.0.1:8080".parse().unwrap();
        let long = "x".repeat(128);
        assert!(ProxyOffers::new(http, [&long, "a"], false).is_err());
        assert!(ProxyOffers::new(http, ["a", ""], false).is_err());
        assert!(ProxyOffers::new(http, ["a", &long[..110]], true).is_err());
    }

    proptest! {
        #[test]
        fn whoever_is_answered_boots_and_is_named_in_the_answer(
            changes in vec((0..400_usize, any::<u8>()), 0..8),
            cut in 200..400_usize,
            http in any::<bool>(),
        ) {
            let class = if http { HTTP } else { PXE };
            let mut bytes = asked(&[DISCOVER, class, (97, &[0; 17]), (82, &[1, 2]), (77, b"iPXE")]);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut);
            for door in [Door::Shared, Door::BootServer] {
                if let Ok(answer) = offers(true).answer(&bytes, door) {
                    prop_assert_eq!(&answer.bytes[28..34], &bytes[28..34]);
                    prop_assert_eq!(&answer.bytes[16..20], &[0; 4]);
                    prop_assert!(answer.bytes.len() <= 1472);
                    prop_assert!(options(&answer.bytes).iter().all(|(code, _)| ![1, 3, 51].contains(code)));
                }
            }
        }
    }
}
