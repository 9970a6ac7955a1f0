//! What the values of a pickle are to Rust: classes that everybody uses are data here, and all others stay opaque.

use std::borrow::Cow;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::error::printable;
use super::graph::{Graph, How, Id, Links, Node, Object, Span, Step};
use super::{int, text};

/// A value by what can be read out of it.
pub(super) enum View<'a> {
    None,
    Bool(bool),
    Int(i64),
    Long(&'a [u8]),
    Float(f64),
    /// A text or one marked as safe, in UTF-8 where surrogates may stand.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// A list or tuple.
    Items(&'a [Id]),
    /// A set or frozenset.
    Set(&'a [Id]),
    Pairs(Cow<'a, [[Id; 2]]>),
    /// The message of a text that is translated late.
    Lazy(&'a [u8]),
    /// A date, number or id that is text in other formats. JSON as Python writes it does not have it.
    Written(String),
    Opaque,
}

pub(super) fn view(graph: &Graph, id: Id) -> View<'_> {
    match graph.node(id) {
        Node::None => View::None,
        Node::Bool(value) => View::Bool(value),
        Node::Int(value) => View::Int(value),
        Node::Long(span) => View::Long(graph.bytes(span)),
        Node::Float(value) => View::Float(value),
        Node::Str(span) => View::Text(graph.bytes(span)),
        Node::Bytes(span) | Node::ByteArray(span) => View::Bytes(graph.bytes(span)),
        Node::List(links) | Node::Tuple(links) => View::Items(graph.items(links)),
        Node::Set(links) | Node::FrozenSet(links) => View::Set(graph.items(links)),
        Node::Dict(links) => View::Pairs(Cow::Borrowed(graph.pairs(links))),
        Node::Global(_) => View::Opaque,
        Node::Object(place) => view_object(graph, graph.object(place)).unwrap_or(View::Opaque),
    }
}

fn view_object<'a>(graph: &'a Graph, object: &'a Object) -> Option<View<'a>> {
    let class = class_of(graph, object)?;
    let args = graph.tuple(object.args)?;
    let written = match class {
        ("django.utils.safestring", "SafeString" | "SafeText" | "SafeUnicode") => {
            return safe_text(graph, object, args);
        }
        ("collections", "OrderedDict" | "defaultdict") => return ordered_dict(graph, object, class.1, args),
        ("uuid", "UUID") => return uuid(graph, object).map(View::Written),
        // Nothing is done to what follows once it is made.
        _ if !object.steps.is_empty() => return None,
        ("django.utils.functional", "_lazy_proxy_unpickle") => {
            return lazy_text(graph, args).map(View::Lazy);
        }
        ("datetime", "datetime") => datetime(graph, args)?,
        ("datetime", "date") => date_of(state(graph, args, 4)?.as_ref())?.to_string(),
        ("datetime", "time") => time(graph, args)?,
        ("datetime", "timedelta") => timedelta(graph, args)?.to_string(),
        ("datetime", "timezone") | ("pytz", "_UTC" | "_p") => offset_text(fixed_offset(graph, class, args)?),
        ("zoneinfo", "ZoneInfo") => str_of(graph, *args.first()?)?.to_owned(),
        ("decimal", "Decimal") => str_of(graph, *args.first()?)?.to_owned(),
        _ => return None,
    };
    Some(View::Written(written))
}

/// Module and name of an object's class, as far as the pickle names it.
fn class_of<'a>(graph: &'a Graph, object: &'a Object) -> Option<(&'a str, &'a str)> {
    if let Node::Object(method) = graph.node(object.class) {
        let method = graph.object(method);
        // A method of a class: `getattr(zoneinfo.ZoneInfo, "_unpickle")`.
        return match (graph.global(method.class)?, graph.tuple(method.args)?) {
            (("builtins", "getattr"), [class, _]) => graph.global(*class),
            _ => None,
        };
    }
    match (graph.global(object.class)?, graph.tuple(object.args)?) {
        // Protocols 0 and 1.
        (("copyreg", "_reconstructor"), [class, _, _]) if object.how == How::Reduce => graph.global(*class),
        (class, _) => Some(class),
    }
}

/// Python's name of a value's type: with its module, unless it is built in.
pub(super) fn type_name(graph: &Graph, id: Id) -> String {
    let name = match graph.node(id) {
        Node::None => "None",
        Node::Bool(_) => "bool",
        Node::Int(_) | Node::Long(_) => "int",
        Node::Float(_) => "float",
        Node::Str(_) => "str",
        Node::Bytes(_) => "bytes",
        Node::ByteArray(_) => "bytearray",
        Node::List(_) => "list",
        Node::Tuple(_) => "tuple",
        Node::Dict(_) => "dict",
        Node::Set(_) => "set",
        Node::FrozenSet(_) => "frozenset",
        Node::Global(_) => {
            return graph.global(id).map_or_else(String::new, |(module, name)| printable(module, name));
        }
        Node::Object(place) => {
            return class_of(graph, graph.object(place))
                .map_or_else(|| "an unnamed class".to_owned(), |(module, name)| printable(module, name));
        }
    };
    name.to_owned()
}

// ------------------------------------------------------------------------------------------ parts of objects

fn str_of(graph: &Graph, id: Id) -> Option<&str> {
    match graph.node(id) {
        Node::Str(span) => graph.text(span),
        _ => None,
    }
}

fn int_of(graph: &Graph, id: Id) -> Option<i64> {
    match graph.node(id) {
        Node::Int(value) => Some(value),
        _ => None,
    }
}

/// The packed fields of a date or time; as text, in latin-1, if Python 2 wrote them.
fn state<'a>(graph: &'a Graph, args: &[Id], len: usize) -> Option<Cow<'a, [u8]>> {
    let bytes = match graph.node(*args.first()?) {
        Node::Bytes(span) => Cow::Borrowed(graph.bytes(span)),
        Node::Str(Span { len, .. }) if len > 20 => return None,
        Node::Str(span) => Cow::Owned(text::to_latin1(graph.bytes(span))?),
        _ => return None,
    };
    (bytes.len() == len).then_some(bytes)
}

