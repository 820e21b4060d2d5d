//! What a booting machine asks by DHCP, read strictly.
//!
//! Only what a machine says that boots from the network: its vendor class (option 60) begins with `PXEClient` or
//! `HTTPClient`. Everybody else is refused here, before anything else is looked at, so that nobody but such a machine
//! can ever get an answer. RFC 2131, 2132, 3046, 4578; PXE 2.1; UEFI 2.10 section 24.7.

use std::net::Ipv4Addr;

use crate::Mac;

/// Longest question looked at, in bytes: what fits a frame of Ethernet.
pub(crate) const QUESTION_BYTES_MAX: usize = 1472;

/// Where the options begin: the fixed part of BOOTP and the cookie.
const OPTIONS_AT: usize = 240;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const BOOT_REQUEST: u8 = 1;
const ETHERNET: u8 = 1;
const ETHERNET_BYTES: u8 = 6;

/// Options, by RFC 2132 and 4578.
pub(crate) mod option {
    pub(crate) const PAD: u8 = 0;
    pub(crate) const VENDOR: u8 = 43;
    pub(crate) const MESSAGE: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const CLASS: u8 = 60;
    pub(crate) const BOOT_FILE: u8 = 67;
    pub(crate) const USER_CLASS: u8 = 77;
    pub(crate) const RELAY: u8 = 82;
    pub(crate) const ARCH: u8 = 93;
    pub(crate) const MACHINE: u8 = 97;
    pub(crate) const IPXE: u8 = 175;
    pub(crate) const END: u8 = 255;
}

/// Why a datagram is no question of a booting machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Too short, too long, or an option runs over its end.
    #[error("it is cut off")]
    Length,
    /// Not a request over Ethernet with the cookie of DHCP.
    #[error("it is no DHCP request")]
    Format,
    /// An option that has one meaning comes twice, or has an impossible length.
    #[error("option {0} makes no sense")]
    Option(u8),
    /// Neither `PXEClient` nor `HTTPClient`: a machine that is up.
    #[error("it does not boot from the network")]
    Stranger,
}

/// How a machine loads what it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootClient {
    /// By PXE: TFTP.
    Pxe,
    /// By the firmware's own HTTP.
    Http,
    /// It is iPXE already.
    Ipxe,
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMessage {
    /// Who is there?
    Discover,
    /// I take this.
    Request,
    /// I have an address, what else?
    Inform,
    /// What no server answers.
    Other,
}

/// The question of a machine that boots from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootQuestion<'a> {
    /// The kind of message.
    pub message: BootMessage,
    /// How it loads.
    pub client: BootClient,
    /// Firmware and processor, RFC 4578 section 2.1; the first of a list.
    pub arch: u16,
    /// Hardware address.
    pub mac: Mac,
    /// The relay it came by, or 0.0.0.0.
    pub relay: Ipv4Addr,
    /// The fixed part, as it came.
    pub(crate) head: &'a [u8],
    /// Option 97: SMBIOS UUID with a byte before it.
    pub(crate) machine: Option<&'a [u8]>,
    /// Option 82: what the relay wants back.
    pub(crate) relay_note: Option<&'a [u8]>,
}

impl<'a> BootQuestion<'a> {
    /// Reads the payload of a datagram to a DHCP server.
    pub fn parse(bytes: &'a [u8]) -> Result<BootQuestion<'a>, QuestionError> {
        if !(OPTIONS_AT..=QUESTION_BYTES_MAX).contains(&bytes.len()) {
            return Err(QuestionError::Length);
        }
        let (head, options) = bytes.split_at(OPTIONS_AT);
        let fixed = [BOOT_REQUEST, ETHERNET, ETHERNET_BYTES];
        if head[..3] != fixed || head[236..] != COOKIE {
            return Err(QuestionError::Format);
        }
        let told = Told::read(options)?;
        let client = told.client()?;
        let mac = <[u8; 6]>::try_from(&head[28..34]).expect("six bytes");
        Ok(BootQuestion {
            message: told.message()?,
            client,
            arch: told.arch()?,
            mac: Mac(mac),
            relay: Ipv4Addr::new(head[24], head[25], head[26], head[27]),
            head,
            machine: told.machine,
            relay_note: told.relay,
        })
    }
}

/// The options that matter.
#[derive(Default)]
struct Told<'a> {
    message: Option<&'a [u8]>,
    class: Option<&'a [u8]>,
    user_class: Option<&'a [u8]>,
    relay: Option<&'a [u8]>,
    arch: Option<&'a [u8]>,
    machine: Option<&'a [u8]>,
    ipxe: Option<&'a [u8]>,
}

