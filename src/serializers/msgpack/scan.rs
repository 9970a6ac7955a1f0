//! Finds where values end, without recursion.

use super::{Error, Key, MAX_DEPTH, Value};

/// The kind of extension that msgpack-python reads as a timestamp.
const TIMESTAMP: i8 = -1;

pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a value starts with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Extension,
    Array(u32),
    Map(u32),
}

/// What stands at the start of `bytes`, in words.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    match Scanner::new(bytes).start() {
        Ok(Start::Nil) => "nil",
        Ok(Start::Bool(_)) => "a boolean",
        Ok(Start::Unsigned(_) | Start::Signed(_)) => "an integer",
        Ok(Start::Float(_)) => "a float",
        Ok(Start::Text(_)) => "a text",
        Ok(Start::Bytes(_)) => "bytes",
        Ok(Start::Extension) => "an extension",
        Ok(Start::Array(_)) => "an array",
        Ok(Start::Map(_)) => "a map",
        Err(_) => "no value",
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn end(&self) -> Result<(), Error> {
        if self.at < self.bytes.len() { Err(Error::ExtraData { offset: self.at }) } else { Ok(()) }
    }

    /// How many entries the map here has, with the scanner at its first key; `None`, and no step, if it is none.
    pub(super) fn map(&mut self) -> Result<Option<u32>, Error> {
        let before = self.at;
        if let Start::Map(entries) = self.start()? {
            return Ok(Some(entries));
        }
        self.at = before;
        Ok(None)
    }

    pub(super) fn key(&mut self) -> Result<Key<'a>, Error> {
        let offset = self.at;
        match self.start()? {
            Start::Text(text) => Ok(Key::Text(text)),
            Start::Bytes(_) => Ok(Key::Bytes(Value(self.bytes[offset..self.at].into()))),
            _ => Err(Error::MapKey { offset }),
        }
    }

    /// The bytes of the value here.
    pub(super) fn value(&mut self) -> Result<&'a [u8], Error> {
        self.value_within(MAX_DEPTH)
    }

    /// The same for a value in a map that the caller has opened.
    pub(super) fn value_below(&mut self) -> Result<&'a [u8], Error> {
        self.value_within(MAX_DEPTH - 1)
    }

    fn value_within(&mut self, max_depth: usize) -> Result<&'a [u8], Error> {
        let first = self.at;
        // For each array and map that is open: how many values are to come, and whether keys stand before them.
        let mut open: Vec<(u32, bool)> = Vec::new();
        loop {
            let start = self.start()?;
            if let Start::Array(left) | Start::Map(left) = start {
                // Empty ones count too, for msgpack-python.
                if open.len() == max_depth {
                    return Err(Error::TooDeep { max_depth: MAX_DEPTH });
                }
                open.push((left, matches!(start, Start::Map(_))));
            }
            loop {
                match open.last_mut() {
                    None => return Ok(&self.bytes[first..self.at]),
                    Some((0, _)) => drop(open.pop()),
                    Some((left, is_map)) => {
                        *left -= 1;
                        if *is_map {
                            self.key()?;
                        }
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let taken = self.bytes[self.at..].get(..length).ok_or(Error::Incomplete)?;
        self.at += length;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    /// A length of 1, 2 or 4 bytes, in the order in which MessagePack numbers them.
    fn length(&mut self, width: u8) -> Result<u32, Error> {
        Ok(match width {
            0 => u8::from_be_bytes(self.number()?).into(),
            1 => u16::from_be_bytes(self.number()?).into(),
            _ => u32::from_be_bytes(self.number()?),
        })
    }

    fn text(&mut self, length: u32) -> Result<Start<'a>, Error> {
        let offset = self.at;
        let text = str::from_utf8(self.take(length as usize)?).map_err(|_| Error::Utf8 { offset })?;
        Ok(Start::Text(text))
    }

    fn extension(&mut self, length: u32) -> Result<Start<'a>, Error> {
        let kind = i8::from_be_bytes(self.number()?);
        let offset = self.at;
        let content = self.take(length as usize)?;
        let nanoseconds = match content {
            _ if kind != TIMESTAMP => 0,
            [_, _, _, _] => 0,
            [a, b, c, d, _, _, _, _] => u32::from_be_bytes([*a, *b, *c, *d]) >> 2,
            [a, b, c, d, rest @ ..] if rest.len() == 8 => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => u32::MAX,
        };
        if nanoseconds > 999_999_999 { Err(Error::Timestamp { offset }) } else { Ok(Start::Extension) }
    }

    /// Reads a value up to where its items start, if it has any.
    pub(super) fn start(&mut self) -> Result<Start<'a>, Error> {
        let offset = self.at;
        let [first] = self.number()?;
        Ok(match first {
            0x00..=0x7f => Start::Unsigned(first.into()),
            0x80..=0x8f => Start::Map((first & 0x0f).into()),
            0x90..=0x9f => Start::Array((first & 0x0f).into()),
            0xa0..=0xbf => return self.text((first & 0x1f).into()),
            0xc0 => Start::Nil,
            0xc1 => return Err(Error::Format { offset }),
            0xc2 | 0xc3 => Start::Bool(first == 0xc3),
            0xc4..=0xc6 => {
                let length = self.length(first - 0xc4)?;
                Start::Bytes(self.take(length as usize)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(first - 0xc7)?;
                return self.extension(length);
            }
            0xca => Start::Float(f32::from_be_bytes(self.number()?).into()),
            0xcb => Start::Float(f64::from_be_bytes(self.number()?)),
            0xcc => Start::Unsigned(u8::from_be_bytes(self.number()?).into()),
            0xcd => Start::Unsigned(u16::from_be_bytes(self.number()?).into()),
            0xce => Start::Unsigned(u32::from_be_bytes(self.number()?).into()),
            0xcf => Start::Unsigned(u64::from_be_bytes(self.number()?)),
            0xd0 => Start::Signed(i8::from_be_bytes(self.number()?).into()),
            0xd1 => Start::Signed(i16::from_be_bytes(self.number()?).into()),
            0xd2 => Start::Signed(i32::from_be_bytes(self.number()?).into()),
            0xd3 => Start::Signed(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => return self.extension(1 << (first - 0xd4)),
            0xd9..=0xdb => {
                let length = self.length(first - 0xd9)?;
                return self.text(length);
            }
            0xdc | 0xdd => Start::Array(self.length(first - 0xdc + 1)?),
            0xde | 0xdf => Start::Map(self.length(first - 0xde + 1)?),
            0xe0..=0xff => Start::Signed((first as i8).into()),
        })
    }
}
