//! Pickles as data: what Django's caches and the old `PickleSerializer` hold, read and written without running it.
//!
//! To Python a pickle is a program that names any function and calls it. Here it is a description of values. Reading
//! follows CPython's `pickle.loads` to the letter for protocols 0 to 5, but imports and calls nothing: what a call would
//! make stays a node that says which class and which arguments, and goes back as it came. Dates, `Decimal`, `UUID` and the
//! like are understood; the value of any other object is refused by name where somebody asks for it.
//!
//! Every loop is a loop and no call of itself, and [`Limits`] cap what hostile data can claim.
//!
//! ```
//! use django_sessions::serializers::pickle::{self, Limits, Protocol};
//!
//! // pickle.dumps({"id": uuid.UUID(int=1), "tags": ("a", "b")}, 2)
//! let data = b"\x80\x02}q\x00(X\x02\x00\x00\x00idcuuid\nUUID\n)\x81}X\x03\x00\x00\x00intK\x01sb\
//!     X\x04\x00\x00\x00tagsX\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86u.";
//! let value = pickle::loads(data, &Limits::default())?;
//!
//! #[derive(serde::Deserialize)]
//! struct Page { id: String, tags: Vec<String> }
//! let page: Page = value.to()?;
//! assert_eq!((&page.id[..], page.tags.len()), ("00000000-0000-0000-0000-000000000001", 2));
//!
//! let written = pickle::dumps(&value, Protocol::V5)?;
//! assert_eq!(pickle::loads(&written, &Limits::default())?.to::<Page>()?.tags, ["a", "b"]);
//! # Ok::<(), pickle::Error>(())
//! ```
//!
//! # Where it is not CPython
//!
//! CPython calls what a pickle names, and fails if it cannot be imported or refuses its arguments: here it is kept. Keys
//! that are objects are equal to themselves only. Persistent ids, extension codes and out-of-band buffers are
//! refused, which `pickle.loads` alone cannot resolve either. So is what no pickler writes: items set on a list,
//! attributes set on a class. An object that contains itself by way of the keywords or state of the call that makes it
//! (`__getnewargs_ex__`) goes back as that call was written, which Python may refuse.

mod classes;
mod de;
mod dump;
mod error;
mod graph;
mod int;
mod json;
mod keys;
mod load;
mod names;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

pub use error::Error;
pub use value::{Kind, Value};

/// How far shared values may be written out as JSON or Rust types, in bytes, unless the pickle itself is large.
const MAX_EXPANDED: usize = 64 << 20;

/// What a pickle may claim before it is refused.
///
/// ```
/// use django_sessions::serializers::pickle::{self, Error, Limits};
///
/// let limits = Limits { max_size: 4, ..Limits::default() };
/// assert_eq!(pickle::loads(b"(lp0\n.", &limits).unwrap_err(), Error::Limit { unit: "bytes", max: 4 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the pickle: 16 MiB.
    pub max_size: usize,
    /// How deep values nest: 10,000, about as deep as CPython can pickle.
    pub max_depth: usize,
    /// How many values there are: one million. Each takes up to 100 bytes of memory.
    pub max_nodes: usize,
    /// How many places the memo has: one million.
    pub max_memo: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_size: 16 << 20, max_depth: 10_000, max_nodes: 1_000_000, max_memo: 1_000_000 }
    }
}

/// The protocols that are written. Every Python since 3.4 reads the fourth, every one since 3.8 the fifth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// What CPython 3.8 to 3.13 writes by default.
    V4,
    /// `pickle.HIGHEST_PROTOCOL`, which Django's Redis cache writes.
    V5,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Protocol::V4 => 4,
            Protocol::V5 => 5,
        }
    }
}

/// Reads a pickle, as Python's `pickle.loads(data)`. What follows its end is ignored, as there.
///
/// # Errors
/// Any [`Error`] that says what is no pickle, and [`Error::Limit`].
pub fn loads(data: &[u8], limits: &Limits) -> Result<Value, Error> {
    load(data.into(), limits, load::OldText::Ascii)
}

/// The same of bytes that the value can keep.
#[cfg(feature = "_cache")]
pub(crate) fn loads_from(data: Cow<'_, [u8]>, limits: &Limits) -> Result<Value, Error> {
    load(data, limits, load::OldText::Ascii)
}

fn load(data: Cow<'_, [u8]>, limits: &Limits, old_text: load::OldText) -> Result<Value, Error> {
    let (graph, id) = load::load(data, limits, old_text)?;
    Ok(Value { graph: Arc::new(graph), id })
}

/// Reads a pickle of Python 2, as `pickle.loads(data, encoding="latin1")`, which dates from there need: Python 2's strings
/// are bytes, and [`loads`] refuses those beyond ASCII as Python 3 does.
///
/// # Errors
/// As [`loads`].
pub fn loads_python2(data: &[u8], limits: &Limits) -> Result<Value, Error> {
    load(data.into(), limits, load::OldText::Latin1)
}

/// Writes a value, as Python's `pickle.dumps(value, protocol)` would in substance: what is shared is written once, and
/// objects that were kept unread go back as they came.
///
/// # Errors
/// [`Error::Unhashable`] for a dict made in Rust with a key that Python cannot hash, and [`Error::Limit`] for a hostile
/// graph that would grow out of all proportion.
pub fn dumps(value: &Value, protocol: Protocol) -> Result<Vec<u8>, Error> {
    dump::dump(value, protocol)
}

#[cfg(feature = "_cache")]
pub(crate) use dump::Part;

/// Writes a dict of these keys, which differ, and values, as [`dumps`] would that of [`Value::from_dict_items`].
#[cfg(feature = "_cache")]
pub(crate) fn dumps_dict(items: &[[Part<'_>; 2]], protocol: Protocol) -> Result<Vec<u8>, Error> {
    dump::dump_dict(items, protocol)
}

/// Whether these bytes are text to Python: UTF-8 that also has a place for lone surrogates.
#[cfg(feature = "_cache")]
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    text::is_text(bytes)
}
