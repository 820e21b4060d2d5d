//! IGMP packets of anybody on the network, to whoever listens with a raw socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netflash_multicast::Igmp;

fuzz_target!(|packet: &[u8]| {
    let _ = Igmp::parse(packet);
    // What was understood is said in the same way, or in the one way that is ours.
    if let Ok((source, message)) = Igmp::parse_packet(packet) {
        let again = Igmp::parse_packet(&message.packet(source)).expect("ours is understood");
        assert_eq!(again.0, source);
        if !matches!(message, Igmp::Query { .. }) {
            assert_eq!(again.1, message);
        }
    }
});
