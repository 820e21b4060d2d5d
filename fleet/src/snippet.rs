//! What an operator tells a DHCP server of somebody else, so that it hands out our boot file.
//!
//! The texts are files beside this one; the places that differ are written `@NAME@`.

use std::net::{Ipv4Addr, SocketAddrV4};

use clap::ValueEnum;

/// A DHCP server that hands out the boot file by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ForeignDhcp {
    /// ISC dhcpd.
    Isc,
    /// Kea.
    Kea,
    /// dnsmasq.
    Dnsmasq,
    /// Windows Server.
    Windows,
}

/// What differs from room to room.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// Where TFTP and HTTP are.
    pub(crate) http: SocketAddrV4,
    /// The first address of the machines' network.
    pub(crate) network: Ipv4Addr,
    /// Loader for BIOS machines.
    pub(crate) bios_loader: &'a str,
    /// Loader for UEFI machines.
    pub(crate) uefi_loader: &'a str,
}

impl ForeignDhcp {
    /// The text for this kind of server.
    pub(crate) fn snippet(self, place: &Place<'_>) -> String {
        let template = match self {
            ForeignDhcp::Isc => include_str!("snippet/isc.conf"),
            ForeignDhcp::Kea => include_str!("snippet/kea.json"),
            ForeignDhcp::Dnsmasq => include_str!("snippet/dnsmasq.conf"),
            ForeignDhcp::Windows => include_str!("snippet/windows.ps1"),
        };
        template
            .replace("@SERVER@", &place.http.ip().to_string())
            .replace("@HTTP@", &place.http.to_string())
            .replace("@NETWORK@", &place.network.to_string())
            .replace("@BIOS@", place.bios_loader)
            .replace("@UEFI@", place.uefi_loader)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::{ForeignDhcp, Place};

    #[test]
    fn every_text_is_filled_in_and_knows_every_kind_of_machine() {
        let place = Place {
            http: "10.77.0.1:8080".parse().unwrap(),
            network: "10.77.0.0".parse().unwrap(),
            bios_loader: "undionly.kpxe",
            uefi_loader: "snponly.efi",
        };
        for kind in ForeignDhcp::value_variants() {
            let text = kind.snippet(&place);
            let is_place =
                |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
            assert!(!text.split('@').any(is_place), "{text}");
            for word in [
                "10.77.0.1",
                "undionly.kpxe",
                "snponly.efi",
                "http://10.77.0.1:8080/boot/start.ipxe",
                "http://10.77.0.1:8080/boot/snponly.efi",
                "HTTPClient",
            ] {
                assert!(text.contains(word), "{kind:?} lacks {word}");
            }
        }
    }
}
