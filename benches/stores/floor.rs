//! What no client goes without that keeps to Django's formats, and makes no value of it: beside the bare call this is the floor.
//!
//! Signed text: its MAC, base64, and the zlib stream within, with the library and the levels of this crate. Pickles: a look
//! at each opcode, and for a cache in a database or in files base64 and the zlib stream around it.

use std::cell::RefCell;
use std::hint::black_box;

use base64::Engine;
use base64::engine::Simd;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use sha2::Sha256;

/// Reads what is stored, and writes content as it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) read: fn(&[u8]),
    /// What of the stored bytes is to be written.
    pub(crate) content: fn(&[u8]) -> Vec<u8>,
    pub(crate) write: fn(&[u8]),
}

pub(crate) const SIGNED_TEXT: Floor =
    Floor { read: |text| drop(black_box(unsigned(text))), content: unsigned, write: sign };

pub(crate) const PICKLE: Floor =
    Floor { read: |pickle| _ = black_box(walk(pickle)), content: <[u8]>::to_vec, write: |_| {} };

/// After a pickled moment, which is the first thing in a file of the cache.
pub(crate) const ZLIB: Floor = Floor {
    read: |file| _ = black_box(walk(&inflate(&file[walk(file)..]))),
    content: |file| inflate(&file[walk(file)..]),
    write: |pickle| drop(black_box(deflate(pickle))),
};

pub(crate) const BASE64: Floor = Floor {
    read: |text| _ = black_box(walk(&from_base64(text))),
    content: from_base64,
    write: |pickle| drop(black_box(STANDARD.encode(pickle))),
};

thread_local! {
    static INFLATE: RefCell<(Decompressor, Vec<u8>)> = RefCell::new((Decompressor::new(), vec![0; 1 << 17]));
    static DEFLATE: RefCell<([Compressor; 2], Vec<u8>)> =
        RefCell::new(([1, 5].map(|level| Compressor::new(CompressionLvl::new(level).expect("a level"))), vec![0; 1 << 17]));
}

fn inflate(stream: &[u8]) -> Vec<u8> {
    INFLATE.with_borrow_mut(|(decompressor, buffer)| {
        let len = decompressor.zlib_decompress(stream, buffer).expect("a zlib stream");
        buffer[..len].to_vec()
    })
}

/// At the level at which this crate's text is about as long as Django's. For a login the crate itself is quicker than the
/// library: it counts as nothing.
fn deflate(content: &[u8]) -> Vec<u8> {
    if content.len() <= 192 {
        return content.to_vec();
    }
    DEFLATE.with_borrow_mut(|([fast, good], buffer)| {
        let compressor = if content.len() <= 2048 { fast } else { good };
        let len = compressor.zlib_compress(content, buffer).expect("there is room");
        buffer[..len].to_vec()
    })
}

fn from_base64(text: &[u8]) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

fn mac(text: &[u8]) -> [u8; 32] {
    thread_local!(static KEYED: Hmac<Sha256> = Hmac::new_from_slice(&[7; 32]).expect("any length will do"));
    let mut keyed = KEYED.with(Hmac::clone);
    keyed.update(text);
    keyed.finalize().into_bytes().into()
}

/// The content of a signed text, after its MAC was made.
fn unsigned(text: &[u8]) -> Vec<u8> {
    let end = text.iter().rposition(|byte| *byte == b':').expect("a signature");
    black_box(mac(&text[..end]));
    let payload = text.split(|byte| *byte == b':').next().expect("a payload");
    let base64 = Simd::url_safe(NO_PAD);
    match payload.strip_prefix(b".") {
        Some(payload) => inflate(&base64.decode(payload).expect("base64")),
        None => base64.decode(payload).expect("base64"),
    }
}

fn sign(content: &[u8]) {
    let text = Simd::url_safe(NO_PAD).encode(deflate(content));
    black_box(mac(text.as_bytes()));
}

/// Looks at each opcode that Rust and Python write for plain data. Returns where the pickle ends.
fn walk(pickle: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let length = |width: usize| {
            let bytes = pickle[at + 1..][..width].iter().rev();
            1 + width + bytes.fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        at += match pickle[at] {
            b'.' => return at + 1,
            b'K' | b'h' | b'q' | 0x80 => 2,
            b'M' => 3,
            b'J' | b'j' | b'r' => 5,
            b'G' | 0x95 => 9,
            b'C' | 0x8a | 0x8c => length(1),
            b'B' | b'X' => length(4),
            _ => 1,
        }
    }
}
