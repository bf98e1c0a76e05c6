//! Which addresses are public: what a name may resolve to where nobody has said more about it.
//!
//! Source: the special-purpose address registries of IANA (RFC 6890 and its successors), and
//! multicast; and what clouds have taken of public networks for themselves. What leads to an IPv4
//! address is judged by that.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::grants::Network;

const fn v4(a: u8, b: u8, c: u8, bits: u32) -> Network {
    Network::new(IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits)
}

const fn v6(first: u16, second: u16, third: u16, bits: u32) -> Network {
    let address = Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0);
    Network::new(IpAddr::V6(address), bits)
}

/// IPv4 networks that are not public.
const SPECIAL_V4: [Network; 15] = [
    // This network, and whoever has no address yet.
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    // Shared with a provider's other customers (RFC 6598).
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    // Link-local, and where clouds tell machines their secrets.
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    // Multicast, and what is reserved, with broadcast.
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
];

/// Networks that are public by the registries, and that a cloud answers on in each machine's stead:
/// from inside it, they lead to the machine's own settings and secrets, or to private services.
const CLOUDS_V4: [Network; 3] = [
    // Azure's host of each machine: its agent, certificates, DNS.
    Network::new(IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    // IBM's services for machines, and its private endpoints.
    v4(161, 26, 0, 16),
    v4(166, 8, 0, 14),
];

/// What unicast on the IPv6 internet is so far.
const GLOBAL_V6: Network = v6(0x2000, 0, 0, 3);
/// Networks in it that are not public: protocols (with Teredo), documentation.
const SPECIAL_V6: [Network; 3] =
    [v6(0x2001, 0, 0, 23), v6(0x2001, 0xdb8, 0, 32), v6(0x3fff, 0, 0, 20)];
/// Addresses that a gateway makes IPv4 addresses of: their last four bytes (RFC 6052).
const NAT64: Network = v6(0x64, 0xff9b, 0, 96);
/// The same by the bytes behind the first two (RFC 3056).
const SIX_TO_FOUR: Network = v6(0x2002, 0, 0, 16);

/// Whether anybody on the internet is meant by this address.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => {
            !SPECIAL_V4.iter().chain(&CLOUDS_V4).any(|network| network.contains(v4))
        }
        IpAddr::V6(v6) if NAT64.contains(address) => is_public_v4(v6.to_bits() as u32),
        IpAddr::V6(v6) if SIX_TO_FOUR.contains(address) => {
            is_public_v4((v6.to_bits() >> 80) as u32)
        }
        IpAddr::V6(_) => {
            GLOBAL_V6.contains(address) && !SPECIAL_V6.iter().any(|it| it.contains(address))
        }
    }
}

fn is_public_v4(bits: u32) -> bool {
    is_public(IpAddr::V4(Ipv4Addr::from_bits(bits)))
}
