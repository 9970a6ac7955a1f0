//! zlib streams, by libdeflate: half the time of zlib and zlib-rs for what a session measures, and [`small`] ones.
//! Compressors and buffers are kept, one set a thread, since making them costs more than a small session does.

use std::cell::RefCell;

use libdeflater::{CompressionLvl, Compressor, Decompressor};
use zlib_rs::{Inflate, InflateFlush, Status};

use super::SigningError;

mod small;

const WINDOW_BITS: u8 = 15;

/// Up to so many bytes libdeflate's first level comes within a tenth of the length that zlib's default level reaches,
/// which Django uses, in two thirds of the time of the next ones. Above, [`LEVEL_OF_LARGE`] comes within a twentieth.
const MEDIUM: usize = 2048;
const LEVEL_OF_MEDIUM: i32 = 1;
const LEVEL_OF_LARGE: i32 = 5;

/// What inflates to this or less takes one step and no buffer of unknown size.
const KEPT: usize = 64 << 10;

thread_local! {
    static MEDIUM_COMPRESSOR: RefCell<Compressor> = RefCell::new(compressor(LEVEL_OF_MEDIUM));
    static LARGE_COMPRESSOR: RefCell<Compressor> = RefCell::new(compressor(LEVEL_OF_LARGE));
    static DECOMPRESSOR: RefCell<(Decompressor, Box<[u8]>)> =
        RefCell::new((Decompressor::new(), vec![0; KEPT].into()));
    static INFLATE: RefCell<Option<Inflate>> = const { RefCell::new(None) };
}

fn compressor(level: i32) -> Compressor {
    Compressor::new(CompressionLvl::new(level).expect("libdeflate has levels 0 to 12"))
}

/// `data` compressed, if that takes `room` bytes or fewer.
fn compress_within(data: &[u8], room: usize) -> Option<Vec<u8>> {
    let kept = match data.len() {
        0..=small::MOST => return Some(small::compress(data)).filter(|stream| stream.len() <= room),
        len if len <= MEDIUM => &MEDIUM_COMPRESSOR,
        _ => &LARGE_COMPRESSOR,
    };
    kept.with_borrow_mut(|compressor| {
        let mut output = vec![0; room.min(compressor.zlib_compress_bound(data.len()))];
        let len = compressor.zlib_compress(data, &mut output).ok()?;
        output.truncate(len);
        Some(output)
    })
}

/// `data` compressed, or `None` unless that is shorter by two bytes or more, as Django asks of it.
pub(crate) fn compress_if_shorter(data: &[u8]) -> Option<Vec<u8>> {
    compress_within(data, data.len().checked_sub(2)?)
}

/// `data` compressed as `zlib.compress` does.
#[cfg(any(feature = "filebased", feature = "memcached"))]
pub(crate) fn compress(data: &[u8]) -> Vec<u8> {
    compress_within(data, usize::MAX).expect("there is room")
}

/// The content of the zlib stream at the start of `data`; what follows the stream is ignored, as CPython does.
pub(crate) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, SigningError> {
    let whole = DECOMPRESSOR.with_borrow_mut(|(decompressor, kept)| {
        let len = decompressor.zlib_decompress(data, kept).ok()?;
        (len <= max_size).then(|| kept[..len].to_vec())
    });
    match whole {
        Some(content) => Ok(content),
        None => decompress_in_steps(data, max_size),
    }
}

/// The same for streams of any length, and for those that are wrong: in zlib's words.
fn decompress_in_steps(data: &[u8], max_size: usize) -> Result<Vec<u8>, SigningError> {
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
        for size in [0, 1, 2, 3, 30, small::MOST, small::MOST + 1, MEDIUM, MEDIUM + 1, 50_000, 1_000_000] {
            let data: Vec<u8> = (0..size).map(|i| b"abcabcd"[i % 7]).collect();
            match compress_if_shorter(&data) {
                Some(stream) => assert_eq!(decompress(&stream, size).unwrap(), data),
                None => assert!(size < 20, "{size} bytes of a pattern compress"),
            }
        }
    }

    /// A cart: repetitive as sessions are, but for some digits.
    fn cart(items: usize) -> Vec<u8> {
        let mut state = 1u64;
        let item = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (sku, price) = (state >> 44, state >> 20 & 0xfff);
            format!(r#"{{"sku":"SKU-{sku:07}","title":"linen cloth","price":{price},"gift":false}}"#)
        };
        let items: Vec<_> = (0..items).map(item).collect();
        format!(r#"{{"_auth_user_id":"1","cart":[{}]}}"#, items.join(",")).into_bytes()
    }

    /// What zlib takes at the level that Django uses.
    pub(super) fn zlib_length(data: &[u8]) -> usize {
        let mut zlib = vec![0; data.len()];
        let mut deflate = zlib_rs::Deflate::new(6, true, WINDOW_BITS);
        deflate.compress(data, &mut zlib, zlib_rs::DeflateFlush::Finish).unwrap();
        deflate.total_out() as usize
    }

    #[test]
    fn about_as_short_as_zlib_of_the_default_level() {
        for data in [3, 5, 10, 20, 26, 27, 28, 40, 60, 100, 300, 1000].map(cart) {
            let (ours, zlib) = (compress_if_shorter(&data).unwrap().len(), zlib_length(&data));
            assert!(ours * 10 <= zlib * 11, "{} bytes: {ours}, zlib {zlib}", data.len());
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
