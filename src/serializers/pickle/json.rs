//! Values as JSON, and JSON as values, without a stack of calls.

use std::collections::HashMap;

use super::classes::{self, View};
use super::graph::{Builder, FALSE, Graph, Id, Links, NONE, Node, TRUE};
use super::int::{self, Int};
use super::{Error, MAX_EXPANDED, keys, text};
use crate::serializers::json::scan::{Kind, Scanner, unescape};
use crate::serializers::json::{self, RawValue, write_code_point, write_float};

impl From<json::Error> for Error {
    fn from(error: json::Error) -> Self {
        match error {
            json::Error::IntegerTooLong => Error::IntegerTooLong,
            json::Error::LoneSurrogate => Error::LoneSurrogate,
            json::Error::IntegerOutOfRange => Error::IntegerOutOfRange,
            other => Error::Shape(other.to_string()),
        }
    }
}

/// A list or object that is being written.
struct Open<'a> {
    id: Id,
    items: Items<'a>,
    at: usize,
}

enum Items<'a> {
    Array(&'a [Id]),
    Object(std::borrow::Cow<'a, [[Id; 2]]>),
}

pub(super) fn to_json(graph: &Graph, root: Id) -> Result<RawValue, Error> {
    let mut writer =
        Writer { graph, output: Vec::new(), open: Vec::new(), is_open: vec![false; graph.nodes.len()] };
    // What is shared is written out each time.
    let max = MAX_EXPANDED.max(graph.data.len() * 8);
    writer.value(root)?;
    while let Some(open) = writer.open.pop() {
        writer.next_item(open)?;
        if writer.output.len() > max {
            return Err(Error::Limit { unit: "bytes of JSON", max });
        }
    }
    Ok(RawValue::trusted(writer.output))
}

struct Writer<'a> {
    graph: &'a Graph,
    output: Vec<u8>,
    open: Vec<Open<'a>>,
    /// Whether a node is open: what is met again within itself has no JSON.
    is_open: Vec<bool>,
}

impl<'a> Writer<'a> {
    fn value(&mut self, id: Id) -> Result<(), Error> {
        match classes::view(self.graph, id) {
            View::None => self.output.extend(b"null"),
            View::Bool(value) => self.output.extend(if value { &b"true"[..] } else { b"false" }),
            View::Int(value) => self.output.extend(value.to_string().as_bytes()),
            View::Long(bytes) => self.output.extend(int::to_decimal(bytes)?.as_bytes()),
            View::Float(value) => write_float(&mut self.output, value),
            View::Text(text) => write_text(&mut self.output, text),
            View::Items(items) => return self.begin(id, b'[', Items::Array(items)),
            View::Pairs(pairs) => return self.begin(id, b'{', Items::Object(pairs)),
            View::Bytes(_) | View::Set(_) | View::Lazy(_) | View::Written(_) | View::Opaque => {
                return Err(Error::NoJson { kind: classes::type_name(self.graph, id) });
            }
        }
        Ok(())
    }

    fn begin(&mut self, id: Id, bracket: u8, items: Items<'a>) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_open[id as usize], true) {
            return Err(Error::Circular);
        }
        if self.open.len() >= json::MAX_DEPTH {
            return Err(Error::Limit { unit: "levels", max: json::MAX_DEPTH });
        }
        self.output.push(bracket);
        self.open.push(Open { id, items, at: 0 });
        Ok(())
    }

    fn next_item(&mut self, mut open: Open<'a>) -> Result<(), Error> {
        let (next, close) = match &open.items {
            Items::Array(items) => (items.get(open.at).map(|value| (None, *value)), b']'),
            Items::Object(items) => (items.get(open.at).map(|[key, value]| (Some(*key), *value)), b'}'),
        };
        let Some((key, value)) = next else {
            self.output.push(close);
            self.is_open[open.id as usize] = false;
            return Ok(());
        };
        if open.at > 0 {
            self.output.push(b',');
        }
        open.at += 1;
        self.open.push(open);
        if let Some(key) = key {
            self.key(key)?;
            self.output.push(b':');
        }
        self.value(value)
    }

    fn key(&mut self, id: Id) -> Result<(), Error> {
        if let View::Text(text) = classes::view(self.graph, id) {
            write_text(&mut self.output, text);
            return Ok(());
        }
        match classes::view(self.graph, id) {
            View::None | View::Bool(_) | View::Int(_) | View::Long(_) | View::Float(_) => {
                self.output.push(b'"');
                self.value(id)?;
                self.output.push(b'"');
                Ok(())
            }
            _ => Err(Error::NoJson { kind: format!("a key of type {}", classes::type_name(self.graph, id)) }),
        }
    }
}

/// Text in which surrogates may stand, as a JSON string in ASCII.
fn write_text(output: &mut Vec<u8>, text: &[u8]) {
    output.push(b'"');
    text::each_code_point(text, |code_point| write_code_point(output, code_point));
    output.push(b'"');
}