impl<'a> Told<'a> {
    fn read(mut rest: &'a [u8]) -> Result<Told<'a>, QuestionError> {
        let mut told = Told::default();
        while let Some((&code, after)) = rest.split_first() {
            match code {
                option::PAD => {
                    rest = after;
                    continue;
                }
                option::END => break,
                _ => {}
            }
            let (&length, after) = after.split_first().ok_or(QuestionError::Length)?;
            let split = after.split_at_checked(usize::from(length));
            let (value, after) = split.ok_or(QuestionError::Length)?;
            rest = after;
            let slot = match code {
                option::MESSAGE => &mut told.message,
                option::CLASS => &mut told.class,
                option::USER_CLASS => &mut told.user_class,
                option::RELAY => &mut told.relay,
                option::ARCH => &mut told.arch,
                option::MACHINE => &mut told.machine,
                option::IPXE => &mut told.ipxe,
                _ => continue,
            };
            // No such machine needs more than one piece (RFC 3396) for any of these.
            if slot.replace(value).is_some() {
                return Err(QuestionError::Option(code));
            }
        }
        Ok(told)
    }

    fn client(&self) -> Result<BootClient, QuestionError> {
        let class = self.class.unwrap_or_default();
        let ipxe = self.ipxe.is_some() || self.user_class.is_some_and(names_ipxe);
        if class.starts_with(b"HTTPClient") {
            Ok(BootClient::Http)
        } else if !class.starts_with(b"PXEClient") {
            Err(QuestionError::Stranger)
        } else if ipxe {
            Ok(BootClient::Ipxe)
        } else {
            Ok(BootClient::Pxe)
        }
    }

    fn message(&self) -> Result<BootMessage, QuestionError> {
        match self.message {
            Some([1]) => Ok(BootMessage::Discover),
            Some([3]) => Ok(BootMessage::Request),
            Some([8]) => Ok(BootMessage::Inform),
            Some([_]) => Ok(BootMessage::Other),
            _ => Err(QuestionError::Option(option::MESSAGE)),
        }
    }

    /// Option 93; firmware that leaves it out says the same in its class: `PXEClient:Arch:00007:…`.
    fn arch(&self) -> Result<u16, QuestionError> {
        let malformed = QuestionError::Option(option::ARCH);
        match self.arch {
            Some([high, low, rest @ ..]) if rest.len() % 2 == 0 => {
                Ok(u16::from_be_bytes([*high, *low]))
            }
            Some(_) => Err(malformed),
            None => {
                let class = self.class.and_then(|class| std::str::from_utf8(class).ok());
                let mut words = class.unwrap_or_default().split(':');
                let arch = words
                    .find(|word| *word == "Arch")
                    .and_then(|_| words.next());
                arch.and_then(|arch| arch.parse().ok()).ok_or(malformed)
            }
        }
    }
}

/// iPXE sends its name as it is; RFC 3004 wants a length before it.
fn names_ipxe(user_class: &[u8]) -> bool {
    user_class == b"iPXE" || user_class == b"\x04iPXE"
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{BootClient, BootMessage, BootQuestion, QuestionError};

    /// A question as firmware asks it, with these options.
    pub(crate) fn asked(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 236];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        bytes[10] = 0x80;
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 1]);
        bytes.extend([0x63, 0x82, 0x53, 0x63]);
        for (code, value) in options {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend(*value);
        }
        bytes.push(255);
        bytes
    }

    pub(crate) const DISCOVER: (u8, &[u8]) = (53, &[1]);
    pub(crate) const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00007:UNDI:003000");
    pub(crate) const HTTP: (u8, &[u8]) = (60, b"HTTPClient:Arch:00016:UNDI:003001");

    #[test]
    fn three_kinds_of_clients_are_told_apart() {
        let client = |options: &[(u8, &[u8])]| BootQuestion::parse(&asked(options)).unwrap().client;
        let arch = (93, &[0, 7][..]);
        assert_eq!(client(&[DISCOVER, PXE, arch]), BootClient::Pxe);
        assert_eq!(client(&[DISCOVER, HTTP]), BootClient::Http);
        for ipxe in [(175, &[0xb1, 1, 2][..]), (77, b"iPXE"), (77, b"\x04iPXE")] {
            assert_eq!(client(&[DISCOVER, PXE, arch, ipxe]), BootClient::Ipxe);
        }
    }

    #[test]
    fn the_processor_is_found_in_the_option_or_in_the_class() {
        let arch = |options: &[(u8, &[u8])]| BootQuestion::parse(&asked(options)).map(|q| q.arch);
        assert_eq!(arch(&[DISCOVER, PXE, (93, &[0, 9, 0, 7])]), Ok(9));
        assert_eq!(arch(&[DISCOVER, HTTP]), Ok(16));
        for wrong in [&[][..], &[7], &[0, 7, 0]] {
            let error = Err(QuestionError::Option(93));
            assert_eq!(arch(&[DISCOVER, PXE, (93, wrong)]), error);
        }
        let silent = (60, &b"PXEClient"[..]);
        assert_eq!(arch(&[DISCOVER, silent]), Err(QuestionError::Option(93)));
    }

    #[test]
    fn a_machine_that_is_up_is_a_stranger() {
        for class in [&b"udhcp 1.35"[..], b"MSFT 5.0", b"", b"pxeclient"] {
            let bytes = asked(&[DISCOVER, (60, class), (93, &[0, 7])]);
            assert_eq!(BootQuestion::parse(&bytes), Err(QuestionError::Stranger));
        }
        let without = asked(&[DISCOVER, (93, &[0, 7])]);
        assert_eq!(BootQuestion::parse(&without), Err(QuestionError::Stranger));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let twice = asked(&[DISCOVER, PXE, PXE, (93, &[0, 7])]);
        assert_eq!(BootQuestion::parse(&twice), Err(QuestionError::Option(60)));
        let two_kinds = asked(&[(53, &[1, 3]), PXE]);
        assert_eq!(
            BootQuestion::parse(&two_kinds),
            Err(QuestionError::Option(53))
        );
        let mut long = asked(&[DISCOVER, PXE]);
        long.pop();
        long.extend([93, 3, 0]);
        assert_eq!(BootQuestion::parse(&long), Err(QuestionError::Length));
    }

    #[test]
    fn an_answer_is_no_question() {
        let mut bytes = asked(&[DISCOVER, PXE]);
        bytes[0] = 2;
        assert_eq!(BootQuestion::parse(&bytes), Err(QuestionError::Format));
        let message = BootQuestion::parse(&asked(&[(53, &[3]), PXE]))
            .unwrap()
            .message;
        assert_eq!(message, BootMessage::Request);
    }

    proptest! {
        #[test]
        fn no_datagram_is_a_surprise(bytes in vec(any::<u8>(), 0..1600)) {
            // Its end is the assertion.
            let _ = BootQuestion::parse(&bytes);
        }

        #[test]
        fn whatever_options_say_only_a_booting_machine_passes(
            options in vec((1..255_u8, vec(any::<u8>(), 0..40)), 0..20)
        ) {
            let options: Vec<(u8, &[u8])> =
                options.iter().map(|(code, value)| (*code, value.as_slice())).collect();
            let bytes = asked(&options);
            if let Ok(question) = BootQuestion::parse(&bytes) {
                let class = options.iter().find(|(code, _)| *code == 60).map(|(_, value)| *value);
                let class = class.unwrap_or_default();
                prop_assert!(class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient"));
                prop_assert!(question.head.len() == 240);
            }
        }
    }
}
