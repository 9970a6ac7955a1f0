//! A value of a pickle, and values made in Rust.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::classes::{self, View};
use super::graph::{Builder, Graph, How, Id, Links, Node, Object, Step};
use super::{Error, de, int, json, keys, text};
use crate::serializers::json::RawValue;

/// What a value is to Python.
///
/// ```
/// use django_sessions::serializers::pickle::{Kind, Value};
///
/// assert_eq!(Value::tuple([Value::none()]).kind(), Kind::Tuple);
/// assert_eq!(Value::decimal("1.10")?.kind(), Kind::Object);
/// assert_eq!(Value::decimal("1.10")?.class(), "decimal.Decimal");
/// # Ok::<(), django_sessions::serializers::pickle::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `None`
    None,
    /// `bool`
    Bool,
    /// `int`, of any size.
    Int,
    /// `float`
    Float,
    /// `str`
    Str,
    /// `bytes`
    Bytes,
    /// `bytearray`
    ByteArray,
    /// `list`
    List,
    /// `tuple`
    Tuple,
    /// `dict`
    Dict,
    /// `set`
    Set,
    /// `frozenset`
    FrozenSet,
    /// A class or function, which a pickle names and does not hold.
    Class,
    /// An object of any other class: [`Value::class`] names it.
    Object,
}

/// One value of a pickle, or one made in Rust.
///
/// It is a place in a graph that it shares with the other values of the same pickle, so a clone costs nothing. What
/// values share, they still share when they are written together. `Debug` shows kind and size only, since sessions
/// hold secrets.
///
/// ```
/// use django_sessions::serializers::pickle::{self, Limits, Protocol, Value};
///
/// let cart = Value::new(&vec!["tea", "jam"])?;
/// let content = Value::from_dict_items([(Value::str("cart"), cart)]);
/// let data = pickle::dumps(&content, Protocol::V4)?;
///
/// let content = pickle::loads(&data, &Limits::default())?;
/// for (key, value) in content.dict_items().expect("it is a dict") {
///     assert_eq!(key.as_str().as_deref(), Some("cart"));
///     assert_eq!(value.to::<Vec<String>>()?, ["tea", "jam"]);
///     assert_eq!(format!("{value:?}"), "Value(list of 2)");
/// }
/// # Ok::<(), pickle::Error>(())
/// ```
#[derive(Clone)]
pub struct Value {
    pub(super) graph: Arc<Graph>,
    pub(super) id: Id,
}

/// Reading.
impl Value {
    /// What the value is to Python.
    pub fn kind(&self) -> Kind {
        match self.node() {
            Node::None => Kind::None,
            Node::Bool(_) => Kind::Bool,
            Node::Int(_) | Node::Long(_) => Kind::Int,
            Node::Float(_) => Kind::Float,
            Node::Str(_) => Kind::Str,
            Node::Bytes(_) => Kind::Bytes,
            Node::ByteArray(_) => Kind::ByteArray,
            Node::List(_) => Kind::List,
            Node::Tuple(_) => Kind::Tuple,
            Node::Dict(_) => Kind::Dict,
            Node::Set(_) => Kind::Set,
            Node::FrozenSet(_) => Kind::FrozenSet,
            Node::Global(_) => Kind::Class,
            Node::Object(_) => Kind::Object,
        }
    }

    /// Python's name of the value's type, as `str` or `datetime.datetime`; of a class its own name.
    pub fn class(&self) -> String {
        classes::type_name(&self.graph, self.id)
    }

    /// Whether its pickle has objects, in it or elsewhere: without any, it is made of Python's own types only.
    #[cfg(feature = "_sql")]
    pub(crate) fn is_beside_objects(&self) -> bool {
        self.graph.has_objects()
    }

