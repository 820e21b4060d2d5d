//! Socket addresses as the kernel has them: `sockaddr_in` and `sockaddr_in6`, byte for byte.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ptr,
};

/// Length of `sockaddr_in`: family, port, address, and eight bytes of nothing.
const V4_BYTES: usize = 16;
/// Length of `sockaddr_in6`: family, port, flow, address, scope.
const V6_BYTES: usize = 28;

/// Room for an address of either family, aligned as the kernel wants it.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; V6_BYTES],
}

impl Name {
    /// Room for what the kernel fills in.
    pub(super) const EMPTY: Name = Name {
        bytes: [0; V6_BYTES],
    };

    /// The name of `address`, and its length in bytes.
    pub(super) fn of(address: SocketAddr) -> (Name, u32) {
        let mut name = Name::EMPTY;
        let (family, length) = match address {
            SocketAddr::V4(address) => {
                name.put(4, address.ip().octets());
                (libc::AF_INET, V4_BYTES)
            }
            SocketAddr::V6(address) => {
                name.put(4, address.flowinfo().to_be_bytes());
                name.put(8, address.ip().octets());
                name.put(24, address.scope_id().to_ne_bytes());
                (libc::AF_INET6, V6_BYTES)
            }
        };
        name.put(0, (family as libc::sa_family_t).to_ne_bytes());
        name.put(2, address.port().to_be_bytes());
        (name, length as u32)
    }

    /// The address it names; of neither family: nowhere.
    pub(super) fn address(&self) -> SocketAddr {
        let family = libc::sa_family_t::from_ne_bytes(self.part(0));
        let port = u16::from_be_bytes(self.part(2));
        if i32::from(family) == libc::AF_INET6 {
            let address = Ipv6Addr::from(self.part::<16>(8));
            let scope = u32::from_ne_bytes(self.part(24));
            return SocketAddrV6::new(address, port, 0, scope).into();
        }
        SocketAddrV4::new(Ipv4Addr::from(self.part::<4>(4)), port).into()
    }

    /// Where it is, for the kernel.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        ptr::from_mut(&mut self.bytes).cast()
    }

    /// How much room there is.
    pub(super) fn room() -> u32 {
        V6_BYTES as u32
    }

    fn put<const N: usize>(&mut self, at: usize, part: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&part);
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.bytes[at..]
            .first_chunk()
            .expect("fields lie within the room")
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, size_of};

    use super::*;

    #[test]
    fn an_address_survives_being_named() {
        for text in ["192.0.2.7:9078", "[ff15::efc0:4e46]:9078", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Name::of(address).0.address(), address, "{text}");
        }
        let nowhere: SocketAddr = "0.0.0.0:0".parse().expect("an address");
        assert_eq!(Name::EMPTY.address(), nowhere);
    }

    #[test]
    fn names_are_as_long_as_the_kernel_has_them() {
        assert_eq!(size_of::<libc::sockaddr_in>(), V4_BYTES);
        assert_eq!(size_of::<libc::sockaddr_in6>(), V6_BYTES);
        assert_eq!(align_of::<libc::sockaddr_in6>(), align_of::<Name>());
    }

    /// The same bytes as the standard library hands to the kernel.
    #[test]
    fn names_are_what_others_make_of_the_address() {
        for text in ["192.0.2.7:9078", "[2001:db8::5]:4001", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            let (name, length) = Name::of(address);
            let theirs = socket2::SockAddr::from(address);
            assert_eq!(theirs.len(), length, "{text}");
            let back = name.address();
            assert_eq!(socket2::SockAddr::from(back), theirs, "{text}");
        }
    }
}
