//! How a session's values become what a cache holds.
//!
//! Django's own caches pickle the dict ([`Format::django`]). django-redis pickles too, or writes JSON or MessagePack,
//! and compresses what is longer than a few bytes, as its `OPTIONS` say ([`Format::default`] without any).
//!
//! ```
//! use django_sessions::caches::format::{Compressor, Format, Serializer};
//!
//! // "OPTIONS": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer",
//! //             "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}
//! let format = Format { serializer: Serializer::Json, compressor: Compressor::Zlib, ..Format::default() };
//!
//! let data = format.loads(br#"{"visits": 3}"#)?;
//! assert_eq!(data.get("visits").unwrap().to::<u32>()?, 3);
//! assert_eq!(format.dumps(&data)?, br#"{"visits": 3}"#, "too short to be compressed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compressors;

use std::borrow::Cow;

use serde::Deserialize;

use crate::serializers::json;
#[cfg(feature = "msgpack")]
use crate::serializers::msgpack;
use crate::serializers::pickle;
use crate::session::{Data, SessionError};
use crate::signing::DEFAULT_MAX_INFLATED;
pub use compressors::Compressor;
use compressors::Failure;

/// What turns a dict into bytes (`OPTIONS["SERIALIZER"]` of django-redis, a class of `django_redis.serializers`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Serializer {
    /// `pickle.PickleSerializer`, the default; read as data, nothing in it is run.
    #[default]
    Pickle,
    /// `json.JSONSerializer`.
    Json,
    /// `msgpack.MSGPackSerializer` (feature `msgpack`).
    Msgpack,
}

/// A serializer and a compressor, with their options.
///
/// The default is that of django-redis; [`Format::django`] is for Django's own caches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Format {
    /// `OPTIONS["SERIALIZER"]`.
    pub serializer: Serializer,
    /// `OPTIONS["PICKLE_VERSION"]`: 4 by default, and a negative one is Python's highest, 5. Below 4 this crate writes
    /// 4, which every Python 3 reads.
    pub pickle_version: i8,
    /// `OPTIONS["COMPRESSOR"]`.
    pub compressor: Compressor,
    /// Values of so many bytes or fewer are not compressed, if it is another length than [`Compressor::min_length`]: the
    /// `min_length` of a class of the project's own.
    pub min_length: Option<usize>,
    /// The level to compress with, if it is another than [`Compressor::level`]: the `preset` of such a class.
    pub level: Option<i32>,
    /// How many bytes a compressed value may inflate to: 16 MiB. django-redis has no such limit.
    pub max_size: usize,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            serializer: Serializer::Pickle,
            pickle_version: 4,
            compressor: Compressor::None,
            min_length: None,
            level: None,
            max_size: DEFAULT_MAX_INFLATED,
        }
    }
}

