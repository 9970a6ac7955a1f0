//! MessagePack as msgpack-python reads and writes it, which is what the `MSGPackSerializer` of django-redis uses
//! (feature `msgpack`).
//!
//! Values stay the bytes that they were read from, and go back so. What `msgpack.loads(data, raw=False)` refuses is
//! refused here: text that is not UTF-8, keys of maps that are neither text nor bytes, timestamps of a wrong length.
//!
//! ```
//! use django_sessions::serializers::msgpack::Value;
//!
//! let value = Value::new(&("tea", 2))?;
//! assert_eq!(value.as_bytes(), b"\x92\xa3tea\x02");
//! assert_eq!(value.to::<(String, u8)>()?, ("tea".to_owned(), 2));
//! # Ok::<(), django_sessions::serializers::msgpack::Error>(())
//! ```

mod convert;
mod scan;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json::{self, RawValue};
use convert::Packed;
pub(crate) use convert::{write_map_header, write_text};
use scan::Scanner;

/// How deep arrays and maps may nest in a value that is passed through; msgpack-python reads as many.
pub const MAX_DEPTH: usize = 1024;

/// How deep arrays and maps may nest in a value that is read into a Rust type, or made from one.
pub const MAX_VALUE_DEPTH: usize = json::MAX_VALUE_DEPTH;

/// Why MessagePack could not be read, or a value not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the value does. msgpack-python: `ValueError` ("incomplete input").
    #[error("not MessagePack: it ends within a value")]
    Incomplete,
    /// Something follows the value. msgpack-python: `ExtraData`.
    #[error("not MessagePack: bytes follow the value, from byte {offset} on")]
    ExtraData {
        /// Where the value ends.
        offset: usize,
    },
    /// A byte that starts no value. msgpack-python: `FormatError`.
    #[error("not MessagePack: no value starts as byte {offset} does")]
    Format {
        /// Where it stands.
        offset: usize,
    },
    /// Text that is not UTF-8. msgpack-python: `UnicodeDecodeError`.
    #[error("a text is not UTF-8, at byte {offset}")]
    Utf8 {
        /// Where the text starts.
        offset: usize,
    },
    /// A key of a map is neither text nor bytes. msgpack-python: `ValueError` (`strict_map_key`).
    #[error("a key of a map is neither text nor bytes, at byte {offset}")]
    MapKey {
        /// Where the key starts.
        offset: usize,
    },
    /// An extension of the kind "timestamp" that is none. msgpack-python: `ValueError`.
    #[error("a timestamp is malformed, at byte {offset}")]
    Timestamp {
        /// Where its content starts.
        offset: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`], or than [`MAX_VALUE_DEPTH`] when read into a Rust type. msgpack-python:
    /// `StackError`.
    #[error("nested deeper than {max_depth} levels")]
    TooDeep {
        /// The limit that applied.
        max_depth: usize,
    },
    /// The MessagePack is good, but a session is a map, and this is not.
    #[error("a session is a map, and this is {found}")]
    NotAMap {
        /// What stands in its place.
        found: &'static str,
    },
    /// MessagePack knows integers of 64 bits only. msgpack-python: `OverflowError`.
    #[error("an integer is beyond the 64 bits of MessagePack")]
    IntegerOutOfRange,
    /// A key of a session is to be written that is neither text nor bytes; `msgpack.loads` would not read it.
    #[error("a key is neither text nor bytes, and msgpack reads no others")]
    Key,
    /// There is no such thing on the other side: bytes, a timestamp or an extension in JSON.
    #[error("{what} has no form in JSON")]
    NoJson {
        /// What it is.
        what: &'static str,
    },
    /// The JSON that a value comes from is of a kind that MessagePack does not know, as a lone surrogate.
    #[error("the JSON has no form in MessagePack")]
    Json(#[from] json::Error),
    /// The value has another shape than the Rust type; holds serde's words.
    #[error("{0}")]
    Shape(String),
}

/// The bytes of one value, found to be well-formed.
///
/// `Debug` shows the length only, since sessions hold secrets.
///
/// ```
/// use django_sessions::serializers::msgpack::Value;
///
/// let value = Value::new(&["tea"])?;
/// assert_eq!(value.as_bytes(), b"\x91\xa3tea");
/// assert_eq!(value.to::<Vec<String>>()?, ["tea"]);
/// # Ok::<(), django_sessions::serializers::msgpack::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Box<[u8]>);

impl Value {
    /// Takes `bytes` as they are.
    ///
    /// # Errors
    /// When they are not one value by msgpack-python's rules.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let bytes = bytes.into();
        let mut scanner = Scanner::new(&bytes);
        scanner.value()?;
        scanner.end()?;
        Ok(Self(bytes.into()))
    }

    /// Writes `value` as msgpack-python would write the same in Python.
    ///
    /// # Errors
    /// [`Error::IntegerOutOfRange`], or when the value has no JSON form, which Django's sessions want.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Self::from_json(&RawValue::new(value)?)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the value into a Rust type.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is another, [`Error::TooDeep`].
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let too_deep = Error::TooDeep { max_depth: MAX_VALUE_DEPTH };
        let value =
            rmpv::decode::read_value_with_max_depth(&mut &*self.0, MAX_VALUE_DEPTH).map_err(|_| too_deep)?;
        rmpv::ext::from_value(value).map_err(|error| Error::Shape(error.to_string()))
    }

    /// The same value in JSON, as `json.dumps` would write what `msgpack.loads` read.
    ///
    /// ```
    /// use django_sessions::serializers::msgpack::Value;
    ///
    /// let value = Value::from_bytes(b"\x82\xa1a\xca\x3f\x80\0\0\xa1b\xa2\xc3\xa9")?;
    /// assert_eq!(value.to_json()?.as_bytes(), br#"{"a":1.0,"b":"\u00e9"}"#);
    /// assert!(Value::from_bytes(b"\xc4\x01b")?.to_json().is_err(), "bytes");
    /// # Ok::<(), django_sessions::serializers::msgpack::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoJson`]: bytes, timestamps and extensions.
    pub fn to_json(&self) -> Result<RawValue, Error> {
        convert::to_json(&self.0)
    }

    /// The same value in MessagePack, as `msgpack.dumps` would write what `json.loads` read.
    ///
    /// # Errors
    /// [`Error::IntegerOutOfRange`], and [`Error::Json`] for lone surrogates and values nested deeper than
    /// [`MAX_VALUE_DEPTH`].
    pub fn from_json(value: &RawValue) -> Result<Self, Error> {
        match value.to::<Packed>() {
            Ok(packed) => Ok(Self(packed.0.into())),
            Err(json::Error::IntegerOutOfRange) => Err(Error::IntegerOutOfRange),
            Err(json::Error::Shape(why)) if why == convert::BEYOND_64_BITS => Err(Error::IntegerOutOfRange),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msgpack::Value({} bytes)", self.0.len())
    }
}

