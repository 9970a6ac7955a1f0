//! Python objects written as JSON, as `json.dumps(obj, separators=(",", ":"))` writes them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::serializers::json::{write_float, write_str};

/// Deeper nesting is left to Python, which knows its own limit, and tells circles from depth.
const MAX_DEPTH: usize = 200;

/// Something that only `json.dumps` writes, or refuses with the right exception.
struct LeaveToPython;

impl From<PyErr> for LeaveToPython {
    fn from(_: PyErr) -> Self {
        Self
    }
}

/// `json.dumps(obj, separators=(",", ":")).encode("latin-1")`.
pub(super) fn json(obj: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut output = Vec::with_capacity(256);
    // pyo3 panics if another thread of a free-threaded Python adds a key to a dict that is walked through. What json.dumps
    // does then is right.
    let written = catch_unwind(AssertUnwindSafe(|| write(&mut output, obj, MAX_DEPTH)));
    match written {
        Ok(Ok(())) => Ok(output),
        Ok(Err(LeaveToPython)) | Err(_) => json_in_python(obj),
    }
}

/// The whole object once more, so that values, hooks and exceptions are Python's in every detail.
#[cold]
fn json_in_python(obj: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = obj.py();
    let options = PyDict::new(py);
    options.set_item("separators", (",", ":"))?;
    let text = DUMPS.import(py, "json", "dumps")?.call((obj,), Some(&options))?;
    Ok(text.cast::<PyString>()?.to_str()?.as_bytes().to_vec())
}

fn write(output: &mut Vec<u8>, value: &Bound<'_, PyAny>, depth_left: usize) -> Result<(), LeaveToPython> {
    // Of a subclass of str (SafeString!) json writes what str holds; any other subclass may have a say in it.
    if let Ok(text) = value.cast::<PyString>() {
        write_string(output, text)
    } else if let Ok(integer) = value.cast_exact::<PyInt>() {
        write_integer(output, integer)
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        write_dict(output, dict, depth_left.checked_sub(1).ok_or(LeaveToPython)?)
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        write_items(output, list.iter(), depth_left.checked_sub(1).ok_or(LeaveToPython)?)
    } else if let Ok(boolean) = value.cast_exact::<PyBool>() {
        output.extend(if boolean.is_true() { &b"true"[..] } else { b"false" });
        Ok(())
    } else if value.is_none() {
        output.extend(b"null");
        Ok(())
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        write_float(output, float.value());
        Ok(())
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        write_items(output, tuple.iter(), depth_left.checked_sub(1).ok_or(LeaveToPython)?)
    } else {
        Err(LeaveToPython)
    }
}

fn write_string(output: &mut Vec<u8>, text: &Bound<'_, PyString>) -> Result<(), LeaveToPython> {
    let text = text.to_str()?;
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    // Without an early end the compiler looks at many bytes at once.
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        output.push(b'"');
        output.extend(text.as_bytes());
        output.push(b'"');
    } else {
        write_str(output, text);
    }
    Ok(())
}

fn write_integer(output: &mut Vec<u8>, integer: &Bound<'_, PyInt>) -> Result<(), LeaveToPython> {
    let integer: i64 = integer.extract()?;
    output.extend(itoa::Buffer::new().format(integer).as_bytes());
    Ok(())
}

fn write_items<'py>(
    output: &mut Vec<u8>,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth_left: usize,
) -> Result<(), LeaveToPython> {
    output.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            output.push(b',');
        }
        write(output, &item, depth_left)?;
    }
    output.push(b']');
    Ok(())
}

fn write_dict(
    output: &mut Vec<u8>,
    dict: &Bound<'_, PyDict>,
    depth_left: usize,
) -> Result<(), LeaveToPython> {
    output.push(b'{');
    for (index, (key, value)) in dict.iter().enumerate() {
        if index > 0 {
            output.push(b',');
        }
        write_key(output, &key)?;
        output.push(b':');
        write(output, &value, depth_left)?;
    }
    output.push(b'}');
    Ok(())
}

/// A key as json.dumps turns it into a string.
fn write_key(output: &mut Vec<u8>, key: &Bound<'_, PyAny>) -> Result<(), LeaveToPython> {
    if let Ok(text) = key.cast::<PyString>() {
        return write_string(output, text);
    }
    output.push(b'"');
    if let Ok(integer) = key.cast_exact::<PyInt>() {
        write_integer(output, integer)?;
    } else if let Ok(boolean) = key.cast_exact::<PyBool>() {
        output.extend(if boolean.is_true() { &b"true"[..] } else { b"false" });
    } else if key.is_none() {
        output.extend(b"null");
    } else if let Ok(float) = key.cast_exact::<PyFloat>() {
        write_float(output, float.value());
    } else {
        return Err(LeaveToPython);
    }
    output.push(b'"');
    Ok(())
}
