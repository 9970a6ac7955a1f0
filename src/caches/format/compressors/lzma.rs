//! `.xz` streams, as `lzma.compress` and `lzma.decompress` of Python, which reads the older `.lzma` too: several in a
//! row are read as one, and what follows them is ignored.

use liblzma::stream::{Action, Check, Error, Status, Stream};

use super::{Failure, broken};

/// Enough for level 9, whose dictionary has 64 MiB. Python has no limit here.
const MAX_MEMORY: u64 = 100 << 20;

pub(super) fn compress(data: &[u8], level: i32) -> Result<Vec<u8>, Error> {
    let mut encoder = Stream::new_easy_encoder(level.unsigned_abs(), Check::Crc64)?;
    let mut output = Vec::with_capacity(data.len() / 2 + 128);
    loop {
        let read = encoder.total_in() as usize;
        if encoder.process_vec(&data[read..], &mut output, Action::Finish)? == Status::StreamEnd {
            return Ok(output);
        }
        output.reserve(output.capacity());
    }
}

pub(super) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, Failure> {
    let mut output = Vec::new();
    let mut rest = stream(data, &mut output, max_size)?;
    while !rest.is_empty() {
        let whole = output.len();
        rest = match stream(rest, &mut output, max_size) {
            Ok(rest) => rest,
            Err(Failure::Broken(why)) if why == INCOMPLETE => return Err(Failure::Broken(why)),
            Err(Failure::Broken(_)) => {
                output.truncate(whole);
                break;
            }
            Err(Failure::TooLarge) => return Err(Failure::TooLarge),
        };
    }
    Ok(output)
}

const INCOMPLETE: &str = "compressed data ended before the end-of-stream marker was reached";

/// Appends the content of the stream at the start of `data`. Returns what follows it.
fn stream<'a>(data: &'a [u8], output: &mut Vec<u8>, max_size: usize) -> Result<&'a [u8], Failure> {
    let mut decoder = Stream::new_auto_decoder(MAX_MEMORY, 0).map_err(|error| broken(error.to_string()))?;
    // One byte more than allowed, so that too much shows.
    let limit = max_size.saturating_add(1);
    loop {
        if output.len() == output.capacity() {
            let more = output.len().max(data.len() * 3).max(256);
            output.reserve_exact(more.min(limit.saturating_sub(output.len())).max(1));
        }
        let (read, length) = (decoder.total_in() as usize, output.len());
        let status = decoder
            .process_vec(&data[read..], output, Action::Run)
            .map_err(|error| broken(error.to_string()))?;
        if output.len() > max_size {
            return Err(Failure::TooLarge);
        }
        let now_read = decoder.total_in() as usize;
        match status {
            Status::StreamEnd => return Ok(&data[now_read..]),
            _ if output.len() == output.capacity() => {}
            _ if now_read == data.len() || (now_read, output.len()) == (read, length) => {
                return Err(broken(INCOMPLETE));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_behind_each_other_and_garbage() {
        let mut data = compress(b"ses", 4).unwrap();
        data.extend(compress(b"sion", 0).unwrap());
        assert_eq!(decompress(&data, 7).unwrap(), b"session");
        assert!(matches!(decompress(&data, 6), Err(Failure::TooLarge)));
        data.extend(b"garbage, and enough of it");
        assert_eq!(decompress(&data, 7).unwrap(), b"session");
    }

    /// 1.5 GiB of dictionary: liblzma would ask the system for all of it at once.
    #[test]
    fn a_dictionary_beyond_the_limit_is_refused() {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(options.dict_size(1 << 20));
        let mut encoder = Stream::new_stream_encoder(&filters, Check::None).unwrap();
        let mut stream = Vec::with_capacity(1000);
        encoder.process_vec(b"session", &mut stream, Action::Finish).unwrap();
        assert_eq!(decompress(&stream, 7).unwrap(), b"session");

        // The block header: size, flags, filter id 0x21, one byte of properties, the dictionary's size; a CRC at its end.
        assert_eq!(stream[14..16], [0x21, 1]);
        stream[16] = 39;
        let crc = zlib_rs::crc32::crc32(0, &stream[12..20]);
        stream[20..24].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decompress(&stream, 7), Err(Failure::Broken(why)) if why.contains("memory")));
    }
}
