//! LZ4 frames, as `lz4.frame.compress` and `decompress` of python-lz4: one frame, what follows it is ignored.

use std::cell::Cell;
use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Failure, broken, read_within};

pub(super) fn compress(data: &[u8]) -> Result<Vec<u8>, io::Error> {
    // As python-lz4 writes them: blocks that refer to each other, and the size of the content.
    let info = FrameInfo::new().block_mode(BlockMode::Linked).content_size(Some(data.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(data.len() / 2 + 64));
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

pub(super) fn decompress(data: &[u8], max_size: usize) -> Result<Vec<u8>, Failure> {
    let ran_out = Cell::new(false);
    let input = Input { rest: data, ran_out: &ran_out };
    let output = read_within(FrameDecoder::new(input), max_size, data.len() * 3)?;
    // lz4_flex takes the end of its input for the end of the frame.
    if ran_out.get() {
        return Err(broken("incomplete or truncated frame"));
    }
    Ok(output)
}

/// Bytes, and whether more of them were wanted.
struct Input<'a> {
    rest: &'a [u8],
    ran_out: &'a Cell<bool>,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !buffer.is_empty() {
            self.ran_out.set(true);
        }
        self.rest.read(buffer)
    }
}
