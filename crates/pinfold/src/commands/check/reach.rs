//! Whether what should answer does: the API, the endpoint as users reach it,
//! the gateway, and the addresses at which peers dial the node.

use std::{net::SocketAddr, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{Findings, Level};
use crate::{cli::UpArgs, commands::serve};

/// How long one of them may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) async fn check(args: &UpArgs, findings: &mut Findings) {
    let api = serve::local(args.service.api);
    if !connects(&api.to_string()).await {
        findings.add(Level::Note, format!("nothing listens at {api}: is it running, and is --api right?"));
        return;
    }
    if !args.service.tls.is_on() {
        ready(api, findings).await;
    }
    if let Some(url) = args.service.public_url() {
        public(&url, findings).await;
    }
    if super::super::up::has_node(&args.data.data) {
        node(args, findings).await;
    }
}

async fn ready(api: SocketAddr, findings: &mut Findings) {
    match get(&format!("http://{api}/readyz")).await {
        Ok((StatusCode::OK, _)) => findings.add(Level::Ok, format!("the API answers at {api}")),
        Ok((status, body)) => {
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            let reason =
                body["reason"].as_str().unwrap_or("what listens there is no Pinfold; --api names it");
            findings.add(Level::Wrong, format!("the API at {api} is not ready ({status}): {reason}"));
        }
        Err(error) => findings.add(
            Level::Wrong,
            format!("what listens at {api} does not answer as the API does: {error}; --api names it"),
        ),
    }
}

async fn public(url: &str, findings: &mut Findings) {
    let found = match get(&format!("{url}/healthz")).await {
        Ok((StatusCode::OK, body)) if body.trim() == "ok" => {
            findings.add(Level::Ok, format!("the endpoint answers at {url}"));
            return;
        }
        Ok((status, _)) => format!("it answers {status}"),
        Err(error) => error,
    };
    findings.add(
        Level::Wrong,
        format!(
            "users do not reach the API at {url}: {found}; look at its name, its certificate and the proxy"
        ),
    );
}

async fn node(args: &UpArgs, findings: &mut Findings) {
    let gateway = serve::local(args.node.gateway);
    listens(&gateway.to_string(), "the gateway", "--gateway", findings).await;
    for address in args.node.swarm.iter().filter_map(dialled) {
        listens(&address, "the node", "--swarm", findings).await;
    }
    for address in args.node.announce.iter().filter_map(dialled) {
        listens(&address, "the node as others are told to dial it", "--announce and the firewall", findings)
            .await;
    }
}

async fn listens(address: &str, who: &str, flag: &str, findings: &mut Findings) {
    if connects(address).await {
        findings.add(Level::Ok, format!("{who} answers at {address}"));
    } else {
        findings.add(Level::Wrong, format!("{who} does not answer at {address}; look at {flag}"));
    }
}

/// Host and port of a multiaddr that is dialled over TCP.
fn dialled(address: &Multiaddr) -> Option<String> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => return tcp(&parts.next()?, |port| serve::local((ip, port).into()).to_string()),
        Protocol::Ip6(ip) => return tcp(&parts.next()?, |port| serve::local((ip, port).into()).to_string()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    tcp(&parts.next()?, |port| format!("{host}:{port}"))
}

fn tcp(part: &Protocol<'_>, show: impl FnOnce(u16) -> String) -> Option<String> {
    match part {
        // Any free port: which one it was is not known here.
        Protocol::Tcp(port) if *port != 0 => Some(show(*port)),
        _ => None,
    }
}

async fn connects(address: &str) -> bool {
    matches!(timeout(ANSWER, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Status and beginning of an answer; what is wrong, in words.
async fn get(url: &str) -> Result<(StatusCode, String), String> {
    /// More is none of the answers expected.
    const LONGEST: usize = 4_096;
    let told = |error: reqwest::Error| {
        let mut text = error.without_url().to_string();
        if text.is_empty() {
            text = "no answer".into();
        }
        text
    };
    let client = Client::builder().timeout(ANSWER).build().map_err(told)?;
    let mut answer = client.get(url).send().await.map_err(told)?;
    let (status, mut body) = (answer.status(), Vec::new());
    while let Some(part) = answer.chunk().await.map_err(told)? {
        body.extend_from_slice(&part);
        if body.len() > LONGEST {
            break;
        }
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dialled_over_tcp_is_named() {
        for (address, named) in [
            ("/ip4/0.0.0.0/tcp/4071", Some("127.0.0.1:4071")),
            (
                "/ip6/::1/tcp/4071/p2p/12D3KooWF2eUkwTe1QHSW2eRRXTzmr5JWbsZhPZwCdYhxY822pHf",
                Some("[::1]:4071"),
            ),
            ("/dns4/pins.example.org/tcp/443/wss", Some("pins.example.org:443")),
            ("/ip4/127.0.0.1/tcp/0", None),
            ("/ip4/127.0.0.1/udp/4071/quic-v1", None),
        ] {
            let address: Multiaddr = address.parse().expect("a multiaddr");
            assert_eq!(dialled(&address).as_deref(), named, "{address}");
        }
    }
}