    /// Reads the value into a Rust type.
    ///
    /// Tuples, sets and lists are sequences, bytes are bytes or a sequence of numbers, texts marked as safe are text.
    /// Dates and times are text in ISO 8601, which [`jiff`]'s types are parsed from, by its feature `serde` or by
    /// `str::parse`: `datetime` is a [`Timestamp`] if it
    /// knows its zone and a [`DateTime`] if not, `timedelta` is a [`SignedDuration`]. `Decimal` and `UUID` are their text,
    /// and the lazy text of `gettext_lazy` is its message, untranslated.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::{self, Value};
    /// use jiff::Timestamp;
    ///
    /// let noon: Timestamp = "2026-07-01T12:00:00Z".parse().expect("a moment");
    /// let value = Value::timestamp(noon)?;
    /// let text: String = value.to()?;
    /// assert_eq!(text, "2026-07-01T12:00:00+00:00");
    /// assert_eq!(text.parse::<Timestamp>().expect("a moment"), noon);
    /// # Ok::<(), pickle::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the type is of another shape, [`Error::Object`] naming the class of an object that is none of
    /// these, [`Error::LoneSurrogate`] and [`Error::IntegerOutOfRange`] where Rust's types end, and [`Error::Limit`] for
    /// values nested deeper than [`MAX_VALUE_DEPTH`](crate::serializers::json::MAX_VALUE_DEPTH) or that share so much
    /// that they would grow out of all proportion.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        de::deserialize(&self.graph, self.id)
    }

    /// The JSON that Python's `json.dumps(value, separators=(",", ":"))` writes: tuples turn into arrays; numbers,
    /// booleans and `None` as keys into text.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::Value;
    ///
    /// let size = Value::tuple([Value::new(&3)?, Value::none()]);
    /// assert_eq!(size.to_json()?.as_bytes(), b"[3,null]");
    /// let refused = Value::bytes(b"tea").to_json().unwrap_err();
    /// assert_eq!(refused.to_string(), "bytes has no form in JSON");
    /// # Ok::<(), django_sessions::serializers::pickle::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoJson`] naming the type of what `json.dumps` would refuse: dates, `Decimal`, sets, bytes, objects.
    /// [`Error::Circular`] for what contains itself, [`Error::IntegerTooLong`] beyond 4,300 digits, [`Error::Limit`] as
    /// for [`to`](Self::to).
    pub fn to_json(&self) -> Result<RawValue, Error> {
        json::to_json(&self.graph, self.id)
    }

    /// Whether this is `None`.
    pub fn is_none(&self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// The text of a `str` or of a text marked as safe. `None` for all other values, and for a text that holds a lone
    /// surrogate.
    pub fn as_str(&self) -> Option<Cow<'_, str>> {
        str::from_utf8(self.as_wtf8()?).ok().map(Cow::Borrowed)
    }

    /// The same text in generalized UTF-8, where each lone surrogate has the three bytes that its code point would have.
    pub fn as_wtf8(&self) -> Option<&[u8]> {
        if let Node::Str(span) = self.node() {
            return Some(self.graph.bytes(span));
        }
        match classes::view(&self.graph, self.id) {
            View::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The content of `bytes` or a `bytearray`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.node() {
            Node::Bytes(span) | Node::ByteArray(span) => Some(self.graph.bytes(span)),
            _ => None,
        }
    }

    /// The items of a list, tuple, set or frozenset, in order.
    pub fn items(&self) -> Option<impl Iterator<Item = Value> + '_> {
        match classes::view(&self.graph, self.id) {
            View::Items(items) | View::Set(items) => Some(items.iter().map(|id| self.at(*id))),
            _ => None,
        }
    }

    /// Keys and values of a `dict`, `OrderedDict` or `defaultdict`, in order.
    pub fn dict_items(&self) -> Option<impl ExactSizeIterator<Item = (Value, Value)> + '_> {
        let pairs = match classes::view(&self.graph, self.id) {
            View::Pairs(pairs) => pairs,
            _ => return None,
        };
        Some((0..pairs.len()).map(move |index| {
            let [key, value] = pairs[index];
            (self.at(key), self.at(value))
        }))
    }

    fn node(&self) -> Node {
        self.graph.node(self.id)
    }

    fn at(&self, id: Id) -> Value {
        Self { graph: Arc::clone(&self.graph), id }
    }
}

