//! A browser over TCP that may send anything, and hang up at any time.

use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    body: Vec<u8>,
}

/// What the handler of forms says of a body.
pub(crate) fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut cookies = headers.filter(|(found, _)| found.eq_ignore_ascii_case("set-cookie"));
        cookies.find_map(|(_, cookie)| {
            let value = cookie.strip_prefix(name)?.strip_prefix('=')?.split(';').next()?;
            Some(value.to_owned())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn get(&mut self, path: &str, head: &str) -> Reply {
        self.ask("GET", path, head, b"").await
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, head: &str, body: &[u8]) -> Reply {
        self.send(method, path, head, body).await;
        self.reply_to(method).await.expect("the server answers")
    }

    /// The same with a body of no known length, in pieces of all sizes.
    pub(crate) async fn ask_in_pieces(&mut self, method: &str, path: &str, head: &str, body: &[u8]) -> Reply {
        let start = format!(
            "{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{head}Transfer-Encoding: chunked\r\n\r\n"
        );
        self.write(start.as_bytes()).await;
        let (mut rest, mut size) = (body, 1);
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(size.min(rest.len()));
            self.write(format!("{:x}\r\n", piece.len()).as_bytes()).await;
            self.write(piece).await;
            self.write(b"\r\n").await;
            (rest, size) = (others, size * 3);
        }
        self.write(b"0\r\n\r\n").await;
        self.reply_to(method).await.expect("the server answers")
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, head: &str, body: &[u8]) {
        let length = match body.len() {
            0 if method != "POST" => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let start = format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{head}{length}\r\n");
        self.write(&[start.as_bytes(), body].concat()).await;
    }

    /// A server may have answered, and closed, before it has read all.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _closed_by_the_server = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "the server closed");
        }
        self.read.drain(..count).collect()
    }

    pub(crate) async fn try_reply(&mut self) -> Option<Reply> {
        self.reply_to("GET").await
    }

    /// With or without a word: as a reset, or as the end of what is sent.
    pub(crate) fn hang_up(self, with_reset: bool) {
        if with_reset {
            self.stream.set_zero_linger().unwrap();
        }
    }

    async fn reply_to(&mut self, method: &str) -> Option<Reply> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut reply = Reply { status, head, body: Vec::new() };
        let has_body = method != "HEAD" && !matches!(status, 101 | 204);
        if has_body && reply.header("transfer-encoding").is_some() {
            while let Some(length) = self.chunk_length().await.filter(|length| *length > 0) {
                reply.body.extend(self.read(length).await);
                self.read(2).await;
            }
            self.read(2).await;
        } else if has_body {
            let length = reply.header("content-length")?.parse().ok()?;
            reply.body = self.read(length).await;
        }
        Some(reply)
    }

    async fn chunk_length(&mut self) -> Option<usize> {
        let end = loop {
            match self.read.windows(2).position(|window| window == b"\r\n") {
                Some(end) => break end,
                None => assert!(self.more().await, "the server closed within a body"),
            }
        };
        let line: Vec<u8> = self.read.drain(..end + 2).collect();
        usize::from_str_radix(std::str::from_utf8(&line[..end]).ok()?, 16).ok()
    }

    async fn more(&mut self) -> bool {
        let reading = timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.read));
        reading.await.expect("the server answers or closes").is_ok_and(|count| count > 0)
    }
}
