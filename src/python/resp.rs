//! The little of Redis's protocol that the engines of Python need: RESP 2, and for the connection that hears of changed
//! keys the lists, maps, messages and nulls of RESP 3.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

/// Redis refuses to store longer strings: who announces more is no Redis.
const MAX_LENGTH: usize = 512 * 1024 * 1024;
/// Any other reply than a string is one short line.
const MAX_LINE: usize = 64 * 1024;
/// Of one list or message: so many keys do not change at once.
const MAX_ITEMS: usize = 1_000_000;
/// A message holds a list of keys; nothing that is asked for holds more.
const MAX_DEPTH: usize = 8;

/// A command as it is sent.
#[pyfunction]
#[pyo3(signature = (*words))]
pub(super) fn pack_command<'py>(words: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyBytes>> {
    let mut packed = Vec::with_capacity(64 + 32 * words.len());
    let mut digits = itoa::Buffer::new();
    let mut head = |packed: &mut Vec<u8>, kind: u8, length: usize| {
        packed.push(kind);
        packed.extend_from_slice(digits.format(length).as_bytes());
        packed.extend_from_slice(b"\r\n");
    };
    head(&mut packed, b'*', words.len());
    for word in words.iter_borrowed() {
        let word = word.cast::<PyBytes>()?;
        let word = word.as_bytes();
        head(&mut packed, b'$', word.len());
        packed.extend_from_slice(word);
        packed.extend_from_slice(b"\r\n");
    }
    Ok(PyBytes::new(words.py(), &packed))
}

/// Cuts replies out of the bytes of a connection, in whatever pieces these come.
///
/// A reply is bytes, an int, None or what `to_error` makes of an error's text; with `resp3` also a list, or a tuple for
/// a message that nobody asked for. After `invalid` was raised, which is for what is no reply, the connection is of no
/// more use.
#[pyclass(module = "django_rust_sessions._native")]
pub(super) struct ReplyReader {
    to_error: Py<PyAny>,
    invalid: Py<PyAny>,
    resp3: bool,
    buffer: Vec<u8>,
    /// Fewer bytes than this hold no whole reply.
    needed: usize,
}

#[pymethods]
impl ReplyReader {
    #[new]
    #[pyo3(signature = (to_error, invalid, *, resp3 = false))]
    fn new(to_error: Py<PyAny>, invalid: Py<PyAny>, resp3: bool) -> Self {
        Self { to_error, invalid, resp3, buffer: Vec::new(), needed: 0 }
    }

    /// The replies that are complete now.
    fn feed<'py>(&mut self, py: Python<'py>, data: PyBackedBytes) -> PyResult<Bound<'py, PyList>> {
        let replies = PyList::empty(py);
        if self.buffer.is_empty() {
            // As nearly always: nothing is left of the last piece, and nothing will be of this one.
            let done = self.cut(&data, &replies)?;
            self.buffer.extend_from_slice(&data[done..]);
            return Ok(replies);
        }
        self.buffer.extend_from_slice(&data);
        let buffer = std::mem::take(&mut self.buffer);
        let done = self.cut(&buffer, &replies)?;
        self.buffer = buffer;
        self.buffer.drain(..done);
        Ok(replies)
    }

    /// Whether nothing has come of a next reply.
    #[getter]
    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Why there is no reply at a position.
