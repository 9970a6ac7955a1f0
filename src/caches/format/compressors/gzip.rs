//! gzip members, as `gzip.compress` and `gzip.decompress` of Python: several in a row are read as one, and zeros
//! behind a member are skipped.

use std::cell::RefCell;

use zlib_rs::crc32::crc32;
use zlib_rs::{Inflate, InflateFlush, Status};

use super::{Failure, broken, zlib};

const WINDOW_BITS: u8 = 15;
/// zlib's way to ask for a gzip header and trailer.
const GZIP: u8 = 16;

const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

pub(super) fn compress(data: &[u8], level: i32) -> Result<Vec<u8>, &'static str> {
    zlib::deflate(data, level, GZIP + WINDOW_BITS)
}

pub(super) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, Failure> {
    let mut output = Vec::new();
    let mut rest = member(data, &mut output, max_size)?;
    loop {
        let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(output);
        }
        rest = member(rest, &mut output, max_size)?;
    }
}

/// Appends the content of the member at the start of `data`. Returns what follows it.
fn member<'a>(data: &'a [u8], output: &mut Vec<u8>, max_size: usize) -> Result<&'a [u8], Failure> {
    let deflated = header(data).ok_or_else(|| broken("not a gzip header"))?;
    let start = output.len();
    let read = inflate(deflated, output, max_size)?;
    let trailer = &deflated[read..];
    let Some((&[a, b, c, d, e, f, g, h], rest)) = trailer.split_first_chunk::<8>() else {
        return Err(broken("incomplete or truncated stream"));
    };
    let content = &output[start..];
    if u32::from_le_bytes([a, b, c, d]) != crc32(0, content) {
        return Err(broken("incorrect data check"));
    }
    if u32::from_le_bytes([e, f, g, h]) != content.len() as u32 {
        return Err(broken("incorrect length check"));
    }
    Ok(rest)
}

/// What follows the header.
fn header(data: &[u8]) -> Option<&[u8]> {
    let (head, mut rest) = data.split_first_chunk::<10>()?;
    let &[0x1f, 0x8b, 8, flags, ..] = head else { return None };
    if flags & EXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(u16::from_le_bytes(*length).into()..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = &rest[rest.iter().position(|&byte| byte == 0)? + 1..];
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// Appends what the deflate stream at the start of `data` holds. Returns how many bytes of `data` that took.
fn inflate(data: &[u8], output: &mut Vec<u8>, max_size: usize) -> Result<usize, Failure> {
    thread_local!(static INFLATE: RefCell<Option<Inflate>> = const { RefCell::new(None) });

    INFLATE.with_borrow_mut(|kept| {
        let inflate = kept.get_or_insert_with(|| Inflate::new(false, WINDOW_BITS));
        inflate.reset(false);
        let start = output.len();
        // One byte more than allowed, so that too much shows.
        let limit = max_size.saturating_add(1);
        output.resize((start + (data.len() * 4).max(256)).min(limit), 0);
        loop {
            let (read, written) = (inflate.total_in() as usize, start + inflate.total_out() as usize);
            let status = inflate
                .decompress(&data[read..], &mut output[written..], InflateFlush::NoFlush)
                .map_err(|error| broken(error.as_str()))?;
            let (now_read, now_written) = (inflate.total_in() as usize, start + inflate.total_out() as usize);
            if now_written > max_size {
                return Err(Failure::TooLarge);
            }
            if status == Status::StreamEnd {
                output.truncate(now_written);
                return Ok(now_read);
            }
            if now_written == output.len() {
                output.resize((output.len() * 2).clamp(output.len() + 1, limit.max(output.len() + 1)), 0);
            } else if now_read == data.len() || (now_read, now_written) == (read, written) {
                return Err(broken("incomplete or truncated stream"));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_zeros_behind_each_other() {
        let mut stream = compress(b"ses", 9).unwrap();
        stream.extend([0; 5]);
        stream.extend(compress(b"sion", 1).unwrap());
        stream.extend([0; 3]);
        assert_eq!(decompress(&stream, 7).unwrap(), b"session");
        assert!(matches!(decompress(&stream, 6), Err(Failure::TooLarge)), "the cap is for all of them");
        stream.push(1);
        assert!(matches!(decompress(&stream, 7), Err(Failure::Broken(_))), "garbage behind");
    }

    #[test]
    fn optional_header_fields() {
        let plain = compress(b"session", 9).unwrap();
        let mut full = plain[..3].to_vec();
        full.push(HEADER_CRC | EXTRA | NAME | COMMENT);
        full.extend(&plain[4..10]);
        full.extend(b"\x03\0abcname\0comment\0\x12\x34");
        full.extend(&plain[10..]);
        assert_eq!(decompress(&full, 7).unwrap(), b"session");
        for end in 0..full.len() {
            assert!(matches!(decompress(&full[..end], 7), Err(Failure::Broken(_))), "cut at {end}");
        }
    }
}
