//! The file engine: Django's steps on the disk, each without the GIL.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::Signer;
use crate::backends::file::{self, Stored, Sweep, Verdict};
use crate::serializers::json::Object;
use crate::signing::TimestampSigner;

const SECOND: i64 = 1_000_000;

/// How far Python's rounding of a file's time, a float, may be from ours.
const ROUNDING: i64 = 1000;

/// How far apart the offsets of a time zone may be at two moments: Samoa once left out a whole day.
const OFFSETS: i64 = 26 * 3600 * SECOND;

/// The content of a file and its `st_mtime`.
#[pyfunction]
pub(super) fn read_session_file(py: Python<'_>, path: PathBuf) -> PyResult<(Bound<'_, PyBytes>, f64)> {
    match py.detach(|| file::read(&path)) {
        Ok(stored) => Ok((PyBytes::new(py, &stored.contents), mtime(stored.modified))),
        Err(error) => Err(os_error(&error, Some(path))),
    }
}

/// Find an existing session's file, or make a new one's, empty.
#[pyfunction]
pub(super) fn claim_session_file(py: Python<'_>, path: PathBuf, must_create: bool) -> PyResult<()> {
    py.detach(|| file::claim(&path, must_create)).map_err(|error| os_error(&error, Some(path)))
}

/// Make a new session's file, whole. FileExistsError if the key is taken.
#[pyfunction]
pub(super) fn create_session_file(
    py: Python<'_>,
    path: PathBuf,
    contents: PyBackedBytes,
    fsync: bool,
) -> PyResult<()> {
    py.detach(|| file::create(&path, &contents, fsync)).map_err(|error| os_error(&error, None))
}

/// Put a whole new file in the place of the old one. The errors do not name it, for its name holds the session key.
#[pyfunction]
pub(super) fn replace_session_file(
    py: Python<'_>,
    path: PathBuf,
    contents: PyBackedBytes,
    fsync: bool,
) -> PyResult<()> {
    py.detach(|| file::replace(&path, &contents, fsync)).map_err(|error| os_error(&error, None))
}

/// Delete the files of expired sessions.
///
/// `now` is in microseconds since 1970: of UTC if `is_aware`, and else of the local calendar. Returns how many files had
/// a bad signature, and the keys that were left for Python to judge: whatever Django may raise an error for, or decide
/// by a hair's breadth. With `leave_unsigned`, also those with a bad signature.
#[pyfunction]
#[pyo3(signature = (directory, prefix, signer, *, now, is_aware, cookie_age, leave_unsigned))]
#[allow(clippy::too_many_arguments, reason = "they are named where it is called")]
pub(super) fn clear_session_files(
    py: Python<'_>,
    directory: PathBuf,
    prefix: &str,
    signer: &Signer,
    now: i64,
    is_aware: bool,
    cookie_age: i64,
    leave_unsigned: bool,
) -> PyResult<(usize, Vec<String>)> {
    let unsigned = AtomicUsize::new(0);
    let judge = Judge { signer: &signer.0, now, is_aware, cookie_age, leave_unsigned, unsigned };
    let mut left = Vec::new();
    py.detach(|| {
        let to_python = |error| os_error(&error, Some(directory.clone()));
        let mut sweep = Sweep::new(&directory, prefix).map_err(to_python)?;
        while let Some(part) = sweep.part(|stored| judge.judge(stored)).map_err(to_python)? {
            left.extend(part.reported);
            // Ctrl-C ends it.
            Python::attach(|py| py.check_signals())?;
        }
        PyResult::Ok(())
    })?;
    Ok((judge.unsigned.into_inner(), left))
}

/// `SessionStore.load()` of Django's file engine, as far as it decides whether a session is over.
struct Judge<'a> {
    signer: &'a TimestampSigner,
    now: i64,
    is_aware: bool,
    cookie_age: i64,
    leave_unsigned: bool,
    unsigned: AtomicUsize,
}

impl Judge<'_> {
    fn judge(&self, stored: &Stored) -> Verdict {
        // Python reads it as text, and translates line ends.
        let Ok(text) = str::from_utf8(&stored.contents) else { return Verdict::Report };
        if text.is_empty() {
            return Verdict::Keep;
        }
        if !text.is_ascii() || text.contains('\r') {
            return Verdict::Report;
        }
        let verdict = match self.signer.unsign_object(text, None) {
            Ok(payload) => Object::parse(&payload).ok().and_then(|session| self.by_content(&session, stored)),
            Err(error) if error.is_bad_signature() && !self.leave_unsigned => {
                let verdict = self.by_time(stored);
                self.unsigned.fetch_add(usize::from(verdict.is_some()), Ordering::Relaxed);
                verdict
            }
            Err(_) => None,
        };
        verdict.unwrap_or(Verdict::Report)
    }

    fn by_content(&self, session: &Object, stored: &Stored) -> Option<Verdict> {
        let Some(expiry) = session.get("_session_expiry") else { return self.by_time(stored) };
        if let Ok(seconds) = expiry.to::<f64>() {
            return match seconds {
                0.0 => self.by_time(stored),
                seconds if seconds.is_nan() => None,
                // As in Django, the time that the session was saved at does not count.
                seconds => Some(over(seconds < 0.0)),
            };
        }
        match expiry.to::<Option<String>>().ok()? {
            None => self.by_time(stored),
            Some(text) => {
                let (moment, is_aware) = parse_isoformat(&text)?;
                // Python refuses to compare a moment that knows its offset with one that does not.
                (is_aware == self.is_aware).then(|| over(moment - self.now < SECOND))
            }
        }
    }

    fn by_time(&self, stored: &Stored) -> Option<Verdict> {
        let modified = match stored.modified.duration_since(UNIX_EPOCH) {
            Ok(duration) => i64::try_from(duration.as_micros()).ok()?,
            Err(_) => return None,
        };
        let age = self.cookie_age.checked_mul(SECOND)?.checked_add(modified)?.checked_sub(self.now)?;
        // Of local times only those far apart are known to be so in UTC too.
        let margin = if self.is_aware { ROUNDING } else { OFFSETS };
        ((age - SECOND).abs() > margin).then(|| over(age < SECOND))
    }
}

