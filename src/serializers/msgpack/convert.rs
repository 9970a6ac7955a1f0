//! MessagePack to JSON and back.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::scan::{Scanner, Start};
use super::{Error, Key};
use crate::serializers::json::{self, RawValue};

/// JSON of one value, without recursion: what was let in nests up to [`MAX_DEPTH`](super::MAX_DEPTH).
pub(super) fn to_json(bytes: &[u8]) -> Result<RawValue, Error> {
    let mut scanner = Scanner::new(bytes);
    let mut output = Vec::with_capacity(bytes.len() * 2);
    // For each array and map that is open: how many values are to come, and the bracket that ends it.
    let mut open: Vec<(u32, u8)> = Vec::new();
    loop {
        match scanner.start()? {
            Start::Nil => output.extend(b"null"),
            Start::Bool(value) => write(&mut output, &value)?,
            Start::Unsigned(value) => write(&mut output, &value)?,
            Start::Signed(value) => write(&mut output, &value)?,
            Start::Float(value) => write(&mut output, &value)?,
            Start::Text(value) => write(&mut output, value)?,
            Start::Bytes(_) => return Err(Error::NoJson { what: "bytes" }),
            Start::Extension => return Err(Error::NoJson { what: "an extension or a timestamp" }),
            Start::Array(items) => {
                output.push(b'[');
                open.push((items, b']'));
            }
            Start::Map(entries) => {
                output.push(b'{');
                open.push((entries, b'}'));
            }
        }
        loop {
            let Some((left, bracket)) = open.last_mut() else {
                return Ok(RawValue::from_text(output)?);
            };
            if *left == 0 {
                output.push(*bracket);
                open.pop();
                continue;
            }
            *left -= 1;
            if !matches!(output.last(), Some(b'[' | b'{')) {
                output.push(b',');
            }
            if *bracket == b'}' {
                match scanner.key()? {
                    Key::Text(key) => write(&mut output, key)?,
                    Key::Bytes(_) => return Err(Error::NoJson { what: "a key that is bytes" }),
                }
                output.push(b':');
            }
            break;
        }
    }
}

fn write<T: serde::Serialize + ?Sized>(output: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    output.extend(json::to_vec(value)?);
    Ok(())
}

/// A value in MessagePack, made from what a deserializer of JSON tells.
pub(super) struct Packed(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Packer)
    }
}

struct Packer;

/// How an integer that is too wide gets through serde.
pub(super) const BEYOND_64_BITS: &str = "an integer beyond 64 bits";

impl<'de> Visitor<'de> for Packer {
    type Value = Packed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that MessagePack has, with integers of 64 bits")
    }

    fn visit_unit<E>(self) -> Result<Packed, E> {
        Ok(Packed(vec![0xc0]))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Packed, E> {
        Ok(Packed(vec![0xc2 | u8::from(value)]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Packed, E> {
        Ok(Packed(match value {
            0.. => pack_unsigned(value.unsigned_abs()),
            -32..0 => vec![value as u8],
            -0x80..-32 => vec![0xd0, value as u8],
            -0x8000..-0x80 => [&[0xd1][..], &(value as i16).to_be_bytes()].concat(),
            -0x8000_0000..-0x8000 => [&[0xd2][..], &(value as i32).to_be_bytes()].concat(),
            _ => [&[0xd3][..], &value.to_be_bytes()].concat(),
        }))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Packed, E> {
        Ok(Packed(pack_unsigned(value)))
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Packed, E> {
        Err(E::custom(BEYOND_64_BITS))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Packed, E> {
        Err(E::custom(BEYOND_64_BITS))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Packed, E> {
        Ok(Packed([&[0xcb][..], &value.to_be_bytes()].concat()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Packed, E> {
        let mut output = Vec::with_capacity(value.len() + 5);
        write_text(&mut output, value);
        Ok(Packed(output))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Packed, A::Error> {
        let (mut count, mut content) = (0, Vec::new());
        while let Some(Packed(item)) = items.next_element()? {
            count += 1;
            content.extend(item);
        }
        let mut output = Vec::with_capacity(content.len() + 5);
        write_header(&mut output, 0x90, 0xdc, count);
        output.extend(content);
        Ok(Packed(output))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Packed, A::Error> {
        // Of equal keys the last one wins, at the first one's place, as in Python.
        let mut content = indexmap::IndexMap::<String, Vec<u8>>::new();
        while let Some((key, Packed(value))) = entries.next_entry()? {
            content.insert(key, value);
        }
        let mut output = Vec::new();
        write_map_header(&mut output, content.len());
        for (key, value) in content {
            write_text(&mut output, &key);
            output.extend(value);
        }
        Ok(Packed(output))
    }
}

/// The shortest form, as msgpack-python writes it.
fn pack_unsigned(value: u64) -> Vec<u8> {
    match value {
        0..0x80 => vec![value as u8],
        0x80..0x100 => vec![0xcc, value as u8],
        0x100..0x1_0000 => [&[0xcd][..], &(value as u16).to_be_bytes()].concat(),
        0x1_0000..0x1_0000_0000 => [&[0xce][..], &(value as u32).to_be_bytes()].concat(),
        _ => [&[0xcf][..], &value.to_be_bytes()].concat(),
    }
}

pub(crate) fn write_text(output: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..32 => output.push(0xa0 | length as u8),
        length @ 32..256 => output.extend([0xd9, length as u8]),
        length => write_length(output, 0xda, length),
    }
    output.extend(text.as_bytes());
}

pub(crate) fn write_map_header(output: &mut Vec<u8>, entries: usize) {
    write_header(output, 0x80, 0xde, entries);
}

fn write_header(output: &mut Vec<u8>, short: u8, long: u8, count: usize) {
    match count {
        0..16 => output.push(short | count as u8),
        _ => write_length(output, long, count),
    }
}

/// `code` and two bytes, or the code after it and four. Sessions stay far below what four bytes can tell.
fn write_length(output: &mut Vec<u8>, code: u8, length: usize) {
    if let Ok(length) = u16::try_from(length) {
        output.push(code);
        output.extend(length.to_be_bytes());
    } else {
        output.push(code + 1);
        output.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}
