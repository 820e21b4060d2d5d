//! TFTP clients: anybody on the network can send a request, and anything after it.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use netflash_pxe::{TftpHeard, TftpTransfer, TftpTransmit};

/// Datagrams in one run, each behind its length in one byte.
const DATAGRAMS_MAX: usize = 200;
/// Size of the file that is asked for, in bytes.
const FILE_BYTES: u64 = 100_000;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let mut next = || {
        let (length, tail) = rest.split_first()?;
        let (datagram, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        Some(datagram)
    };
    let mut now = Instant::now();
    let Some(TftpHeard::Read(read)) = next().and_then(TftpHeard::parse) else {
        return;
    };
    let mut transfer = TftpTransfer::new(now, &read, FILE_BYTES);
    for _ in 0..DATAGRAMS_MAX {
        let mut sent = 0;
        while let Some(transmit) = transfer.poll_transmit() {
            sent += 1;
            assert!(sent <= 32, "more than a window at once");
            if let TftpTransmit::Block { offset, length, .. } = transmit {
                assert!(offset + length as u64 <= FILE_BYTES && length <= 1468);
            }
        }
        match next() {
            // An empty datagram stands for time that passes.
            Some([]) => {
                now += Duration::from_secs(1);
                transfer.handle_timeout(now);
            }
            Some(datagram) => {
                if let Some(heard) = TftpHeard::parse(datagram) {
                    transfer.handle(now, heard);
                }
            }
            None => return,
        }
    }
});