/// Splits the bytes of a map. Of equal keys the last is to win, as in Python.
pub(crate) fn map(bytes: &[u8]) -> Result<Vec<(Key<'_>, Value)>, Error> {
    let mut scanner = Scanner::new(bytes);
    let Some(entries) = scanner.map()? else {
        let found = scan::kind(bytes);
        scanner.value()?;
        scanner.end()?;
        return Err(Error::NotAMap { found });
    };
    // What is announced may never come: no room is made for it.
    let mut map = Vec::new();
    for _ in 0..entries {
        let key = scanner.key()?;
        map.push((key, Value(scanner.value_below()?.into())));
    }
    scanner.end()?;
    Ok(map)
}

/// The key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Text(&'a str),
    Bytes(Value),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_and_does_not_come() {
        for bytes in
            [&b"\xdf\xff\xff\xff\xff"[..], b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x81", b""]
        {
            assert_eq!(Value::from_bytes(bytes), Err(Error::Incomplete));
        }
        assert_eq!(map(b"\xdf\xff\xff\xff\xff"), Err(Error::Incomplete));
    }

    #[test]
    fn depth() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(Value::from_bytes(nested(MAX_DEPTH)).is_ok());
        assert_eq!(Value::from_bytes(nested(MAX_DEPTH + 1)), Err(Error::TooDeep { max_depth: MAX_DEPTH }));
        let deep = Value::from_bytes(nested(MAX_DEPTH)).unwrap();
        assert_eq!(deep.to::<serde_json::Value>(), Err(Error::TooDeep { max_depth: MAX_VALUE_DEPTH }));
        assert_eq!(deep.to_json().unwrap().as_bytes().len(), 2 * MAX_DEPTH + 4);
    }

    #[test]
    fn refuses_what_is_no_map_by_name() {
        for (bytes, found) in
            [(&b"\x01"[..], "an integer"), (b"\xc0", "nil"), (b"\x90", "an array"), (b"\xa0", "a text")]
        {
            assert_eq!(map(bytes), Err(Error::NotAMap { found }));
        }
        assert_eq!(map(b"\x81\xa1a\x01\x02"), Err(Error::ExtraData { offset: 4 }));
        assert_eq!(map(b"\x81\x01\x01"), Err(Error::MapKey { offset: 1 }));
        assert_eq!(map(b"\x81\xa1a\xc1"), Err(Error::Format { offset: 3 }));
        assert_eq!(map(b"\x81\xa1\xff\x01"), Err(Error::Utf8 { offset: 2 }));
    }

    #[test]
    fn json_there_and_back() {
        for text in [
            r#"[null,true,false,0,127,128,255,256,65535,65536,4294967295,4294967296,18446744073709551615]"#,
            r#"[-1,-32,-33,-128,-129,-32768,-32769,-2147483648,-2147483649,-9223372036854775808]"#,
            r#"[1.5,-0.0,NaN,Infinity,-Infinity,1e+300]"#,
            r#"{"":{"\u00e9\ud83e\udd80\n":[[],{}]},"key of more than thirty-one bytes in all":[""]}"#,
        ] {
            let value = Value::from_json(&RawValue::from_text(text).unwrap()).unwrap();
            assert!(Value::from_bytes(value.as_bytes()).is_ok());
            assert_eq!(String::from_utf8(value.to_json().unwrap().as_bytes().to_vec()).unwrap(), text);
        }
        for (text, error) in [
            ("18446744073709551616", Error::IntegerOutOfRange),
            ("-9223372036854775809", Error::IntegerOutOfRange),
            ("1180591620717411303424000000000000000000000", Error::IntegerOutOfRange),
            (r#""\ud800""#, Error::Json(json::Error::LoneSurrogate)),
        ] {
            assert_eq!(Value::from_json(&RawValue::from_text(text).unwrap()), Err(error), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Value::new("hush").unwrap()).contains("hush"));
    }
}
