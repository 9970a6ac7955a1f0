//! zlib streams, one deflater and one inflater kept a thread: making either costs more than a small session does.

use std::cell::RefCell;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::SigningError;

const WINDOW_BITS: u8 = 15;
/// zlib's own default, which Django uses.
const LEVEL: i32 = 6;

thread_local! {
    static DEFLATE: RefCell<Option<Deflate>> = const { RefCell::new(None) };
    static INFLATE: RefCell<Option<Inflate>> = const { RefCell::new(None) };
}

/// `data` compressed, or `None` unless that is shorter by two bytes or more, as Django asks of it.
pub(crate) fn compress_if_shorter(data: &[u8]) -> Option<Vec<u8>> {
    let mut output = vec![0; data.len().checked_sub(2)?];
    DEFLATE.with_borrow_mut(|kept| {
        let deflate = kept.get_or_insert_with(|| Deflate::new(LEVEL, true, WINDOW_BITS));
        deflate.reset();
        match deflate.compress(data, &mut output, DeflateFlush::Finish) {
            Ok(Status::StreamEnd) => output.truncate(deflate.total_out() as usize),
            _ => return None,
        }
        Some(output)
    })
}

/// The content of the zlib stream at the start of `data`; what follows the stream is ignored, as CPython does.
pub(crate) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, SigningError> {
    INFLATE.with_borrow_mut(|kept| {
        let inflate = kept.get_or_insert_with(|| Inflate::new(true, WINDOW_BITS));
        inflate.reset(true);
        let mut output = vec![0; (data.len() * 4).clamp(256, max_size.saturating_add(1).max(256))];
        loop {
            let (read, written) = (inflate.total_in() as usize, inflate.total_out() as usize);
            let status = inflate
                .decompress(&data[read..], &mut output[written..], InflateFlush::NoFlush)
                .map_err(|error| SigningError::Inflate(error.as_str()))?;
            let (now_read, now_written) = (inflate.total_in() as usize, inflate.total_out() as usize);
            if now_written > max_size {
                return Err(SigningError::TooLarge { max_size });
            }
            if status == Status::StreamEnd {
                output.truncate(now_written);
                return Ok(output);
            }
            if now_written == output.len() {
                let larger = (output.len() * 2).min(max_size.saturating_add(1)).max(output.len() + 1);
                output.resize(larger, 0);
            } else if (now_read, now_written) == (read, written) || now_read == data.len() {
                return Err(SigningError::Inflate("incomplete or truncated stream"));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_size() {
        for size in [0, 1, 2, 3, 50, 5_000, 1_000_000] {
            let data: Vec<u8> = (0..size).map(|i| b"abcabcd"[i % 7]).collect();
            match compress_if_shorter(&data) {
                Some(stream) => assert_eq!(decompress(&stream, size).unwrap(), data),
                None => assert!(size < 20, "{size} bytes of a pattern compress"),
            }
        }
    }

    #[test]
    fn the_cap_is_exact() {
        let stream = compress_if_shorter(&[7; 100_000]).unwrap();
        assert_eq!(decompress(&stream, 100_000).unwrap().len(), 100_000);
        assert!(matches!(decompress(&stream, 99_999), Err(SigningError::TooLarge { max_size: 99_999 })));
        assert!(matches!(decompress(&stream, 0), Err(SigningError::TooLarge { max_size: 0 })));
    }

    #[test]
    fn every_cut_is_an_error_and_garbage_behind_is_not() {
        let mut stream = compress_if_shorter(&b"session ".repeat(40)).unwrap();
        for end in 0..stream.len() {
            assert!(
                matches!(decompress(&stream[..end], 10_000), Err(SigningError::Inflate(_))),
                "cut at {end}"
            );
        }
        stream.extend(b"garbage");
        assert_eq!(decompress(&stream, 10_000).unwrap().len(), 320);
    }
}