/// Making.
impl Value {
    /// Takes any Rust value that has a form in JSON: numbers, texts, sequences, maps and structs.
    ///
    /// # Errors
    /// [`Error::Shape`] when it has none.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Self::from_json(&RawValue::new(value)?)
    }

    /// The value that Python's `json.loads` reads: integers of any size, `NaN` and lone surrogates included.
    ///
    /// # Errors
    /// [`Error::Limit`] for text beyond 1 GiB.
    pub fn from_json(json: &RawValue) -> Result<Self, Error> {
        let (graph, id) = json::from_json(json)?;
        Ok(Self { graph: Arc::new(graph), id })
    }

    /// `None`
    pub fn none() -> Self {
        Self::build(|_| super::graph::NONE)
    }

    /// A `str`.
    pub fn str(text: &str) -> Self {
        Self::build(|builder| builder.str(text))
    }

    /// A `str` that may hold lone surrogates: see [`as_wtf8`](Self::as_wtf8). `None` if it is not such text.
    pub fn from_wtf8(text: &[u8]) -> Option<Self> {
        text::is_text(text).then(|| {
            Self::build(|builder| {
                let span = builder.span(text);
                builder.push(Node::Str(span))
            })
        })
    }

    /// `bytes`
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::build(|builder| builder.bytes(bytes))
    }

    /// A `list`.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Self::build_of(items, Node::List)
    }

    /// A `tuple`.
    pub fn tuple(items: impl IntoIterator<Item = Value>) -> Self {
        Self::build_of(items, Node::Tuple)
    }

    /// A `set`; the first of equal items stays.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::Value;
    ///
    /// let seen = Value::set([Value::str("tea"), Value::str("tea")])?;
    /// assert_eq!(seen.items().unwrap().count(), 1);
    /// assert!(Value::set([Value::list([])]).is_err());
    /// # Ok::<(), django_sessions::serializers::pickle::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unhashable`] if an item is a list, dict, set or bytearray, or a tuple that holds one.
    pub fn set(items: impl IntoIterator<Item = Value>) -> Result<Self, Error> {
        Self::build_of(items, Node::Set).checked()
    }

    /// A `frozenset`, with the same rules.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn frozenset(items: impl IntoIterator<Item = Value>) -> Result<Self, Error> {
        Self::build_of(items, Node::FrozenSet).checked()
    }

    /// A `dict`; of equal keys the last value stays, at the first one's place. The values may come from several pickles;
    /// what those of one pickle share stays shared.
    ///
    /// A key that Python cannot hash is refused by [`dumps`](super::dumps).
    pub fn from_dict_items(items: impl IntoIterator<Item = (Value, Value)>) -> Self {
        Self::build(|builder| {
            let items: Vec<Id> = items
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .map(|value| builder.import(&value.graph, value.id))
                .collect();
            let links = builder.link(&items);
            builder.push(Node::Dict(links))
        })
    }

    /// A `datetime` in UTC. Python's is in whole microseconds; what is beyond is cut off.
    ///
    /// # Errors
    /// [`Error::Shape`] outside of the years 1 to 9999, which are all that Python has.
    pub fn timestamp(moment: Timestamp) -> Result<Self, Error> {
        let moment = jiff::tz::Offset::UTC.to_datetime(moment);
        let state = datetime_state(moment)?;
        Ok(Self::build(|builder| {
            let numbers = [0; 3].map(|_| builder.push(Node::Int(0)));
            let offset = builder.call("datetime", "timedelta", &numbers);
            let zone = builder.call("datetime", "timezone", &[offset]);
            let state = builder.bytes(&state);
            builder.call("datetime", "datetime", &[state, zone])
        }))
    }

    /// A `datetime` without a zone. What is beyond microseconds is cut off.
    ///
    /// # Errors
    /// [`Error::Shape`] outside of the years 1 to 9999.
    pub fn datetime(moment: DateTime) -> Result<Self, Error> {
        let state = datetime_state(moment)?;
        Ok(Self::build_call("datetime", "datetime", &state))
    }

    /// A `date`.
    ///
    /// # Errors
    /// [`Error::Shape`] outside of the years 1 to 9999.
    pub fn date(date: Date) -> Result<Self, Error> {
        Ok(Self::build_call("datetime", "date", &date_state(date)?))
    }

    /// A `time` without a zone. What is beyond microseconds is cut off.
    pub fn time(time: Time) -> Self {
        Self::build_call("datetime", "time", &time_state(time))
    }

    /// A `timedelta`. What is beyond microseconds is cut off, towards the past.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::Value;
    /// use jiff::SignedDuration;
    ///
    /// let value = Value::timedelta(SignedDuration::from_mins(90))?;
    /// assert_eq!(value.to::<String>()?.parse::<SignedDuration>()?, SignedDuration::from_mins(90));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] beyond 999,999,999 days.
    pub fn timedelta(duration: SignedDuration) -> Result<Self, Error> {
        let micros = duration.as_nanos().div_euclid(1000);
        let day = 86_400_000_000;
        let (days, rest) = (micros.div_euclid(day) as i64, micros.rem_euclid(day) as i64);
        if days.abs() > 999_999_999 {
            return Err(Error::Shape("Python has no timedelta beyond 999999999 days".to_owned()));
        }
        Ok(Self::build(|builder| {
            let numbers =
                [days, rest / 1_000_000, rest % 1_000_000].map(|number| builder.push(Node::Int(number)));
            builder.call("datetime", "timedelta", &numbers)
        }))
    }

    /// A `Decimal` from its text, as `1.10`, `-2E+7` or `NaN`.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::Value;
    ///
    /// assert_eq!(Value::decimal("1.10")?.to::<String>()?, "1.10");
    /// assert!(Value::decimal("a tenth").is_err());
    /// # Ok::<(), django_sessions::serializers::pickle::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if this is no number.
    pub fn decimal(text: &str) -> Result<Self, Error> {
        if !is_decimal(text) {
            return Err(Error::Shape("not a decimal number".to_owned()));
        }
        Ok(Self::build(|builder| {
            let text = builder.str(text);
            builder.call("decimal", "Decimal", &[text])
        }))
    }

    /// A `UUID` from its 128 bits.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::Value;
    ///
    /// assert_eq!(Value::uuid(1).to::<String>()?, "00000000-0000-0000-0000-000000000001");
    /// # Ok::<(), django_sessions::serializers::pickle::Error>(())
    /// ```
    pub fn uuid(number: u128) -> Self {
        Self::build(|builder| {
            let key = builder.str("int");
            let number = match int::from_twos_complement(&int::from_u128(number)) {
                int::Int::Small(number) => Node::Int(number),
                int::Int::Big(bytes) => Node::Long(builder.span(&bytes)),
            };
            let number = builder.push(number);
            let links = builder.link(&[key, number]);
            let state = builder.push(Node::Dict(links));
            let (class, args) = (builder.global("uuid", "UUID"), builder.push(Node::Tuple(Links::default())));
            let steps = vec![Step::Build(state)];
            let node = builder.object(Object { how: How::New, class, args, steps });
            builder.push(node)
        })
    }

    fn build(build: impl FnOnce(&mut Builder) -> Id) -> Self {
        let mut builder = Builder::new();
        let id = build(&mut builder);
        let mut graph = builder.graph;
        if graph.refused.is_none() {
            graph.refused = keys::settle(&mut graph).err();
        }
        Self { graph: Arc::new(graph), id }
    }

    fn build_of(items: impl IntoIterator<Item = Value>, node: impl FnOnce(Links) -> Node) -> Self {
        Self::build(|builder| {
            let items: Vec<Id> = items.into_iter().map(|item| builder.import(&item.graph, item.id)).collect();
            let links = builder.link(&items);
            builder.push(node(links))
        })
    }

    fn build_call(module: &str, name: &str, state: &[u8]) -> Self {
        Self::build(|builder| {
            let state = builder.bytes(state);
            builder.call(module, name, &[state])
        })
    }

    fn checked(self) -> Result<Self, Error> {
        match &self.graph.refused {
            Some(error) => Err(error.clone()),
            None => Ok(self),
        }
    }
}

