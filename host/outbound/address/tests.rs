//! Tests with addresses on both sides of every border.

use super::is_public;

/// Addresses that are not public, and adjacent ones that are.
const SPECIAL: &str = "\
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.169.254 \
    172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 \
    198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
    :: ::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 \
    64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:a00:1:: 3fff::1 fc00::1 fd12::1 \
    fe80::1 fec0::1 ff02::1 168.63.129.16 ::ffff:168.63.129.16 64:ff9b::a83f:8110 161.26.0.7 \
    166.8.0.1 166.11.255.255 100.100.100.200 fd00:ec2::254 fd20:ce::254";
const PUBLIC: &str = "\
    1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.0.0.1 128.0.0.1 169.253.255.255 \
    172.15.255.255 172.32.0.0 192.0.1.1 192.167.0.1 192.169.0.1 198.17.0.1 198.20.0.1 \
    223.255.255.255 ::ffff:1.1.1.1 64:ff9b::101:101 2002:101:101:: 2606:4700::1111 2a00:1450::1 \
    2001:4860::8888 168.63.129.15 168.63.129.17 161.25.255.255 161.27.0.0 166.7.255.255 166.12.0.0";

#[test]
fn public_is_what_the_internet_can_reach() {
    for (addresses, expected) in [(SPECIAL, false), (PUBLIC, true)] {
        for address in addresses.split_whitespace() {
            let parsed = address.parse().unwrap_or_else(|error| panic!("{address}: {error}"));
            assert_eq!(is_public(parsed), expected, "{address}");
        }
    }
}