/// What is being read: items so far, and for an object the key that waits for its value.
enum Unfinished {
    Array(Vec<Id>),
    Object(Vec<Id>, Id),
}

pub(super) fn from_json(json: &RawValue) -> Result<(Graph, Id), Error> {
    let mut reader = Reader {
        scanner: Scanner::new(json.as_bytes()),
        builder: Builder::new(),
        keys: HashMap::new(),
        open: Vec::new(),
    };
    let root = reader.run()?;
    let mut graph = reader.builder.graph;
    keys::settle(&mut graph)?;
    Ok((graph, root))
}

/// A number or literal, as Python's `json.loads` reads it.
pub(super) enum Scalar {
    None,
    Bool(bool),
    Int(Int),
    Float(f64),
}

/// The number or literal that comes next, and is of this kind.
///
/// # Errors
/// What the scanner finds, and an integer longer than Python takes.
pub(super) fn scalar(scanner: &mut Scanner<'_>, kind: Kind) -> Result<Scalar, Error> {
    let Kind::Literal(literal) = kind else {
        return Ok(match scanner.number()? {
            (text, true) => Scalar::Int(int::from_decimal(text)?),
            (text, false) => Scalar::Float(text.parse().expect("a number by the grammar is one to Rust")),
        });
    };
    scanner.offset += literal.len();
    Ok(match literal {
        "null" => Scalar::None,
        "false" => Scalar::Bool(false),
        "true" => Scalar::Bool(true),
        "NaN" => Scalar::Float(f64::NAN),
        "Infinity" => Scalar::Float(f64::INFINITY),
        _ => Scalar::Float(f64::NEG_INFINITY),
    })
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    builder: Builder,
    /// Equal keys are one object, as `json.loads` makes them.
    keys: HashMap<Vec<u8>, Id>,
    open: Vec<Unfinished>,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<Id, Error> {
        loop {
            let Some(mut value) = self.value()? else { continue };
            loop {
                let Some(open) = self.open.pop() else { return Ok(value) };
                match self.put(open, value)? {
                    Some(finished) => value = finished,
                    None => break,
                }
            }
        }
    }

    /// The scalar or empty compound that comes next; `None` if a compound begins.
    fn value(&mut self) -> Result<Option<Id>, Error> {
        let id = match self.scanner.kind()? {
            Kind::Array => {
                self.scanner.take(b'[');
                if !self.scanner.take(b']') {
                    self.open.push(Unfinished::Array(Vec::new()));
                    return Ok(None);
                }
                self.builder.push(Node::List(Links::default()))
            }
            Kind::Object => {
                self.scanner.take(b'{');
                if !self.scanner.take(b'}') {
                    let key = self.key()?;
                    self.open.push(Unfinished::Object(Vec::new(), key));
                    return Ok(None);
                }
                self.builder.push(Node::Dict(Links::default()))
            }
            Kind::String => {
                let text = unescape(self.scanner.string()?);
                let span = self.builder.span(&text);
                self.builder.push(Node::Str(span))
            }
            kind @ (Kind::Number | Kind::Literal(_)) => match scalar(&mut self.scanner, kind)? {
                Scalar::None => NONE,
                Scalar::Bool(false) => FALSE,
                Scalar::Bool(true) => TRUE,
                Scalar::Float(value) => self.builder.push(Node::Float(value)),
                Scalar::Int(Int::Small(value)) => self.builder.push(Node::Int(value)),
                Scalar::Int(Int::Big(bytes)) => {
                    let span = self.builder.span(&bytes);
                    self.builder.push(Node::Long(span))
                }
            },
        };
        Ok(Some(id))
    }

    fn key(&mut self) -> Result<Id, Error> {
        let key = unescape(self.scanner.key()?);
        if let Some(id) = self.keys.get(&key) {
            return Ok(*id);
        }
        let span = self.builder.span(&key);
        let id = self.builder.push(Node::Str(span));
        self.keys.insert(key, id);
        Ok(id)
    }

    /// Puts a value where it belongs. What is finished by it is returned.
    fn put(&mut self, open: Unfinished, value: Id) -> Result<Option<Id>, Error> {
        let has_more = self.scanner.take(b',');
        let node = match open {
            Unfinished::Array(mut items) => {
                items.push(value);
                if has_more {
                    self.open.push(Unfinished::Array(items));
                    return Ok(None);
                }
                self.scanner.take(b']');
                Node::List(self.builder.link(&items))
            }
            Unfinished::Object(mut items, key) => {
                items.extend([key, value]);
                if has_more {
                    let key = self.key()?;
                    self.open.push(Unfinished::Object(items, key));
                    return Ok(None);
                }
                self.scanner.take(b'}');
                Node::Dict(self.builder.link(&items))
            }
        };
        Ok(Some(self.builder.push(node)))
    }
}
