//! Why a pickle was refused.

/// Why a pickle could not be read or written, or why a value of one has no other form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data ends before the pickle does. CPython: `EOFError` or `UnpicklingError`.
    #[error("the pickle is cut off at byte {offset}")]
    Truncated {
        /// Where more was expected, in bytes from the start.
        offset: usize,
    },
    /// What stands here is no pickle that CPython would read.
    #[error("not a pickle: {problem} at byte {offset}")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// A protocol that was not yet invented. CPython: `ValueError`.
    #[error("pickle protocol {0} is not known")]
    Protocol(u8),
    /// A pickle that refers to what lies outside of it, which sessions and caches never do.
    #[error("the pickle refers to {what} (at byte {offset}), which lies outside of it")]
    Outside {
        /// A persistent id, an extension code or an out-of-band buffer.
        what: &'static str,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// One of the [`Limits`](super::Limits), or the size to which shared values may be written out.
    #[error("the pickle exceeds the limit of {max} {unit}")]
    Limit {
        /// What is counted.
        unit: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// A dict's key or a set's item that can change. CPython: `TypeError: unhashable type`.
    #[error("a {kind} cannot be a key or stand in a set")]
    Unhashable {
        /// Python's name of its type.
        kind: &'static str,
    },
    /// An object whose class only Python knows, or whose value Rust's types cannot take.
    #[error("an object of {class} has no value that Rust can take")]
    Object {
        /// Module and name of the class.
        class: String,
    },
    /// A value that JSON has no form for. Python: `TypeError: Object of type ... is not JSON serializable`.
    #[error("{kind} has no form in JSON")]
    NoJson {
        /// Python's name of the type, with its module.
        kind: String,
    },
    /// A list, dict or object that contains itself. Python's `json`: `ValueError: Circular reference detected`.
    #[error("a value contains itself")]
    Circular,
    /// Text holds a surrogate without its pair, which a Rust `String` cannot.
    #[error("a text holds a lone surrogate, which no Rust string can")]
    LoneSurrogate,
    /// An integer fits no Rust type: `i128` and `u128` are the widest.
    #[error("an integer is beyond 128 bits")]
    IntegerOutOfRange,
    /// An integer has more digits than Python turns into text. Python: `ValueError`.
    #[error("an integer has more than {} digits", crate::serializers::json::MAX_INTEGER_DIGITS)]
    IntegerTooLong,
    /// The value has another shape than the Rust type; holds serde's words.
    #[error("{0}")]
    Shape(String),
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::Shape(message.to_string())
    }
}

/// A class name as it may stand in an error: a pickle can name anything.
pub(super) fn printable(module: &str, name: &str) -> String {
    let whole = format!("{module}.{name}");
    let mut shown: String = whole.escape_debug().take(200).collect();
    if shown.len() < whole.len() {
        shown.push_str("...");
    }
    shown
}
