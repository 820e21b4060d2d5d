//! Questions to the proxy-DHCP, as frames and as datagrams: anybody on the network asks them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netflash_pxe::{DhcpFrame, Door, ProxyOffers, answer_frame};

fuzz_target!(|bytes: &[u8]| {
    let http = "10.77.0.1:8080".parse().expect("an address");
    let offers = ProxyOffers::new(http, ["undionly.kpxe", "snponly.efi"], true).expect("short names");
    let frame = DhcpFrame::parse(bytes);
    let payload = frame.map_or(bytes, |frame| frame.payload);
    for door in [Door::Shared, Door::BootServer] {
        let Ok(answer) = offers.answer(payload, door) else {
            continue;
        };
        assert_eq!(answer.bytes[16..20], [0; 4], "an address was given");
        assert_eq!(answer.bytes[28..34], payload[28..34], "somebody else is answered");
        let boots = |class: &[u8]| payload.windows(class.len()).any(|part| part == class);
        assert!(boots(b"PXEClient") || boots(b"HTTPClient"), "a machine that is up is answered");
        let relay = answer.relay.zip(frame.map(|frame| frame.neighbour));
        let wire = answer_frame(offers.server(), answer.mac, relay, &answer.bytes);
        assert_eq!(DhcpFrame::parse(&wire).is_some(), relay.is_some() && answer.mac.0[0] & 1 == 0);
    }
});
