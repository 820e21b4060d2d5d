//! Power by Wake-on-LAN: a packet that a sleeping network card knows by its own address.
//!
//! Nothing answers. Whether it worked is seen when the machine asks the server what to boot, or by the next way of the
//! ladder that can read a state.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use netflash_pxe::Mac;

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::login::Password;
use super::{Power, PowerState};
use crate::sys;

/// The card matches the pattern and not the port; these two are what switches and routers are told to let pass.
const PORTS: [u16; 2] = [9, 7];
/// How often it is sent: nobody says whether it came through.
const TIMES: u32 = 3;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause until it is sent anew: a packet may be lost, and a card whose machine is still ending hears nothing.
const AGAIN: Duration = Duration::from_secs(10);
/// Ethernet type of the frame without IP.
const ETHERTYPE: u16 = 0x0842;

/// A machine that can be woken.
pub(super) struct WolPower {
    pub(super) mac: Mac,
    /// Directed broadcast addresses of its networks.
    pub(super) broadcast: Vec<Ipv4Addr>,
    /// Send by this interface only, and a frame without IP too.
    pub(super) interface: Option<String>,
    /// SecureOn: a password of six bytes that the card compares.
    pub(super) secure_on: Option<[u8; 6]>,
}

impl Power for WolPower {
    fn status(&mut self, _until: Deadline) -> Result<PowerState, PowerError> {
        Err(Failure::Unsupported.because("a magic packet has no answer"))
    }

    fn tells_off(&self) -> bool {
        false
    }

    fn on(&mut self, _until: Deadline) -> Result<(), PowerError> {
        let packet = packet(self.mac, self.secure_on);
        let failed = |error: io::Error| Failure::Refused.because(format!("sending: {error}"));
        for time in 0..TIMES {
            if time > 0 {
                thread::sleep(PAUSE);
            }
            self.send(&packet).map_err(failed)?;
        }
        Ok(())
    }

    fn repeats(&self) -> Option<Duration> {
        Some(AGAIN)
    }

    fn switches_off(&self) -> bool {
        false
    }

    fn off(&mut self, _until: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("a magic packet only wakes"))
    }
}

impl WolPower {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        if let Some(interface) = &self.interface {
            // The card's own address as destination would do; broadcast also reaches it behind a switch that forgot it.
            let frame = frame(packet, sys::hardware_address(interface)?);
            sys::send_frame(interface, &frame)?;
        }
        for address in &self.broadcast {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_broadcast(true)?;
            if let Some(interface) = &self.interface {
                setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface))?;
            }
            for port in PORTS {
                socket.send_to(packet, SocketAddrV4::new(*address, port))?;
            }
        }
        Ok(())
    }
}

/// Six times FFh, sixteen times the address, and the password if there is one (AMD, Magic Packet Technology, 1995).
fn packet(mac: Mac, secure_on: Option<[u8; 6]>) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    for _ in 0..16 {
        packet.extend(mac.0);
    }
    packet.extend(secure_on.iter().flatten());
    packet
}

fn frame(packet: &[u8], from: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(packet);
    frame
}

/// A SecureOn password as it is written: six bytes in hexadecimal, `00:11:22:33:44:55`.
pub(super) fn secure_on(password: &Password) -> Result<[u8; 6], PowerError> {
    let mac: Result<Mac, _> = password.text().parse();
    mac.map(|mac| mac.0).map_err(|_| {
        Failure::Setting.because("a SecureOn password is six bytes, such as 00:11:22:33:44:55")
    })
}

#[cfg(test)]
mod tests {
    use super::{Mac, frame, packet};

    #[test]
    fn a_packet_is_sixteen_addresses_long_and_the_password() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let plain = packet(mac, None);
        assert_eq!(plain.len(), 102);
        assert!(plain[6..].chunks(6).all(|six| six == mac.0));
        assert_eq!(packet(mac, Some([1; 6])).len(), 108);
        assert_eq!(frame(&plain, [3; 6])[6..14], [3, 3, 3, 3, 3, 3, 8, 0x42]);
    }
}
