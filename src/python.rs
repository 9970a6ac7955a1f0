//! The native module of the Python package `django_rust_sessions`.
//!
//! Thin by intent: what is signed, compressed and encoded is the crate's own; here stand only the ways in and out of
//! Python objects, and the one table that turns errors into Django's exceptions. It never reads a clock or a setting.

mod decode;
mod encode;
mod errors;
mod file;
mod legacy;
mod resp;

use jiff::Timestamp;
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDelta, PyString};

use crate::crypto::SecretKeys;
use crate::session::SessionKey;
use crate::signing::{self, DEFAULT_MAX_INFLATED, SigningError, TimestampSigner};

/// From this many bytes on, other threads run while one compresses or inflates.
const WITHOUT_GIL: usize = 32 * 1024;

/// Sessions of Django, signed and read in Rust.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::file::{
        claim_session_file, clear_session_files, create_session_file, read_session_file, replace_session_file,
    };
    #[pymodule_export]
    use super::legacy::LegacyCodec;
    #[pymodule_export]
    use super::resp::{ReplyReader, pack_command};
    #[pymodule_export]
    use super::{Signer, json_dumps, json_loads, random_session_key};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("DEBUG", cfg!(debug_assertions))
    }
}

/// Django's TimestampSigner, keyed for one salt: what its dumps() writes with compress=True, and its loads().
#[pyclass(frozen, module = "django_rust_sessions._native")]
struct Signer(TimestampSigner);

#[pymethods]
impl Signer {
    #[new]
    #[pyo3(signature = (
        key, salt, fallback_keys = Vec::new(), *, max_inflated = DEFAULT_MAX_INFLATED, algorithm = "sha256"
    ))]
    fn new(
        key: Key,
        salt: &str,
        fallback_keys: Vec<Key>,
        max_inflated: usize,
        algorithm: &str,
    ) -> PyResult<Self> {
        let keys = SecretKeys::new(key.0).with_fallbacks(fallback_keys.into_iter().map(|key| key.0));
        let signer = signing::Signer::with_algorithm(&keys, salt, legacy::algorithm(algorithm)?);
        Ok(Self(TimestampSigner::from(signer).max_inflated(max_inflated)))
    }

    /// Sign `obj` as JSONSerializer writes it.
    fn dumps(&self, obj: &Bound<'_, PyAny>, timestamp: i64) -> PyResult<String> {
        self.sign(obj.py(), &encode::json(obj)?, timestamp)
    }

    /// Sign what any other serializer wrote.
    fn dumps_bytes(&self, py: Python<'_>, data: PyBackedBytes, timestamp: i64) -> PyResult<String> {
        self.sign(py, &data, timestamp)
    }

    /// Read what dumps() signed.
    #[pyo3(signature = (signed, *, max_age = None, now = None))]
    fn loads<'py>(
        &self,
        signed: &Bound<'py, PyAny>,
        max_age: Option<&Bound<'py, PyAny>>,
        now: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        decode::json(signed.py(), &self.unsign(signed, max_age, now)?)
    }

    /// The serialized bytes in what dumps() or dumps_bytes() signed.
    #[pyo3(signature = (signed, *, max_age = None, now = None))]
    fn loads_bytes<'py>(
        &self,
        signed: &Bound<'py, PyAny>,
        max_age: Option<&Bound<'py, PyAny>>,
        now: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(signed.py(), &self.unsign(signed, max_age, now)?))
    }
}

impl Signer {
    fn sign(&self, py: Python<'_>, payload: &[u8], timestamp: i64) -> PyResult<String> {
        let now = Timestamp::from_second(timestamp)
            .map_err(|_| PyValueError::new_err(format!("timestamp {timestamp} is beyond the year 9999")))?;
        let sign = || self.0.sign_object(payload, true, now);
        Ok(if payload.len() < WITHOUT_GIL { sign() } else { py.detach(sign) })
    }

    fn unsign<'py>(
        &self,
        signed: &Bound<'py, PyAny>,
        max_age: Option<&Bound<'py, PyAny>>,
        now: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<u8>> {
        let py = signed.py();
        let text = match signed.extract() {
            Ok(text) => text,
            // No str, or one with lone surrogates. Django looks for the separator before it minds.
            Err(_) if !signed.contains(":")? => {
                return Err(errors::to_python(py, SigningError::NoSignature, ""));
            }
            Err(error) => return Err(error),
        };
        let read = || self.0.unsign_object(text, None);
        let payload = if text.len() < WITHOUT_GIL { read() } else { py.detach(read) };
        let is_timed = matches!(
            payload,
            Ok(_) | Err(SigningError::Base64(_) | SigningError::Inflate(_) | SigningError::TooLarge { .. })
        );
        if let Some(max_age) = max_age
            && is_timed
        {
            // Python's own arithmetic decides: either number may be an int, a float or what a patched clock returns.
            let now =
                now.ok_or_else(|| PyTypeError::new_err("max_age needs now, for example now=time.time()"))?;
            check_age(text, max_age, now)?;
        }
        payload.map_err(|error| errors::to_python(py, error, text))
    }
}

/// Raise SignatureExpired if `signed`, whose signature and timestamp were found good, is older than `max_age`.
fn check_age(signed: &str, max_age: &Bound<'_, PyAny>, now: &Bound<'_, PyAny>) -> PyResult<()> {
    let timestamp = signed.rsplit(':').nth(1).unwrap_or_default();
    let age = now.sub(errors::b62_decode(now.py(), timestamp)?)?;
    let max_age = match max_age.cast::<PyDelta>() {
        Ok(delta) => &delta.call_method0("total_seconds")?,
        Err(_) => max_age,
    };
    if age.gt(max_age)? { Err(errors::expired(&age, max_age)) } else { Ok(()) }
}

/// A SECRET_KEY: str or bytes. An empty one would sign with nothing but the salt.
struct Key(Vec<u8>);

impl FromPyObject<'_, '_> for Key {
    type Error = PyErr;

    fn extract(key: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let bytes = match key.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes().to_vec(),
            Err(_) => key.extract::<PyBackedBytes>()?.to_vec(),
        };
        if bytes.is_empty() {
            return Err(PyValueError::new_err("a key must not be empty"));
        }
        Ok(Self(bytes))
    }
}

/// `JSONSerializer().dumps(obj)`.
#[pyfunction]
fn json_dumps<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(obj.py(), &encode::json(obj)?))
}

/// `JSONSerializer().loads(data)`.
#[pyfunction]
fn json_loads(py: Python<'_>, data: PyBackedBytes) -> PyResult<Bound<'_, PyAny>> {
    decode::json(py, &data)
}

/// `get_random_string(32, VALID_KEY_CHARS)`, as SessionBase draws a key.
#[pyfunction]
fn random_session_key() -> PyResult<String> {
    let key = SessionKey::random().map_err(|error| PyOSError::new_err(error.to_string()))?;
    Ok(key.as_str().to_owned())
}
