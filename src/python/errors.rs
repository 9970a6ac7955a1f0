//! The one table that turns errors of the crate into the exceptions that Django raises in the same place.

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::signing::{Base64Error, SigningError};

/// The exception for `error`, which came of reading `signed`.
pub(super) fn to_python(py: Python<'_>, error: SigningError, signed: &str) -> PyErr {
    match error {
        SigningError::NoSignature => bad_signature(py, "No \":\" found in value".to_owned()),
        SigningError::BadSignature => {
            let signature = signed.rsplit(':').next().unwrap_or_default();
            bad_signature(py, format!("Signature \"{signature}\" does not match"))
        }
        SigningError::NoTimestamp => PyValueError::new_err("not enough values to unpack (expected 2, got 1)"),
        SigningError::InvalidTimestamp => match signed.rsplit(':').nth(1) {
            Some("") => PyIndexError::new_err("string index out of range"),
            _ => PyValueError::new_err("substring not found"),
        },
        SigningError::Base64(error) => base64(py, error, signed),
        SigningError::Inflate(reason) => zlib(py, reason),
        SigningError::TooLarge { max_size } => {
            static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let message = format!("the signed payload inflates to more than {max_size} bytes");
            raise(py, &CLASS, "django_rust_sessions.exceptions", "SessionTooLarge", message)
        }
        // Ages and JSON are read in Python's own terms, so these two do not come from here.
        error @ (SigningError::SignatureExpired { .. } | SigningError::Json(_)) => {
            PyValueError::new_err(error.to_string())
        }
    }
}

/// `SignatureExpired`, in Django's words.
pub(super) fn expired(age: &Bound<'_, PyAny>, max_age: &Bound<'_, PyAny>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let message = format!("Signature age {age} > {max_age} seconds");
    raise(age.py(), &CLASS, "django.core.signing", "SignatureExpired", message)
}

/// `django.core.signing.b62_decode`, whose integers have no end.
pub(super) fn b62_decode<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FUNCTION.import(py, "django.core.signing", "b62_decode")?.call1((text,))
}

fn bad_signature(py: Python<'_>, message: String) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    raise(py, &CLASS, "django.core.signing", "BadSignature", message)
}

fn base64(py: Python<'_>, error: Base64Error, signed: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let message = match error {
        Base64Error::DataLength => {
            let value = signed.rsplitn(3, ':').nth(2).unwrap_or_default();
            let is_data = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
            let count = value.bytes().filter(is_data).count();
            format!(
                "Invalid base64-encoded string: number of data characters ({count}) \
                 cannot be 1 more than a multiple of 4"
            )
        }
        Base64Error::Padding => "Incorrect padding".to_owned(),
    };
    raise(py, &CLASS, "binascii", "Error", message)
}

fn zlib(py: Python<'_>, reason: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Z_BUF_ERROR is what CPython reports of a stream that ends too early, Z_DATA_ERROR of any other bad one.
    let code = if reason == "incomplete or truncated stream" { -5 } else { -3 };
    raise(py, &CLASS, "zlib", "error", format!("Error {code} while decompressing data: {reason}"))
}

fn raise(py: Python<'_>, class: &PyOnceLock<Py<PyAny>>, module: &str, name: &str, message: String) -> PyErr {
    match class.import(py, module, name).and_then(|class| class.call1((message,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
