//! Which addresses are public. Without further grants, a host may only have a public address.
//!
//! Source: the special-purpose address registries of IANA (RFC 6890 and its successors), multicast,
//! and public networks that clouds use for internal services. An IPv6 address that is translated to
//! an IPv4 address is judged by the latter.

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
    // "This network", and the unspecified address.
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    // Carrier-grade NAT, shared with a provider's other customers (RFC 6598).
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    // Link-local, and the metadata services of clouds.
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    // Multicast, then reserved addresses with broadcast.
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
];

/// Networks that are public by the registries, but that clouds use internally. From a machine in
/// such a cloud, they lead to the machine's own settings and secrets, or to private services.
const CLOUDS_V4: [Network; 3] = [
    // Azure's host agent: settings, certificates, DNS.
    Network::new(IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    // IBM's services for machines, and its private endpoints.
    v4(161, 26, 0, 16),
    v4(166, 8, 0, 14),
];

/// The global unicast addresses that have been assigned so far.
const GLOBAL_V6: Network = v6(0x2000, 0, 0, 3);
/// Networks in [`GLOBAL_V6`] that are not public: protocols (with Teredo), documentation.
const SPECIAL_V6: [Network; 3] =
    [v6(0x2001, 0, 0, 23), v6(0x2001, 0xdb8, 0, 32), v6(0x3fff, 0, 0, 20)];
/// Addresses that a gateway translates to IPv4: the last four bytes (RFC 6052).
const NAT64: Network = v6(0x64, 0xff9b, 0, 96);
/// Addresses that a router translates to IPv4: the four bytes after the first two (RFC 3056).
const SIX_TO_FOUR: Network = v6(0x2002, 0, 0, 16);

/// Whether this is an address on the public internet.
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