fn date_of(bytes: &[u8]) -> Option<Date> {
    let [high, low, month, day, ..] = *bytes else { return None };
    let date = Date::new(i16::from_be_bytes([high, low]), month as i8, day as i8).ok()?;
    (date.year() >= 1).then_some(date)
}

fn time_of(bytes: &[u8]) -> Option<Time> {
    let [hour, minute, second, a, b, c] = *bytes else { return None };
    let micros = i32::from_be_bytes([0, a, b, c]);
    if second > 59 || micros > 999_999 {
        return None;
    }
    Time::new(hour as i8, minute as i8, second as i8, micros * 1000).ok()
}

/// In the first byte of what can be ambiguous, the second of two equal times has this bit.
const FOLD: u8 = 0x80;

fn datetime(graph: &Graph, args: &[Id]) -> Option<String> {
    let mut bytes = state(graph, args, 10)?.into_owned();
    let is_second = bytes[2] & FOLD != 0;
    bytes[2] &= !FOLD;
    let moment = DateTime::from_parts(date_of(&bytes)?, time_of(&bytes[4..])?);
    match args {
        [_] => Some(moment.to_string()),
        [_, zone] => Some(format!("{moment}{}", offset_text(offset_at(graph, *zone, moment, is_second)?))),
        _ => None,
    }
}

fn time(graph: &Graph, args: &[Id]) -> Option<String> {
    let mut bytes = state(graph, args, 6)?.into_owned();
    bytes[0] &= !FOLD;
    let time = time_of(&bytes)?;
    match args {
        [_] => Some(time.to_string()),
        [_, zone] => match graph.node(*zone) {
            Node::None => Some(time.to_string()),
            Node::Object(place) => {
                let object = graph.object(place);
                let class = class_of(graph, object)?;
                let args = graph.tuple(object.args)?;
                let offset = match class {
                    ("zoneinfo", "ZoneInfo") => {
                        let zone = TimeZone::get(str_of(graph, *args.first()?)?).ok()?;
                        // A zone whose offset varies has none without a date.
                        let is_fixed = zone.following(Timestamp::MIN).next().is_none();
                        is_fixed.then(|| SignedDuration::from(zone.to_offset(Timestamp::UNIX_EPOCH)))
                    }
                    _ => Some(fixed_offset(graph, class, args)?),
                };
                Some(format!("{time}{}", offset_text(offset)))
            }
            _ => None,
        },
        _ => None,
    }
}

fn timedelta(graph: &Graph, args: &[Id]) -> Option<SignedDuration> {
    let [days, seconds, micros] = args else { return None };
    let (days, seconds, micros) = (int_of(graph, *days)?, int_of(graph, *seconds)?, int_of(graph, *micros)?);
    let is_normal =
        days.abs() <= 999_999_999 && (0..86_400).contains(&seconds) && (0..1_000_000).contains(&micros);
    is_normal
        .then(|| SignedDuration::from_secs(days * 86_400 + seconds) + SignedDuration::from_micros(micros))
}

/// The offset from UTC of a zone that has but one, as `timezone` and the zones of pytz, which know the moment.
fn fixed_offset(graph: &Graph, class: (&str, &str), args: &[Id]) -> Option<SignedDuration> {
    match (class, args) {
        (("datetime", "timezone"), [offset] | [offset, _]) => {
            let Node::Object(place) = graph.node(*offset) else { return None };
            let object = graph.object(place);
            (class_of(graph, object)? == ("datetime", "timedelta")).then_some(())?;
            timedelta(graph, graph.tuple(object.args)?)
        }
        (("pytz", "_UTC"), []) => Some(SignedDuration::ZERO),
        (("pytz", "_p"), [_, seconds, ..]) => Some(SignedDuration::from_secs(int_of(graph, *seconds)?)),
        _ => None,
    }
    .filter(|offset| offset.abs() < SignedDuration::from_hours(24))
}