enum Stop {
    /// Not before that many bytes are there.
    Incomplete(usize),
    /// What is wrong with it.
    Invalid(&'static str),
    Raised(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

type Parsed<'py> = Result<(Bound<'py, PyAny>, usize), Stop>;

impl ReplyReader {
    /// How many bytes were used for replies.
    fn cut(&mut self, data: &[u8], replies: &Bound<'_, PyList>) -> PyResult<usize> {
        let mut position = 0;
        while data.len() - position >= self.needed.max(1) {
            self.needed = 0;
            match self.parse(replies.py(), &data[position..], 0) {
                Ok((reply, length)) => {
                    replies.append(reply)?;
                    position += length;
                }
                Err(Stop::Incomplete(needed)) => {
                    self.needed = needed;
                    break;
                }
                Err(Stop::Invalid(what)) => return Err(self.invalid(replies.py(), what)),
                Err(Stop::Raised(error)) => return Err(error),
            }
        }
        Ok(position)
    }

    fn invalid(&self, py: Python<'_>, what: &str) -> PyErr {
        match self.invalid.bind(py).call1((format!("Redis's answer {what}"),)) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    }

    /// The reply that `data` begins with, and its length.
    fn parse<'py>(&self, py: Python<'py>, data: &[u8], depth: usize) -> Parsed<'py> {
        let Some((&kind, rest)) = data.split_first() else { return Err(Stop::Incomplete(1)) };
        let (line, after) = match line(rest) {
            Some(end) => (&rest[..end], 1 + end + 2),
            None if data.len() < MAX_LINE && self.knows(kind) => {
                return Err(Stop::Incomplete(data.len() + 1));
            }
            None => return Err(Stop::Invalid("has no end of line")),
        };
        let reply = match kind {
            b'$' => return string(py, data, length(line, MAX_LENGTH)?, after),
            b'+' => PyBytes::new(py, line).into_any(),
            b':' => number(line)?.into_pyobject(py).map_err(PyErr::from)?.into_any(),
            b'-' => self.to_error.bind(py).call1((PyString::new(py, &String::from_utf8_lossy(line)),))?,
            b'_' if self.resp3 => py.None().into_bound(py),
            b'*' | b'>' | b'%' if self.resp3 => return self.list(py, kind, data, line, after, depth),
            _ => return Err(Stop::Invalid("is of an unknown type")),
        };
        Ok((reply, after))
    }

    fn knows(&self, kind: u8) -> bool {
        matches!(kind, b'$' | b'+' | b':' | b'-') || self.resp3 && matches!(kind, b'*' | b'>' | b'%' | b'_')
    }

    /// A list, a map as a list of its names and values, or a message as a tuple.
    fn list<'py>(
        &self,
        py: Python<'py>,
        kind: u8,
        data: &[u8],
        line: &[u8],
        start: usize,
        depth: usize,
    ) -> Parsed<'py> {
        let Some(length) = length(line, MAX_ITEMS)? else { return Ok((py.None().into_bound(py), start)) };
        if depth == MAX_DEPTH {
            return Err(Stop::Invalid("is nested too deeply"));
        }
        let (items, mut position) = (PyList::empty(py), start);
        for _ in 0..length * (1 + usize::from(kind == b'%')) {
            let (item, length) = self.parse(py, &data[position..], depth + 1).map_err(|stop| match stop {
                Stop::Incomplete(needed) => Stop::Incomplete(position + needed),
                other => other,
            })?;
            items.append(item)?;
            position += length;
        }
        Ok((if kind == b'>' { items.to_tuple().into_any() } else { items.into_any() }, position))
    }
}

/// Where the line ends that `data` begins with. It is not looked for further than a line can be long.
fn line(data: &[u8]) -> Option<usize> {
    let part = &data[..data.len().min(MAX_LINE)];
    part.windows(2).position(|pair| pair == b"\r\n")
}

/// A string, for which `None` is Redis's null.
fn string<'py>(py: Python<'py>, data: &[u8], length: Option<usize>, start: usize) -> Parsed<'py> {
    let Some(length) = length else { return Ok((py.None().into_bound(py), start)) };
    let end = start + length;
    match data.get(end..end + 2) {
        None => Err(Stop::Incomplete(end + 2)),
        Some(b"\r\n") => Ok((PyBytes::new(py, &data[start..end]).into_any(), end + 2)),
        Some(_) => Err(Stop::Invalid("is longer than announced")),
    }
}

/// `None` for -1.
fn length(line: &[u8], most: usize) -> Result<Option<usize>, Stop> {
    match number(line)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(Stop::Invalid("has an impossible length")),
        },
    }
}

fn number(line: &[u8]) -> Result<i64, Stop> {
    let text = std::str::from_utf8(line).ok();
    text.and_then(|text| text.parse().ok()).ok_or(Stop::Invalid("has no number where one must be"))
}