fn date_state(date: Date) -> Result<[u8; 4], Error> {
    let year = u16::try_from(date.year()).ok().filter(|year| *year > 0);
    let [high, low] =
        year.ok_or_else(|| Error::Shape("Python has no date before the year 1".to_owned()))?.to_be_bytes();
    Ok([high, low, date.month() as u8, date.day() as u8])
}

fn time_state(time: Time) -> [u8; 6] {
    let [_, a, b, c] = (time.subsec_nanosecond() / 1000).to_be_bytes();
    [time.hour() as u8, time.minute() as u8, time.second() as u8, a, b, c]
}

fn datetime_state(moment: DateTime) -> Result<Vec<u8>, Error> {
    Ok([&date_state(moment.date())?[..], &time_state(moment.time())].concat())
}

/// The grammar of Python's `Decimal`, in ASCII.
fn is_decimal(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
    if matches!(&text[..], "inf" | "infinity") {
        return true;
    }
    if let Some(payload) = text.strip_prefix("nan").or_else(|| text.strip_prefix("snan")) {
        return is_digits(payload);
    }
    let (number, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    whole.len() + fraction.len() > 0
        && is_digits(whole)
        && is_digits(fraction)
        && !exponent.is_empty()
        && is_digits(exponent)
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Node::Str(span) => write!(f, "Value(str of {} bytes)", span.len),
            Node::Bytes(span) | Node::ByteArray(span) => write!(f, "Value({} of {})", self.class(), span.len),
            Node::List(links) | Node::Set(links) | Node::Tuple(links) | Node::FrozenSet(links) => {
                write!(f, "Value({} of {})", self.class(), links.len)
            }
            Node::Dict(links) => write!(f, "Value(dict of {})", links.len / 2),
            Node::Global(_) => write!(f, "Value(class {})", self.class()),
            _ => write!(f, "Value({})", self.class()),
        }
    }
}
