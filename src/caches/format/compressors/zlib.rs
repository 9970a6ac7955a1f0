//! zlib streams, as `zlib.compress` and `zlib.decompress` of Python.

use zlib_rs::{DeflateError, DeflateFlush, Status};

use super::{Failure, broken};
use crate::signing::{SigningError, zlib};

const WINDOW_BITS: u8 = 15;

pub(super) fn compress(data: &[u8], level: i32) -> Result<Vec<u8>, &'static str> {
    deflate(data, level, WINDOW_BITS)
}

/// One deflater a thread and kind is kept: making one costs more than a small session does.
pub(super) fn deflate(data: &[u8], level: i32, window_bits: u8) -> Result<Vec<u8>, &'static str> {
    use std::cell::RefCell;
    type Kept = (i32, u8, zlib_rs::Deflate);
    thread_local!(static DEFLATE: RefCell<Option<Kept>> = const { RefCell::new(None) });

    DEFLATE.with_borrow_mut(|kept| {
        let kept = match kept {
            Some(kept) if (kept.0, kept.1) == (level, window_bits) => kept,
            _ => kept.insert((level, window_bits, zlib_rs::Deflate::new(level, true, window_bits))),
        };
        let deflate = &mut kept.2;
        deflate.reset();
        let mut output = vec![0; data.len() / 2 + 64];
        loop {
            let (read, written) = (deflate.total_in() as usize, deflate.total_out() as usize);
            let status = deflate
                .compress(&data[read..], &mut output[written..], DeflateFlush::Finish)
                .map_err(DeflateError::as_str)?;
            if status == Status::StreamEnd {
                output.truncate(deflate.total_out() as usize);
                return Ok(output);
            }
            output.resize(output.len() * 2, 0);
        }
    })
}

pub(super) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, Failure> {
    zlib::decompress(data, max_size).map_err(|error| match error {
        SigningError::TooLarge { .. } => Failure::TooLarge,
        SigningError::Inflate(why) => broken(why),
        _ => broken("not a zlib stream"),
    })
}
