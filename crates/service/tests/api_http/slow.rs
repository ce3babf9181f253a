//! Clients that send slowly, or stop sending: a connection is held for a
//! bounded time. Their bytes come one by one, so that no byte resets a limit.

use std::{net::SocketAddr, time::Duration};

use pinfold_service::{Settings, Timeouts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    server::{Backend, settings},
    socket::running,
};

crate::on_both!(a_slow_head_ends_the_connection, a_slow_body_is_408_and_ends_the_connection,);

const LIMIT: Duration = Duration::from_millis(300);
/// Between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(20);
/// After which a test fails: far beyond the limit, and below the usual ones.
const PATIENCE: Duration = Duration::from_secs(20);

fn impatient() -> Settings {
    let timeouts = Timeouts { head: LIMIT, body: LIMIT, ..Timeouts::default() };
    Settings { timeouts, ..settings() }
}

/// Sends a text at once and then bytes, slowly, until the connection ends;
/// answers what came.
async fn drip(address: SocketAddr, text: &str) -> String {
    let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    writing.write_all(text.as_bytes()).await.unwrap();
    let drip = async move {
        let mut pace = tokio::time::interval(PACE);
        while writing.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let read = async {
        // The connection may end by a reset, because bytes are left unread.
        let _ = reading.read_to_end(&mut answer).await;
    };
    let ended = async {
        tokio::select! {
            () = read => {}
            () = drip => {}
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connection is held for ever");
    String::from_utf8(answer).unwrap()
}

async fn a_slow_head_ends_the_connection(on: Backend) {
    let (_server, service) = running(on, impatient()).await;
    let answer = drip(service.api_address(), "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // One that sends nothing at all, before and after a request.
    assert_eq!(drip_nothing(service.api_address(), "").await, "");
    let answer = drip_nothing(service.api_address(), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    service.shutdown();
    service.join().await;
}

async fn drip_nothing(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection is held for ever").unwrap();
    answer
}

async fn a_slow_body_is_408_and_ends_the_connection(on: Backend) {
    let (server, service) = running(on, impatient()).await;
    let head = format!(
        "POST /pins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100000\r\n\r\n{{\"cid\":\"",
        server.token
    );
    let answer = drip(service.api_address(), &head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("REQUEST_TIMEOUT") && answer.contains("send it again"), "{answer}");
    service.shutdown();
    service.join().await;
}
