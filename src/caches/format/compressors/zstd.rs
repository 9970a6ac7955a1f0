//! Zstandard frames, as `pyzstd.compress` and `decompress`: several in a row are read as one.

use std::cell::RefCell;
use std::io;

use zstd::bulk;
use zstd::stream::read::Decoder;

use super::{Failure, broken, read_within};

pub(super) fn compress(data: &[u8], level: i32) -> Result<Vec<u8>, io::Error> {
    thread_local!(static KEPT: RefCell<Option<(i32, bulk::Compressor<'static>)>> = const { RefCell::new(None) });

    KEPT.with_borrow_mut(|kept| {
        let kept = match kept {
            Some(kept) if kept.0 == level => kept,
            _ => kept.insert((level, bulk::Compressor::new(level)?)),
        };
        kept.1.compress(data)
    })
}

pub(super) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, Failure> {
    thread_local!(static KEPT: RefCell<Option<bulk::Decompressor<'static>>> = const { RefCell::new(None) });

    match bulk::Decompressor::upper_bound(data) {
        Some(size) if size > max_size => Err(Failure::TooLarge),
        // The frames say how large they are: one call, with a context that is kept.
        Some(size) => KEPT.with_borrow_mut(|kept| {
            let kept = match kept {
                Some(kept) => kept,
                None => kept.insert(bulk::Decompressor::new().map_err(|error| broken(error.to_string()))?),
            };
            kept.decompress(data, size).map_err(|error| broken(error.to_string()))
        }),
        None => {
            let decoder = Decoder::with_buffer(data).map_err(|error| broken(error.to_string()))?;
            read_within(decoder, max_size, data.len() * 3)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Streams say nothing of the size of what is in them.
    fn streamed(data: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn frames_of_unknown_size() {
        let stream = streamed(&[0; 100_000]);
        assert_eq!(bulk::Decompressor::upper_bound(&stream), None);
        assert_eq!(decompress(&stream, 100_000).unwrap().len(), 100_000);
        assert!(matches!(decompress(&stream, 99_999), Err(Failure::TooLarge)));
        for end in 1..stream.len() {
            assert!(matches!(decompress(&stream[..end], 100_000), Err(Failure::Broken(_))), "cut at {end}");
        }
    }

    #[test]
    fn frames_behind_each_other() {
        let mut stream = compress(b"ses", 3).unwrap();
        stream.extend(streamed(b"sion"));
        assert_eq!(decompress(&stream, 7).unwrap(), b"session");
        assert!(matches!(decompress(&stream, 6), Err(Failure::TooLarge)));
        stream.push(0);
        assert!(matches!(decompress(&stream, 7), Err(Failure::Broken(_))), "garbage behind");
    }
}
