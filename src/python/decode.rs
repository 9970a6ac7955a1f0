//! JSON read into Python objects, as `json.loads(data.decode("latin-1"))` reads it.

use jiter::{FloatMode, PartialMode, PythonParse, StringCacheMode};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

/// Integers this long may be refused by Python: `sys.set_int_max_str_digits` goes down to this number.
const INT_MAX_STR_DIGITS_THRESHOLD: usize = 640;

/// `json.loads(data.decode("latin-1"))`.
///
/// jiter reads all that Python and this crate write. What it refuses (lone surrogates, more than 200 levels,
/// every error) and what it would read differently goes to Python, whose word is then final.
pub(super) fn json<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let jiter = PythonParse {
        allow_inf_nan: true,
        // Keys come again in every session. Values may be secrets: they stay in no cache.
        cache_mode: StringCacheMode::Keys,
        partial_mode: PartialMode::Off,
        catch_duplicate_keys: false,
        float_mode: FloatMode::Float,
    };
    // jiter takes bytes beyond ASCII for UTF-8, Django for latin-1.
    if data.is_ascii()
        && !has_long_number(data)
        && let Ok(value) = jiter.python_parse(py, data)
    {
        return Ok(value);
    }
    json_in_python(py, data)
}

#[cold]
fn json_in_python<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let text = PyBytes::new(py, data).call_method1("decode", ("latin-1",))?;
    LOADS.import(py, "json", "loads")?.call1((text,))
}

/// Whether `data` has a run of digits that is long enough for Python to refuse it as an integer.
fn has_long_number(data: &[u8]) -> bool {
    // A run that long covers at least one of these places, so that few bytes are looked at.
    let places = (0..data.len()).step_by(INT_MAX_STR_DIGITS_THRESHOLD);
    places.filter(|place| data[*place].is_ascii_digit()).any(|place| {
        let before = data[..place].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let after = data[place..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        before + after >= INT_MAX_STR_DIGITS_THRESHOLD
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_found_wherever_they_stand() {
        for start in [0, 1, 639, 640, 641, 1279, 5000] {
            for (length, expected) in [(639, false), (640, true), (641, true), (5000, true)] {
                let data = [vec![b' '; start], vec![b'7'; length], vec![b' '; 700]].concat();
                assert_eq!(has_long_number(&data), expected, "{length} digits at {start}");
            }
        }
    }
}
