//! Multiaddrs and peer ids of nodes.
//!
//! A node's key is its libp2p key, so its peer id follows from it; an address
//! that a node gives for itself must end in that peer id, or clients that dial
//! it would talk to somebody else (and some fail without one).

use std::net::IpAddr;

use axum::http::Uri;
use multiaddr::{Multiaddr, PeerId, Protocol, multihash::Multihash};
use pinfold_core::address::{Class, class};

/// Bytes of one address of a node.
const MAX_ADDRESS: usize = 512;
/// The protobuf of an Ed25519 public key, up to the key itself.
const KEY_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
const IDENTITY: u64 = 0;

/// The peer id of an Ed25519 key.
pub(crate) fn peer_id(key: &[u8; 32]) -> PeerId {
    let protobuf = [&KEY_PREFIX[..], key].concat();
    let hash = Multihash::wrap(IDENTITY, &protobuf).expect("36 bytes fit into an identity multihash of 64");
    PeerId::from_multihash(hash).expect("an identity multihash of up to 42 bytes is a peer id")
}

/// Whether the text is a multiaddr that ends in this key's peer id.
pub(crate) fn belongs_to(address: &str, key: &[u8; 32]) -> bool {
    parse_own(address, key).is_some()
}

/// The address without the peer id at its end, as delegated routing has it.
pub(crate) fn without_peer_id(address: &str, key: &[u8; 32]) -> Option<String> {
    let mut address = parse_own(address, key)?;
    address.pop();
    Some(address.to_string())
}

/// The multiaddr of a gateway's base URL, as delegated routing names it; none
/// where the gateway is not at the root of a host.
pub(crate) fn gateway_address(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok().filter(|_| url.len() <= MAX_ADDRESS)?;
    let (scheme, default_port) = match url.scheme_str()? {
        "http" => ("http", 80),
        "https" => ("https", 443),
        _ => return None,
    };
    let host = url.host()?;
    let port = url.port_u16().unwrap_or(default_port);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let kind = match bare.parse() {
        Ok(IpAddr::V4(_)) => "ip4",
        Ok(IpAddr::V6(_)) => "ip6",
        Err(_) => "dns",
    };
    let at_root = matches!(url.path(), "" | "/") && url.query().is_none();
    let address = format!("/{kind}/{bare}/tcp/{port}/{scheme}");
    (at_root && address.parse::<Multiaddr>().is_ok()).then_some(address)
}

/// Whether there are origins, and all of them are addresses that are dialled
/// only where private ones may be.
pub(crate) fn are_private(origins: &[String]) -> bool {
    let is_private = |origin: &String| {
        let address: Option<Multiaddr> = origin.parse().ok();
        match address.as_ref().and_then(|address| address.iter().next()) {
            Some(Protocol::Ip4(ip)) => class(ip.into()) != Class::Public,
            Some(Protocol::Ip6(ip)) => class(ip.into()) != Class::Public,
            _ => false,
        }
    };
    !origins.is_empty() && origins.iter().all(is_private)
}

fn parse_own(address: &str, key: &[u8; 32]) -> Option<Multiaddr> {
    if address.len() > MAX_ADDRESS {
        return None;
    }
    let address: Multiaddr = address.parse().ok()?;
    let own = Protocol::P2p(peer_id(key));
    let ends_in_own = address.iter().last() == Some(own);
    (ends_in_own && address.iter().count() > 1).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn a_peer_id_has_the_usual_text() {
        assert!(peer_id(&KEY).to_string().starts_with("12D3KooW"));
    }

    #[test]
    fn an_address_must_end_in_the_nodes_own_peer_id() {
        let own = peer_id(&KEY);
        let other = peer_id(&[8; 32]);
        for (address, expected) in [
            (format!("/ip4/127.0.0.1/tcp/4071/p2p/{own}"), true),
            (format!("/dns4/node.example/tcp/443/wss/p2p/{own}"), true),
            (format!("/ip4/1.2.3.4/tcp/1/p2p/{other}/p2p-circuit/p2p/{own}"), true),
            (format!("/ip4/127.0.0.1/tcp/4071/p2p/{other}"), false),
            ("/ip4/127.0.0.1/tcp/4071".to_owned(), false),
            (format!("/p2p/{own}"), false),
            (String::new(), false),
            ("http://127.0.0.1".to_owned(), false),
            (format!("/dns4/{}/tcp/1/p2p/{own}", "a".repeat(600)), false),
        ] {
            assert_eq!(belongs_to(&address, &KEY), expected, "{address}");
        }
    }

    #[test]
    fn a_gateway_is_named_by_its_host() {
        for (url, address) in [
            ("http://127.0.0.1:8071", Some("/ip4/127.0.0.1/tcp/8071/http")),
            ("https://gateway.example/", Some("/dns/gateway.example/tcp/443/https")),
            ("http://[2001:db8::1]:80", Some("/ip6/2001:db8::1/tcp/80/http")),
            ("https://gateway.example/below", None),
            ("ftp://gateway.example", None),
            ("gateway", None),
        ] {
            assert_eq!(gateway_address(url).as_deref(), address, "{url}");
        }
    }

    #[test]
    fn delegated_routing_names_the_peer_apart() {
        let address = format!("/ip4/127.0.0.1/tcp/4071/p2p/{}", peer_id(&KEY));
        assert_eq!(without_peer_id(&address, &KEY).as_deref(), Some("/ip4/127.0.0.1/tcp/4071"));
    }
}
