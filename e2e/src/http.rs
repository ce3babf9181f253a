//! A plain HTTP/1.1 connection that is kept open: for measuring, where the
//! client has to cost far less than what it measures.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// The longest that an answer takes.
const LIMIT: Duration = Duration::from_secs(120);

/// The longest head of an answer, or line between its chunks, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The longest body, in bytes: pages of a thousand pins fit several times.
const MAX_BODY: usize = 16 << 20;

/// What is read at a time, in bytes.
const READ: usize = 16 << 10;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The body; empty where there was none.
    pub body: Vec<u8>,
    /// Seconds after which to ask again, where that was said.
    pub retry_after: Option<u64>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
}

/// What of a head matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Length,
    closes: bool,
    retry_after: Option<u64>,
}

/// One connection to a service, as one account.
#[derive(Debug)]
pub struct Connection {
    host: String,
    token: String,
    stream: Option<TcpStream>,
    /// What was read and is not used yet.
    read: Vec<u8>,
}

impl Connection {
    /// Connects to an endpoint such as `http://127.0.0.1:8070`.
    ///
    /// # Errors
    /// When the endpoint is no `http://host:port`, or nobody listens there.
    pub async fn open(endpoint: &str, token: &str) -> Result<Self> {
        let host = endpoint.strip_prefix("http://").with_context(|| format!("{endpoint} is not http://"))?;
        let mut connection = Self {
            host: host.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            stream: None,
            read: Vec::with_capacity(READ),
        };
        connection.connect().await?;
        Ok(connection)
    }

    /// Sends what follows as another account.
    pub fn become_account(&mut self, token: &str) {
        token.clone_into(&mut self.token);
    }

    async fn connect(&mut self) -> Result<()> {
        let stream = TcpStream::connect(&self.host).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", self.host))?;
        stream.set_nodelay(true)?;
        self.read.clear();
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection ends, the answer is malformed or longer than
    /// [`MAX_BODY`], or takes longer than [`LIMIT`].
    pub async fn send(&mut self, method: &str, path: &str, body: Option<&str>) -> Result<Response> {
        if self.stream.is_none() {
            self.connect().await?;
        }
        let answer = timeout(LIMIT, self.exchange(method, path, body)).await;
        let answer = answer.with_context(|| format!("{} did not answer in {LIMIT:?}", self.host)).flatten();
        if answer.is_err() {
            // What is left of an answer must not be taken for the next one.
            self.stream = None;
        }
        answer
    }

    async fn exchange(&mut self, method: &str, path: &str, body: Option<&str>) -> Result<Response> {
        let request = self.request(method, path, body);
        self.stream()?.write_all(request.as_bytes()).await?;
        let head = parse(&self.until(b"\r\n\r\n").await?)?;
        let body = match head.length {
            Length::Bytes(length) => self.take(length).await?,
            Length::Chunked => self.chunks().await?,
        };
        if head.closes {
            self.stream = None;
        }
        Ok(Response { status: head.status, body, retry_after: head.retry_after })
    }

    fn request(&self, method: &str, path: &str, body: Option<&str>) -> String {
        let (host, token) = (&self.host, &self.token);
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n");
        match body {
            Some(body) => {
                text += &format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
            None => text += "\r\n",
        }
        text
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let size = std::str::from_utf8(&line)?.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("a chunk begins with its length")?;
            if size == 0 {
                break;
            }
            ensure!(body.len().saturating_add(size) <= MAX_BODY, "the body exceeds {MAX_BODY} bytes");
            body.extend(self.take(size).await?);
            self.until(b"\r\n").await?;
        }
        // Trailers, of which there are none as a rule, end with an empty line.
        while self.until(b"\r\n").await?.len() > 2 {}
        Ok(body)
    }

    /// Everything up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return Ok(self.read.drain(..at + end.len()).collect());
            }
            ensure!(self.read.len() <= MAX_HEAD, "the head of an answer exceeds {MAX_HEAD} bytes");
            self.more().await?;
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        ensure!(length <= MAX_BODY, "the body exceeds {MAX_BODY} bytes");
        while self.read.len() < length {
            self.more().await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn more(&mut self) -> Result<()> {
        self.read.reserve(READ);
        let stream = self.stream.as_mut().context("the connection is closed")?;
        ensure!(stream.read_buf(&mut self.read).await? > 0, "{} closed the connection", self.host);
        Ok(())
    }

    fn stream(&mut self) -> Result<&mut TcpStream> {
        self.stream.as_mut().context("the connection is closed")
    }
}

fn parse(head: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(head).context("the head of an answer is no UTF-8")?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let Some(status) = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)) else {
        bail!("an answer begins with {first:?}");
    };
    let mut head =
        Head { status: status.parse()?, length: Length::Bytes(0), closes: false, retry_after: None };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Length::Bytes(value.parse().context("a length is a number")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            ensure!(value.eq_ignore_ascii_case("chunked"), "the body is encoded as {value}");
            head.length = Length::Chunked;
        } else if name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = Some(value.parse().context("a pause is a number of seconds")?);
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request of one connection with the next of `answers`, a
    /// few bytes at a time.
    async fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut request = Vec::new();
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                for part in answer.as_bytes().chunks(7) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        endpoint
    }

    async fn check(answers: &'static [&'static str], expected: &[(u16, &str)]) {
        let mut connection = Connection::open(&server(answers).await, "token").await.unwrap();
        for (status, body) in expected {
            let answer = connection.send("GET", "/pins", None).await.unwrap();
            assert_eq!((answer.status, String::from_utf8(answer.body).unwrap().as_str()), (*status, *body));
        }
    }

    #[tokio::test]
    async fn answers_on_one_connection_are_kept_apart() {
        check(
            &[
                "HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=1\r\nwiki\r\nA\r\n0123456789\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\n",
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n",
            ],
            &[(202, "hello"), (200, "wiki0123456789"), (200, "a"), (204, ""), (404, "no\n")],
        )
        .await;
    }

    #[tokio::test]
    async fn a_broken_answer_is_an_error() {
        for answer in [
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"],
            &["HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n"],
            &["SSH-2.0-server\r\n\r\n"],
        ] {
            let mut connection = Connection::open(&server(answer).await, "token").await.unwrap();
            assert!(connection.send("GET", "/pins", None).await.is_err(), "{answer:?}");
        }
    }
}