/// The offset of any zone that is known, at a moment. `None` in it is no zone.
fn offset_at(graph: &Graph, zone: Id, moment: DateTime, is_second: bool) -> Option<Option<SignedDuration>> {
    let Node::Object(place) = graph.node(zone) else {
        return matches!(graph.node(zone), Node::None).then_some(None);
    };
    let object = graph.object(place);
    let (class, args) = (class_of(graph, object)?, graph.tuple(object.args)?);
    if class != ("zoneinfo", "ZoneInfo") {
        return fixed_offset(graph, class, args).map(Some);
    }
    let zone = TimeZone::get(str_of(graph, *args.first()?)?).ok()?;
    let offset = match zone.to_ambiguous_zoned(moment).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
            if is_second {
                after
            } else {
                before
            }
        }
    };
    Some(Some(SignedDuration::from_secs(offset.seconds().into())))
}

/// As Python writes it after a time: `+02:00`, with seconds where there are any.
fn offset_text(offset: impl Into<Option<SignedDuration>>) -> String {
    let Some(offset) = offset.into() else { return String::new() };
    let sign = if offset.is_negative() { '-' } else { '+' };
    let (all, micros) = (offset.as_secs().abs(), offset.subsec_micros().abs());
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    let mut text = format!("{sign}{hours:02}:{minutes:02}");
    if seconds != 0 || micros != 0 {
        text.push_str(&format!(":{seconds:02}"));
    }
    if micros != 0 {
        text.push_str(&format!(".{micros:06}"));
    }
    text
}

fn uuid(graph: &Graph, object: &Object) -> Option<String> {
    let [Step::Build(state)] = object.steps[..] else { return None };
    let Node::Dict(items) = graph.node(state) else { return None };
    let [_, number] = graph.pairs(items).iter().find(|[key, _]| str_of(graph, *key) == Some("int"))?;
    let number = match graph.node(*number) {
        Node::Int(value) => u128::try_from(value).ok()?,
        Node::Long(span) => int::to_u128(graph.bytes(span))?,
        _ => return None,
    };
    let mut text = format!("{number:032x}");
    [20, 16, 12, 8].into_iter().for_each(|at| text.insert(at, '-'));
    Some(text)
}

fn safe_text<'a>(graph: &'a Graph, object: &Object, args: &[Id]) -> Option<View<'a>> {
    // The empty state of Python 2 changes nothing.
    let is_plain = object.steps.iter().all(|step| match step {
        Step::Build(state) => matches!(graph.node(*state), Node::Dict(Links { len: 0, .. })),
        _ => false,
    });
    let span = match (args, is_plain) {
        ([text], true) | ([_, _, text], true) => match graph.node(*text) {
            Node::Str(span) => span,
            _ => return None,
        },
        _ => return None,
    };
    Some(View::Text(graph.bytes(span)))
}

fn ordered_dict<'a>(graph: &'a Graph, object: &'a Object, class: &str, args: &[Id]) -> Option<View<'a>> {
    let mut pairs = Vec::new();
    match (class, args) {
        (_, []) | ("defaultdict", [_]) => {}
        // Python 2: a list of lists of key and value.
        ("OrderedDict", [items]) => {
            let Node::List(items) = graph.node(*items) else { return None };
            for item in graph.items(items) {
                let (Node::List(pair) | Node::Tuple(pair)) = graph.node(*item) else { return None };
                pairs.push(graph.items(pair).try_into().ok()?);
            }
        }
        _ => return None,
    }
    for step in &object.steps {
        match *step {
            Step::SetItems(items) if pairs.is_empty() && object.steps.len() == 1 => {
                return Some(View::Pairs(Cow::Borrowed(graph.pairs(items))));
            }
            Step::SetItems(items) => pairs.extend(graph.pairs(items)),
            // Attributes of its own, which are no items.
            Step::Build(_) => {}
            _ => return None,
        }
    }
    Some(View::Pairs(Cow::Owned(pairs)))
}

/// The message of `gettext_lazy`, untranslated: only Python has the catalogs.
fn lazy_text<'a>(graph: &'a Graph, args: &[Id]) -> Option<&'a [u8]> {
    let [function, args, keywords, ..] = args else { return None };
    if !matches!(graph.node(*keywords), Node::Dict(Links { len: 0, .. })) {
        return None;
    }
    let message = match (graph.global(*function)?, graph.tuple(*args)?) {
        (("django.utils.translation", "gettext" | "ugettext"), [message]) => *message,
        (("django.utils.translation", "pgettext"), [_, message]) => *message,
        _ => return None,
    };
    match graph.node(message) {
        Node::Str(span) => Some(graph.bytes(span)),
        _ => None,
    }
}