fn over(is_over: bool) -> Verdict {
    if is_over { Verdict::Delete } else { Verdict::Keep }
}

/// What Python's `datetime.isoformat()` writes, in microseconds since 1970, and whether it has an offset. Other text
/// that Python can read is left to it.
fn parse_isoformat(text: &str) -> Option<(i64, bool)> {
    let digits = |at: std::ops::Range<usize>| {
        let digits = text.get(at)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
    };
    let signs = |signs: &[(usize, u8)]| signs.iter().all(|(at, sign)| text.as_bytes().get(*at) == Some(sign));
    if !signs(&[(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]) {
        return None;
    }
    let (micros, end) = match signs(&[(19, b'.')]) {
        true => (digits(20..26)?, 26),
        false => (0, 19),
    };
    let offset = match text.as_bytes().get(end) {
        None => None,
        Some(sign @ (b'+' | b'-')) if text.len() == end + 6 && signs(&[(end + 3, b':')]) => {
            let (hours, minutes) = (digits(end + 1..end + 3)?, digits(end + 4..end + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        Some(_) => return None,
    };
    let year = digits(0..4).filter(|year| *year > 0)?;
    let [month, day, hour, minute, second] =
        [digits(5..7)?, digits(8..10)?, digits(11..13)?, digits(14..16)?, digits(17..19)?];
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|number| number as i8);
    let local = DateTime::new(year as i16, month, day, hour, minute, second, 0).ok()?;
    let seconds = local.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second() - offset.unwrap_or(0);
    Some((seconds * SECOND + micros, offset.is_some()))
}

/// As CPython makes a float of the time of a file.
fn mtime(modified: SystemTime) -> f64 {
    match modified.duration_since(UNIX_EPOCH) {
        Ok(duration) => duration.as_secs() as f64 + 1e-9 * f64::from(duration.subsec_nanos()),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Python's OSError, of the subclass that belongs to the error.
fn os_error(error: &io::Error, path: Option<PathBuf>) -> PyErr {
    let Some(errno) = error.raw_os_error() else { return PyOSError::new_err(error.to_string()) };
    // Rust puts "(os error 2)" behind the words that Python has too.
    let message = error.to_string();
    let strerror = message.split(" (os error").next().unwrap_or_default().to_owned();
    match path {
        Some(path) => PyOSError::new_err((errno, strerror, path.into_os_string())),
        None => PyOSError::new_err((errno, strerror)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_as_python_writes_them() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        for (text, moment, is_aware) in [
            ("2026-11-23T12:00:00+00:00", at("2026-11-23T12:00:00Z"), true),
            ("2026-11-23T12:00:00.000001+00:00", at("2026-11-23T12:00:00.000001Z"), true),
            ("2026-11-23T12:00:00.250000-05:30", at("2026-11-23T17:30:00.25Z"), true),
            ("2026-11-23T12:00:00", at("2026-11-23T12:00:00Z"), false),
            ("1969-12-31T23:59:59.999999", -1, false),
            ("0001-01-01T00:00:00", at("0001-01-01T00:00:00Z"), false),
        ] {
            assert_eq!(parse_isoformat(text), Some((moment, is_aware)), "{text}");
        }
    }

    #[test]
    fn other_moments_are_left_to_python() {
        for text in [
            "",
            "soon",
            "2026-11-23",
            "2026-11-23 12:00:00",
            "2026-11-23T12:00:00Z",
            "2026-11-23T12:00:00.25",
            "2026-11-23T12:00:60",
            "2026-02-29T12:00:00",
            "0000-01-01T00:00:00",
            "2026-11-23T12:00:00+24:00",
            "2026-11-23T12:00:00+00:60",
            "2026-11-23T12:00:00+00:00:30",
            "2026-11-23T12:00:00+0000",
            "+026-11-23T12:00:00",
            "2026-11-23T12:00:00é",
            "2026-11-2éT12:00:00",
        ] {
            assert_eq!(parse_isoformat(text), None, "{text}");
        }
    }
}