/// Why a value could not be read or written.
///
/// ```
/// use django_sessions::caches::format::Format;
///
/// let error = Format::django().loads(b"\x80\x04K\x01.").unwrap_err(); // pickle.dumps(1)
/// assert_eq!(error.to_string(), "a session is a dict, and the cache holds int");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The format needs a feature of this crate that is off.
    #[error("this cache's format needs the feature `{feature}` of django-sessions")]
    FeatureOff {
        /// The feature.
        feature: &'static str,
    },
    /// `PICKLE_VERSION` is beyond Python's highest. django-redis: `ImproperlyConfigured`.
    #[error("PICKLE_VERSION can't be higher than 5, and it is {version}")]
    PickleVersion {
        /// What it is.
        version: i8,
    },
    /// The compressor knows no such level.
    #[error("{compressor} knows no level {level}")]
    Level {
        /// The compressor.
        compressor: &'static str,
        /// The level.
        level: i32,
    },
    /// The value inflates to more than [`Format::max_size`].
    #[error("a value of the cache inflates to more than {max_size} bytes")]
    TooLarge {
        /// The limit.
        max_size: usize,
    },
    /// The value was compressed, and is broken.
    #[error("a value of the cache does not inflate as {compressor}: {why}")]
    Decompress {
        /// The compressor.
        compressor: &'static str,
        /// In the words of the library.
        why: String,
    },
    /// What is there is no session: a session is a dict.
    #[error("a session is a dict, and the cache holds {found}")]
    NotADict {
        /// What it holds, in the words of its format.
        found: String,
    },
    /// The JSON is not UTF-8. django-redis: `UnicodeDecodeError`.
    #[error("a value of the cache is not UTF-8")]
    Utf8,
    /// It is not a pickle, or one beyond the limits.
    #[error("a value of the cache cannot be unpickled")]
    Pickle(#[source] pickle::Error),
    /// It is not JSON.
    #[error("a value of the cache is not JSON")]
    Json(#[source] json::Error),
    /// It is not MessagePack.
    #[cfg(feature = "msgpack")]
    #[error("a value of the cache is not MessagePack")]
    Msgpack(#[source] msgpack::Error),
    /// A value of the session has no form in this format. Nothing was written.
    #[error("the session cannot be written in the format of this cache")]
    Value(#[from] SessionError),
    /// The value could not be compressed.
    #[error("{compressor} failed: {why}")]
    Compress {
        /// The compressor.
        compressor: &'static str,
        /// In the words of the library.
        why: String,
    },
}

impl Format {
    /// What Django's own caches hold: pickles of Python's highest protocol, not compressed.
    pub fn django() -> Self {
        Self { pickle_version: 5, ..Self::default() }
    }

    /// Says early what the first [`dumps`](Self::dumps) would say of the format itself.
    ///
    /// # Errors
    /// [`FormatError::FeatureOff`], [`FormatError::PickleVersion`] and [`FormatError::Level`].
    pub fn check(&self) -> Result<(), FormatError> {
        if self.serializer == Serializer::Msgpack && !cfg!(feature = "msgpack") {
            return Err(FormatError::FeatureOff { feature: "msgpack" });
        }
        if self.pickle_version > 5 {
            return Err(FormatError::PickleVersion { version: self.pickle_version });
        }
        self.compressor.check(self.level())
    }

    /// The bytes that the cache is to hold.
    ///
    /// ```
    /// use django_sessions::caches::format::Format;
    /// use django_sessions::serializers::json::RawValue;
    /// use django_sessions::session::Data;
    ///
    /// let mut data = Data::new();
    /// data.insert("visits", RawValue::new(&3)?);
    /// let pickle = Format::django().dumps(&data)?;
    /// assert_eq!(Format::django().loads(&pickle)?.get("visits").unwrap().to::<u32>()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FormatError::Value`] names the key whose value has no form in this format. Otherwise those of
    /// [`check`](Self::check).
    pub fn dumps(&self, data: &Data) -> Result<Vec<u8>, FormatError> {
        self.compress(match self.serializer {
            Serializer::Pickle => {
                pickle::dumps_dict(&data.pickle_items()?, self.protocol()).map_err(FormatError::Pickle)?
            }
            // With the separators of `json.dumps`.
            Serializer::Json => latin_1_escaped(data.to_json_separated(b", ", b": ")?),
            #[cfg(feature = "msgpack")]
            Serializer::Msgpack => data.to_msgpack()?,
            #[cfg(not(feature = "msgpack"))]
            Serializer::Msgpack => return Err(FormatError::FeatureOff { feature: "msgpack" }),
        })
    }

    /// The session that the cache holds as `bytes`.
    ///
    /// # Errors
    /// [`FormatError::NotADict`] for whatever else can be in a cache, [`FormatError::TooLarge`], and what is wrong with
    /// the bytes.
    pub fn loads(&self, bytes: &[u8]) -> Result<Data, FormatError> {
        self.loads_from(bytes.into())
    }

    /// The same from bytes that the values can keep, without a copy.
    pub(crate) fn loads_from(&self, bytes: Cow<'_, [u8]>) -> Result<Data, FormatError> {
        // Caches for Redis hold integers as plain digits, so that Redis can count with them.
        if is_integer(&bytes) {
            return Err(FormatError::NotADict { found: "an integer".to_owned() });
        }
        self.inflated(bytes, |bytes| match self.serializer {
            Serializer::Pickle => self.load_pickle(bytes),
            Serializer::Json => load_json(&bytes),
            #[cfg(feature = "msgpack")]
            Serializer::Msgpack => Data::from_msgpack(&bytes).map_err(|error| match error {
                msgpack::Error::NotAMap { found } => FormatError::NotADict { found: found.to_owned() },
                error => FormatError::Msgpack(error),
            }),
            #[cfg(not(feature = "msgpack"))]
            Serializer::Msgpack => Err(FormatError::FeatureOff { feature: "msgpack" }),
        })
    }

    /// Python's `None`, which to Django is as good as nothing.
    #[cfg(feature = "_sql")]
    pub(crate) fn none(&self) -> &'static [u8] {
        match (self.serializer, self.protocol()) {
            (Serializer::Pickle, pickle::Protocol::V4) => b"\x80\x04N.",
            (Serializer::Pickle, _) => b"\x80\x05N.",
            (Serializer::Json, _) => b"null",
            (Serializer::Msgpack, _) => b"\xc0",
        }
    }

    /// Whether a cache holds `None`.
    pub(crate) fn is_none(&self, bytes: &[u8]) -> bool {
        // No compressor makes anything so short.
        match self.serializer {
            Serializer::Pickle => matches!(bytes, [b'N', b'.'] | [0x80, _, b'N', b'.']),
            Serializer::Json => bytes == b"null",
            Serializer::Msgpack => bytes == b"\xc0",
        }
    }

    fn load_pickle(&self, bytes: Cow<'_, [u8]>) -> Result<Data, FormatError> {
        let limits = pickle::Limits { max_size: self.max_size, ..pickle::Limits::default() };
        let value = pickle::loads_from(bytes, &limits).map_err(FormatError::Pickle)?;
        Data::from_pickle(&value).ok_or_else(|| FormatError::NotADict { found: value.class() })
    }

    fn protocol(&self) -> pickle::Protocol {
        match self.pickle_version {
            0..=4 => pickle::Protocol::V4,
            _ => pickle::Protocol::V5,
        }
    }

    fn level(&self) -> i32 {
        self.level.unwrap_or(self.compressor.level())
    }

    fn compress(&self, data: Vec<u8>) -> Result<Vec<u8>, FormatError> {
        let min_length = self.min_length.unwrap_or(self.compressor.min_length());
        if self.compressor == Compressor::None || data.len() <= min_length {
            return Ok(data);
        }
        self.compressor.compress(&data, self.level())
    }

    /// Gives `read` what `data` inflates to, or `data` itself where it is not compressed, as django-redis does.
    fn inflated<T>(
        &self,
        data: Cow<'_, [u8]>,
        read: impl Fn(Cow<'_, [u8]>) -> Result<T, FormatError>,
    ) -> Result<T, FormatError> {
        if self.compressor == Compressor::None {
            return read(data);
        }
        match self.compressor.decompress(&data, self.max_size) {
            Ok(inflated) => read(inflated.into()),
            Err(Failure::TooLarge) => Err(FormatError::TooLarge { max_size: self.max_size }),
            Err(Failure::Broken(why)) => read(Cow::Borrowed(&data)).map_err(|error| {
                if self.compressor.wrote(&data) {
                    let why = why.into_owned();
                    FormatError::Decompress { compressor: self.compressor.name(), why }
                } else {
                    error
                }
            }),
        }
    }
}

/// What Python's `int` takes, which is how django-redis and Django tell integers.
fn is_integer(bytes: &[u8]) -> bool {
    let digits = bytes.trim_ascii();
    let digits = digits.strip_prefix(b"-").or(digits.strip_prefix(b"+")).unwrap_or(digits);
    digits.first().is_some_and(u8::is_ascii_digit)
        && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'_')
}

/// JSON in UTF-8, where the session's own is in latin-1: what is beyond ASCII is escaped, as Python would have.
fn load_json(bytes: &[u8]) -> Result<Data, FormatError> {
    let text = str::from_utf8(bytes).map_err(|_| FormatError::Utf8)?;
    let data = match text.is_ascii() {
        true => Data::from_json(bytes),
        false => Data::from_json(&escaped(text)),
    };
    data.map_err(|error| match error {
        json::Error::NotAnObject { found } => FormatError::NotADict { found: found.to_owned() },
        error => FormatError::Json(error),
    })
}

fn escaped(text: &str) -> Vec<u8> {
    let mut output = Vec::with_capacity(text.len() * 2);
    for c in text.chars() {
        match c.is_ascii() {
            true => output.push(c as u8),
            false => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    output.extend(format!("\\u{unit:04x}").into_bytes());
                }
            }
        }
    }
    output
}

/// JSON that was read as latin-1 becomes ASCII, which reads the same as UTF-8.
fn latin_1_escaped(json: Vec<u8>) -> Vec<u8> {
    if json.is_ascii() { json } else { escaped(&json.into_iter().map(char::from).collect::<String>()) }
}
