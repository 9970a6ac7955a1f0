//! JSON as Python's `json` module reads and writes it, which is what Django's `JSONSerializer` uses.
//!
//! It differs from RFC 8259 in four ways. Django reads a payload as **latin-1**, so everything beyond ASCII is written
//! as escapes. `NaN`, `Infinity` and `-Infinity` are numbers. Integers have up to 4,300 digits. Strings may hold
//! lone surrogates. What no Rust type can take is refused by name where it is asked for, and passes through
//! [`RawValue`] and [`Object`] untouched. Source of the format: `Lib/json` and `Modules/_json.c` of CPython.
//!
//! ```
//! use django_sessions::serializers::json;
//!
//! assert_eq!(json::to_vec(&("é🦀", 1e16, f64::NAN))?, br#"["\u00e9\ud83e\udd80",1e+16,NaN]"#);
//! assert_eq!(json::from_slice::<(String, f64)>(br#"["\u00e9", Infinity]"#)?, ("é".to_owned(), f64::INFINITY));
//! # Ok::<(), json::Error>(())
//! ```

mod de;
mod object;
pub(crate) mod scan;
mod ser;

pub use object::{Object, RawValue};
pub(crate) use object::{split, write_key};
pub(crate) use scan::unescape;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep arrays and objects may nest in JSON that is passed through. CPython 3.11 stops near 1,000, 3.12 near 10,000.
pub const MAX_DEPTH: usize = 10_000;

/// How deep arrays and objects may nest in a value that is deserialized into a Rust type.
pub const MAX_VALUE_DEPTH: usize = 128;

/// How many digits an integer may have: CPython's default (`sys.int_info.default_max_str_digits`).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// Why JSON could not be read, or a Rust value not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Python's `json.loads` raises `JSONDecodeError` here.
    #[error("not JSON: {expected} expected at byte {offset}")]
    Syntax {
        /// What would have continued the text.
        expected: &'static str,
        /// Where it is missing, in bytes from the start.
        offset: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`], or than [`MAX_VALUE_DEPTH`] when deserialized. Python: `RecursionError`.
    #[error("nested deeper than {max_depth} levels")]
    TooDeep {
        /// The limit that applied.
        max_depth: usize,
    },
    /// An integer of more than [`MAX_INTEGER_DIGITS`]. Python: `ValueError`.
    #[error("an integer has more than {MAX_INTEGER_DIGITS} digits")]
    IntegerTooLong,
    /// The JSON is good, but a session is an object, and this is not.
    #[error("a session is a JSON object, and this is {found}")]
    NotAnObject {
        /// What stands in its place.
        found: &'static str,
    },
    /// A string holds a surrogate without its pair, which a Rust `String` cannot; read it as a [`RawValue`].
    #[error("a string holds a lone surrogate, which no Rust string can")]
    LoneSurrogate,
    /// An integer fits no Rust type (`i128` and `u128` are the widest); read it as a [`RawValue`].
    #[error("an integer is beyond 128 bits")]
    IntegerOutOfRange,
    /// The JSON has another shape than the Rust type, or the Rust value has no JSON form; holds serde's words.
    #[error("{0}")]
    Shape(String),
}

/// Reads `data` into a Rust value.
///
/// # Errors
/// Each [`Error`] but [`Error::NotAnObject`].
pub fn from_slice<T: DeserializeOwned>(data: &[u8]) -> Result<T, Error> {
    de::from_slice(data)
}

/// Writes `value` as Python's `json.dumps(value, separators=(",", ":"))` would: compact and in ASCII.
///
/// # Errors
/// [`Error::Shape`] when `value` has no JSON form, as a map whose keys are sequences.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut output = Vec::with_capacity(128);
    value.serialize(ser::Serializer::new(&mut output))?;
    Ok(output)
}
pub(crate) use object::RAW_VALUE;
#[cfg(feature = "python")]
pub(crate) use ser::write_str;
pub(crate) use ser::{write_code_point, write_float};
