//! Networks that go wrong, in front of a controller or instead of one.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

/// How often the relay looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

/// What is wrong with the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: datagrams are only counted.
    None,
    /// Each answer comes late by this.
    Slow(Duration),
    /// Instead of an answer come bytes without sense.
    Garbage,
    /// There is never an answer.
    Silence,
}

/// Passes datagrams between clients and a controller, and counts logins.
pub(crate) struct Relay {
    port: u16,
    logins: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// A relay to the controller at this port of 127.0.0.1.
    pub(crate) fn start(controller: u16, fault: Fault) -> Result<Relay> {
        let inside = UdpSocket::bind("127.0.0.1:0")?;
        inside.set_read_timeout(Some(TICK))?;
        let port = inside.local_addr()?.port();
        let logins = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped) = (Arc::clone(&logins), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            // An error ends the relay; what waits for an answer notices.
            let _ = relay(&inside, controller, fault, &counted, &stopped);
        });
        Ok(Relay {
            port,
            logins,
            stop,
            thread: Some(thread),
        })
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Passwords that were tried: RAKP messages 1 that passed (IPMI 2.0, section 13.20).
    pub(crate) fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn relay(
    inside: &UdpSocket,
    controller: u16,
    fault: Fault,
    logins: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<()> {
    let outside = UdpSocket::bind("127.0.0.1:0")?;
    outside.connect(("127.0.0.1", controller))?;
    outside.set_read_timeout(Some(TICK))?;
    let mut client: Option<SocketAddr> = None;
    let mut bytes = [0; 2048];
    while !stop.load(Ordering::SeqCst) {
        if let Ok((length, from)) = inside.recv_from(&mut bytes) {
            client = Some(from);
            // RMCP class 7, authentication type 6 (RMCP+), payload type 12h.
            let login = bytes
                .get(3..6)
                .is_some_and(|b| b[0] == 7 && b[1] == 6 && b[2] & 0x3f == 0x12);
            logins.fetch_add(usize::from(login), Ordering::SeqCst);
            match fault {
                Fault::Silence => continue,
                Fault::Garbage => {
                    let noise: Vec<u8> = (0..60_u8).map(|at| at.wrapping_mul(89) ^ 0xa5).collect();
                    inside.send_to(&noise, from)?;
                    continue;
                }
                Fault::None | Fault::Slow(_) => drop(outside.send(&bytes[..length])),
            }
        }
        // One question, one answer: the protocol has no more under way.
        if let (Some(client), Ok(length)) = (client, outside.recv(&mut bytes)) {
            if let Fault::Slow(delay) = fault {
                thread::sleep(delay);
            }
            inside.send_to(&bytes[..length], client)?;
        }
    }
    Ok(())
}
