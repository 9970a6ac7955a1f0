//! What Django before 3.1 wrote, for the option LEGACY of the Python package.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{Key, errors};
use crate::crypto::{Algorithm, SecretKeys};
use crate::serializers::legacy;
use crate::signing::SigningError;

/// The hash function that Django calls by this name in `Signer(algorithm=...)`.
pub(super) fn algorithm(name: &str) -> PyResult<Algorithm> {
    match name {
        "sha256" => Ok(Algorithm::Sha256),
        "sha1" => Ok(Algorithm::Sha1),
        _ => Err(PyValueError::new_err("algorithm must be \"sha256\" or \"sha1\"")),
    }
}

/// The base64 of `hash:payload` that SessionBase.encode() made before Django 3.1.
#[pyclass(frozen, module = "django_rust_sessions._native")]
pub(super) struct LegacyCodec(legacy::LegacyCodec);

#[pymethods]
impl LegacyCodec {
    #[new]
    #[pyo3(signature = (key, class_name, fallback_keys = Vec::new()))]
    fn new(key: Key, class_name: &str, fallback_keys: Vec<Key>) -> Self {
        let keys = SecretKeys::new(key.0).with_fallbacks(fallback_keys.into_iter().map(|key| key.0));
        Self(legacy::LegacyCodec::new(&keys, class_name))
    }

    /// The serialized bytes in `session_data`; BadSignature for whatever is not in this format.
    fn loads_bytes<'py>(&self, session_data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = session_data.py();
        // No str, or one with lone surrogates, was not written by Django.
        let payload = session_data.extract().ok().and_then(|text: &str| self.0.decode(text).ok());
        match payload {
            Some(payload) => Ok(PyBytes::new(py, &payload)),
            None => Err(errors::to_python(py, SigningError::BadSignature, "")),
        }
    }
}
