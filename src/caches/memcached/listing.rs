//! `lru_crawler metadump hash`: the keys that a memcached has.
//!
//! The client has `metadump all`, which walks the lists of recent use and misses what is moved in them meanwhile.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time;

use super::within;
use crate::caches::{CacheError, TimeLimits};

const COMMAND: &[u8] = b"lru_crawler metadump hash\r\n";

/// A memcached also looks through its memory for itself, and then does not list it.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// A key has 250 bytes at most, each of them three when it is quoted.
const MAX_LINE: u64 = 2048;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Those that are text, on a connection of its own.
pub(super) async fn keys(address: &str, limits: TimeLimits) -> Result<Vec<String>, CacheError> {
    for _ in 0..TRIES {
        let stream = within(limits.connect, async { Ok(connect(address).await?) }).await?;
        if let Some(keys) = read(BufReader::new(stream), limits.response).await? {
            return Ok(keys);
        }
        time::sleep(PAUSE).await;
    }
    Err(CacheError::Unlisted("memcached was busy with its own lists all the time: try again later"))
}

async fn connect(address: &str) -> Result<Box<dyn Stream>, Error> {
    #[cfg(unix)]
    if let Some(path) = address.strip_prefix("unix://") {
        return Ok(Box::new(tokio::net::UnixStream::connect(path).await?));
    }
    Ok(Box::new(TcpStream::connect(address.trim_start_matches("tcp://")).await?))
}

/// `None` if the server is busy.
async fn read(
    mut stream: BufReader<Box<dyn Stream>>,
    limit: Duration,
) -> Result<Option<Vec<String>>, CacheError> {
    within(limit, async { Ok(stream.write_all(COMMAND).await?) }).await?;
    let mut keys = Vec::new();
    loop {
        let mut line = String::new();
        within(limit, async { Ok((&mut stream).take(MAX_LINE).read_line(&mut line).await?) }).await?;
        if let Some(key) = line.strip_prefix("key=") {
            let key = key.split(' ').next().unwrap_or_default();
            keys.extend(percent_decode_str(key).decode_utf8().map(String::from));
        } else if line.starts_with("END") {
            return Ok(Some(keys));
        } else if line.starts_with("BUSY") {
            return Ok(None);
        } else if line.is_empty() {
            return Err(async_memcached::Error::from(Error::from(ErrorKind::UnexpectedEof)).into());
        } else {
            return Err(CacheError::Unlisted("this memcached does not know `lru_crawler metadump hash`"));
        }
    }
}
