//! May this IP address be dialled?
//!
//! Origins, routers, redirects and other peers name addresses, and each is a
//! way into the operator's own network. The answer is given for the resolved
//! address, at dial time, by its class. IPv6 addresses that carry an IPv4
//! address are judged by that one, because a translator or tunnel on the way
//! would send the packets there. What is neither known to be public nor
//! known to be private is never dialled.
//!
//! Source: the IANA special-purpose address registries for IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Anywhere in the public Internet.
    Public,
    /// On this machine or in a local network: loopback, RFC 1918, unique
    /// local, shared address space (RFC 6598).
    Private,
    /// Link-local, multicast, broadcast, unspecified, documentation,
    /// benchmarking or reserved: no peer is there.
    Never,
}

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is private, and private addresses are not allowed.
    #[error("{0} is a private address; --allow-private-addresses permits such")]
    Private(IpAddr),
    /// It is of a kind that is never dialled.
    #[error("{0} is link-local, multicast, reserved or unspecified, and never dialled")]
    Never(IpAddr),
}

/// Whether an address may be dialled.
///
/// # Errors
/// When it is private and that is not allowed, or is never dialled.
pub fn may_dial(address: IpAddr, allow_private: bool) -> Result<(), AddressError> {
    match class(address) {
        Class::Public => Ok(()),
        Class::Private if allow_private => Ok(()),
        Class::Private => Err(AddressError::Private(address)),
        Class::Never => Err(AddressError::Never(address)),
    }
}

/// What an address is.
#[must_use]
pub fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        // "This network", link-local, IETF protocol assignments,
        // documentation (three nets), the old 6to4 relays, benchmarking,
        // multicast, reserved and broadcast.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [224..=255, ..] => Class::Never,
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Class::Private,
        _ => Class::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> Class {
    if address == Ipv6Addr::LOCALHOST {
        return Class::Private;
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    match [a, b, c, d, e, f] {
        // IPv4-mapped, IPv4-compatible, NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff | 0] | [0x64, 0xff9b, 0, 0, 0, 0] => class_v4(v4(g, h)),
        // 6to4 carries the address of its relay behind the prefix.
        [0x2002, ..] => class_v4(v4(b, c)),
        // Teredo carries its server's, and its client's with every bit
        // turned; packets may go to either.
        [0x2001, 0, ..] => class_v4(v4(c, d)).max(class_v4(v4(!g, !h))),
        // Benchmarking, both ORCHIDs, documentation (two nets).
        [0x2001, 2, 0, ..] | [0x2001, 0x10..=0x2f, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => {
            Class::Never
        }
        // Unique local.
        [0xfc00..=0xfdff, ..] => Class::Private,
        // Global unicast, all that is given out. Outside lie link-local and
        // multicast, discard-only, segment routing, and the local NAT64
        // prefix 64:ff9b:1::/48, in which only its translator knows where
        // the IPv4 address is.
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Never,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(want: Class, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(class(address.parse().unwrap()), want, "{address}");
        }
    }

    #[test]
    fn public_addresses() {
        check(
            Class::Public,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.1",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.1",
                "169.253.0.1",
                "169.255.0.1",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.1",
                "192.167.0.1",
                "192.169.0.1",
                "198.17.0.1",
                "198.20.0.1",
                "203.0.114.1",
                "223.255.255.255",
                "2001:4860:4860::8888",
                "2606:4700::1111",
                "2a00:1450::1",
                "3fff:1000::1",
                "2003::1",
            ],
        );
    }

    #[test]
    fn private_addresses() {
        check(
            Class::Private,
            &[
                "127.0.0.1",
                "127.255.255.255",
                "10.0.0.1",
                "10.255.255.255",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.0.1",
                "192.168.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "::1",
                "fc00::1",
                "fdff:ffff::1",
            ],
        );
    }

    #[test]
    fn addresses_that_are_never_dialled() {
        check(
            Class::Never,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "169.254.0.1",
                "169.254.169.254",
                "192.0.0.1",
                "192.0.2.1",
                "192.88.99.1",
                "198.18.0.1",
                "198.19.255.255",
                "198.51.100.7",
                "203.0.113.7",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
                "::",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "ff02::1",
                "100::1",
                "2001:2::1",
                "2001:10::1",
                "2001:20::1",
                "2001:db8::1",
                "3fff::1",
                "5f00::1",
                "4000::1",
                "64:ff9b:1::808:808",
                "64:ff9b:2::1",
            ],
        );
    }

    #[test]
    fn an_embedded_address_decides() {
        for (inner, want) in
            [("8.8.8.8", Class::Public), ("127.0.0.1", Class::Private), ("10.1.2.3", Class::Private)]
        {
            let [a, b, c, d] = inner.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let addresses = [
                format!("::ffff:{inner}"),
                format!("::{inner}"),
                format!("64:ff9b::{inner}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:808:808::{:x}:{:x}", !high, !low),
                format!("2001:0:{high:x}:{low:x}::f7f7:f7f7"),
            ];
            check(want, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
        }
        check(
            Class::Never,
            &["::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::2"],
        );
    }

    #[test]
    fn private_addresses_need_a_word_and_others_none_helps() {
        let dial = |text: &str, allow| may_dial(text.parse().unwrap(), allow);
        assert_eq!(dial("1.1.1.1", false), Ok(()));
        assert_eq!(dial("127.0.0.1", true), Ok(()));
        assert_eq!(dial("127.0.0.1", false), Err(AddressError::Private("127.0.0.1".parse().unwrap())));
        for allow in [false, true] {
            assert_eq!(
                dial("169.254.169.254", allow),
                Err(AddressError::Never("169.254.169.254".parse().unwrap()))
            );
            assert_eq!(dial("fe80::1", allow), Err(AddressError::Never("fe80::1".parse().unwrap())));
        }
    }
}
