//! The values of a session, each in the format that it was read in.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::DeserializeOwned;

use super::SessionError;
use crate::serializers::json::{self, Object, RawValue, write_key};
#[cfg(feature = "msgpack")]
use crate::serializers::msgpack;
use crate::serializers::pickle;
#[cfg(feature = "_cache")]
use crate::serializers::pickle::Part;

/// Why a value has no form in the format, or no Rust type, that was asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// It cannot be read from JSON, or be written as JSON.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// JSON knows text, numbers, true, false and null as keys; Python's `json.dumps` raises `TypeError` for others.
    #[error("a key is no text, number, boolean or None, and JSON has no others")]
    Key,
    /// It cannot be read from a pickle, or has no form in JSON, as dates and `Decimal`.
    #[error(transparent)]
    Pickle(#[from] pickle::Error),
    /// It cannot be read from MessagePack, or be written in it.
    #[cfg(feature = "msgpack")]
    #[error(transparent)]
    Msgpack(#[from] msgpack::Error),
}

/// One value of a session, in the format of the store that it was read from.
///
/// `Debug` shows the format only, since sessions hold secrets.
///
/// ```
/// use django_sessions::serializers::json::RawValue;
/// use django_sessions::session::Value;
///
/// let value = Value::from(RawValue::new(&["tea"])?);
/// assert_eq!(value.to::<Vec<String>>()?, ["tea"]);
/// assert_eq!(value.to_json()?.as_bytes(), br#"["tea"]"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Value {
    /// The text of a JSON value, to the letter.
    Json(RawValue),
    /// What Python pickled.
    Pickle(pickle::Value),
    /// What a msgpack serializer wrote.
    #[cfg(feature = "msgpack")]
    Msgpack(msgpack::Value),
}

impl Value {
    /// Reads the value into a Rust type.
    ///
    /// # Errors
    /// When the value is no `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        match self {
            Self::Json(text) => Ok(text.to()?),
            Self::Pickle(value) => Ok(value.to()?),
            #[cfg(feature = "msgpack")]
            Self::Msgpack(value) => match value.to_json() {
                Ok(text) => Ok(text.to()?),
                // With bytes in it, which JSON has not.
                Err(_) => Ok(value.to()?),
            },
        }
    }

    pub(crate) fn is_decimal(&self) -> bool {
        matches!(self, Self::Pickle(value) if value.class() == "decimal.Decimal")
    }

    /// The value as Python's `json.dumps` would write it.
    ///
    /// # Errors
    /// When it has no JSON form, as bytes have none.
    pub fn to_json(&self) -> Result<Cow<'_, RawValue>, ValueError> {
        match self {
            Self::Json(text) => Ok(Cow::Borrowed(text)),
            Self::Pickle(value) => Ok(Cow::Owned(value.to_json()?)),
            #[cfg(feature = "msgpack")]
            Self::Msgpack(value) => Ok(Cow::Owned(value.to_json()?)),
        }
    }

    /// The value as Python would have it, to be pickled: a dict for an object of JSON, and so on.
    ///
    /// # Errors
    /// When it is of MessagePack, and has no form in JSON.
    pub fn to_pickle(&self) -> Result<Cow<'_, pickle::Value>, ValueError> {
        match self {
            Self::Pickle(value) => Ok(Cow::Borrowed(value)),
            _ => Ok(Cow::Owned(pickle::Value::from_json(&*self.to_json()?)?)),
        }
    }

    /// The value as Python's `msgpack.dumps` would write it.
    ///
    /// # Errors
    /// When MessagePack has no form for it, as for integers beyond 64 bits.
    #[cfg(feature = "msgpack")]
    pub fn to_msgpack(&self) -> Result<Cow<'_, msgpack::Value>, ValueError> {
        match self {
            Self::Msgpack(value) => Ok(Cow::Borrowed(value)),
            _ => Ok(Cow::Owned(msgpack::Value::from_json(&*self.to_json()?)?)),
        }
    }

    /// Whether both are the same to who reads them as JSON, or where that cannot be, the same pickle.
    #[cfg(feature = "_async")]
    #[allow(dead_code, reason = "for stores that merge, which are features")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self.to_json(), other.to_json()) {
            (Ok(one), Ok(other)) => one.as_bytes() == other.as_bytes(),
            (Err(_), Err(_)) => match (self, other) {
                #[cfg(feature = "msgpack")]
                (Self::Msgpack(one), Self::Msgpack(other)) => one.as_bytes() == other.as_bytes(),
                (Self::Pickle(one), Self::Pickle(other)) => {
                    let dumps = |value| pickle::dumps(value, pickle::Protocol::V5);
                    matches!((dumps(one), dumps(other)), (Ok(one), Ok(other)) if one == other)
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The text that `json.dumps` makes of this value as a key, in generalized UTF-8.
    fn to_json_key(&self) -> Result<Box<[u8]>, ValueError> {
        let text = self.to_json()?;
        match text.as_bytes() {
            [b'[' | b'{', ..] => Err(ValueError::Key),
            [b'"', inner @ .., b'"'] => Ok(json::unescape(inner).into()),
            scalar => Ok(scalar.into()),
        }
    }
}

impl From<RawValue> for Value {
    fn from(text: RawValue) -> Self {
        Self::Json(text)
    }
}

impl From<pickle::Value> for Value {
    fn from(value: pickle::Value) -> Self {
        Self::Pickle(value)
    }
}

#[cfg(feature = "msgpack")]
impl From<msgpack::Value> for Value {
    fn from(value: msgpack::Value) -> Self {
        Self::Msgpack(value)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(text) => fmt::Debug::fmt(text, f),
            Self::Pickle(value) => fmt::Debug::fmt(value, f),
            #[cfg(feature = "msgpack")]
            Self::Msgpack(value) => fmt::Debug::fmt(value, f),
        }
    }
}

/// A key of a session's values.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Key<'a> {
    /// Text in generalized UTF-8: UTF-8 that also has a place for lone surrogates.
    Text(&'a [u8]),
    /// Anything else that a Python dict may have as key, in the format of its store.
    Other(&'a Value),
}

/// The values of a session, in order, each in the format that it was read in.
///
/// What nobody replaces goes back unchanged to a store of its own format. To a store of another format it is
/// converted, and what has no form there is refused by its key before anything is written.
///
/// ```
/// use django_sessions::serializers::json::{Object, RawValue};
/// use django_sessions::session::Data;
///
/// let mut data = Data::from(Object::parse(br#"{"big":1180591620717411303424,"seen":false}"#)?);
/// data.insert("seen", RawValue::new(&true)?);
/// assert_eq!(data.to_json()?, br#"{"big":1180591620717411303424,"seen":true}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Data {
    entries: Vec<Entry>,
    /// Where the values stand by their texts, once they are many: few are as quickly looked through.
    places: Option<HashMap<Box<[u8]>, usize>>,
}

/// Up to so many values are looked through.
const FEW: usize = 16;

#[derive(Clone)]
struct Entry {
    key: EntryKey,
    value: Value,
}

impl Entry {
    fn refused(&self, source: ValueError) -> SessionError {
        SessionError::Value { key: shown(self.key.shown()).into_owned(), source }
    }
}

#[derive(Clone)]
enum EntryKey {
    Text(Box<[u8]>),
    /// As it was read, where that says more than its text, or it is no text.
    Read(Value),
}

impl EntryKey {
    /// What it is looked up by.
    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Read(Value::Pickle(key)) => key.as_wtf8(),
            Self::Read(_) => None,
        }
    }

    fn shown(&self) -> Key<'_> {
        match (self.text(), self) {
            (None, Self::Read(key)) => Key::Other(key),
            (text, _) => Key::Text(text.unwrap_or_default()),
        }
    }
}

impl Data {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.place(key.as_bytes()).map(|place| &self.entries[place].value)
    }

    /// Puts `value` under `key`: in its place if the key is there, else at the end. Returns the value it replaces.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) -> Option<Value> {
        let value = value.into();
        if let Some(place) = self.place(key.as_bytes()) {
            return Some(std::mem::replace(&mut self.entries[place].value, value));
        }
        self.push(Entry { key: EntryKey::Text(key.as_bytes().into()), value });
        None
    }

    /// Takes out the value under `key`; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.place(key.as_bytes()).map(|place| self.take(place).value)
    }

    /// Keys and values in order. A key that is no text is shown as `json.dumps` would write it, and U+FFFD stands for
    /// what has no such form.
    ///
    /// ```
    /// use django_sessions::serializers::json::Object;
    /// use django_sessions::session::Data;
    ///
    /// let data = Data::from(Object::parse(br#"{"b": 1, "a": 2}"#)?);
    /// let keys: Vec<_> = data.iter().map(|(key, _)| key).collect();
    /// assert_eq!(keys, ["b", "a"], "in their order");
    /// # Ok::<(), django_sessions::serializers::json::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &Value)> {
        self.entries().map(|(key, value)| (shown(key), value))
    }

    /// Keys and values in order, for who writes them in another format.
    pub fn entries(&self) -> impl Iterator<Item = (Key<'_>, &Value)> {
        self.entries.iter().map(|entry| (entry.key.shown(), &entry.value))
    }

    /// The values of a JSON object; of equal keys the last value stays, at the first one's place, as in Python.
    ///
    /// ```
    /// use django_sessions::session::Data;
    ///
    /// let data = Data::from_json(br#"{"visits":3}"#)?;
    /// assert_eq!(data.get("visits").unwrap().to::<u8>().unwrap(), 3);
    /// assert!(Data::from_json(b"[3]").is_err());
    /// # Ok::<(), django_sessions::serializers::json::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Object::parse`].
    pub fn from_json(text: &[u8]) -> Result<Self, json::Error> {
        let mut data = Self::new();
        json::split(text, |key, text| {
            data.put(Entry { key: EntryKey::Text(key), value: Value::Json(text) });
        })?;
        Ok(data)
    }

    /// The text that Django's db engine would store: JSON as `json.dumps` writes it. Keys that are no text turn into it, also
    /// if the same text is there already: whoever reads that takes the last of them.
    ///
    /// # Errors
    /// [`SessionError::Value`] names the key whose value, or which itself, has no JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, SessionError> {
        self.to_json_separated(b",", b":")
    }

    /// The same with other separators, which are an argument of `json.dumps`. What is within values stays as it is.
    pub(crate) fn to_json_separated(&self, comma: &[u8], colon: &[u8]) -> Result<Vec<u8>, SessionError> {
        let mut output = vec![b'{'];
        for (key, value) in self.entries() {
            let refused = |source| SessionError::Value { key: shown(key).into_owned(), source };
            if output.len() > 1 {
                output.extend(comma);
            }
            match key {
                Key::Text(text) => write_key(&mut output, text),
                Key::Other(other) => write_key(&mut output, &other.to_json_key().map_err(refused)?),
            }
            output.extend(colon);
            output.extend(value.to_json().map_err(refused)?.as_bytes());
        }
        output.push(b'}');
        Ok(output)
    }

    /// What whoever reads [`to_json`](Self::to_json) will have.
    ///
    /// # Errors
    /// As [`to_json`](Self::to_json).
    pub fn to_json_object(&self) -> Result<Object, SessionError> {
        let mut object = Object::new();
        for (key, value) in self.entries() {
            let refused = |source| SessionError::Value { key: shown(key).into_owned(), source };
            let text = match key {
                Key::Text(text) => text.into(),
                Key::Other(other) => other.to_json_key().map_err(refused)?,
            };
            object.insert_bytes(text, value.to_json().map_err(refused)?.into_owned());
        }
        Ok(object)
    }

    /// Whether whoever reads JSON can have every object in it.
    #[cfg(feature = "_sql")]
    pub(crate) fn has_json(&self) -> bool {
        let is_plain = |value: &Value| !matches!(value, Value::Pickle(value) if value.is_beside_objects());
        self.entries.iter().all(|Entry { key, value }| {
            let key_has = match key {
                EntryKey::Read(key) => is_plain(key) || key.to_json_key().is_ok(),
                EntryKey::Text(_) => true,
            };
            key_has && (is_plain(value) || value.to_json().is_ok())
        })
    }

    /// The values of a dict that Python pickled; `None` for anything else.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::{Limits, Protocol, dumps, loads};
    /// use django_sessions::session::Data;
    ///
    /// // {"cart": ("tea", 2)}
    /// let pickled = b"\x80\x04}\x8c\x04cart\x8c\x03teaK\x02\x86s.";
    /// let data = Data::from_pickle(&loads(pickled, &Limits::default())?).expect("a dict");
    /// assert_eq!(data.get("cart").unwrap().to::<(String, u8)>()?, ("tea".to_owned(), 2));
    /// assert_eq!(data.to_json()?, br#"{"cart":["tea",2]}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_pickle(dict: &pickle::Value) -> Option<Self> {
        let items = dict.dict_items()?;
        let mut data = Self { entries: Vec::with_capacity(items.len()), places: None };
        for (key, value) in items {
            data.put(Entry { key: EntryKey::Read(Value::Pickle(key)), value: Value::Pickle(value) });
        }
        Some(data)
    }

    /// The dict that Python would have, to be pickled. What one pickle's values shared stays shared.
    ///
    /// # Errors
    /// [`SessionError::Value`] names the key whose value has no form in Python: bytes of MessagePack and the like.
    pub fn to_pickle(&self) -> Result<pickle::Value, SessionError> {
        let mut items = Vec::with_capacity(self.len());
        for entry in &self.entries {
            let refused = |source| entry.refused(source);
            let key = match &entry.key {
                EntryKey::Read(key) => key.to_pickle().map_err(refused)?.into_owned(),
                EntryKey::Text(text) => {
                    pickle::Value::from_wtf8(text).ok_or_else(|| refused(ValueError::Key))?
                }
            };
            items.push((key, entry.value.to_pickle().map_err(refused)?.into_owned()));
        }
        Ok(pickle::Value::from_dict_items(items))
    }

    /// The keys and values of that dict.
    #[cfg(feature = "_cache")]
    pub(crate) fn pickle_items(&self) -> Result<Vec<[Part<'_>; 2]>, SessionError> {
        let mut items = Vec::with_capacity(self.len());
        for entry in &self.entries {
            let refused = |source| entry.refused(source);
            let key = match &entry.key {
                EntryKey::Read(key) => Part::Value(key.to_pickle().map_err(refused)?),
                EntryKey::Text(text) if pickle::is_text(text) => Part::Text(text),
                EntryKey::Text(_) => return Err(refused(ValueError::Key)),
            };
            let value = match &entry.value {
                Value::Json(text) => Part::Json(text),
                value => Part::Value(value.to_pickle().map_err(refused)?),
            };
            items.push([key, value]);
        }
        Ok(items)
    }

    /// The values of a map that a msgpack serializer wrote.
    ///
    /// # Errors
    /// [`msgpack::Error`] when the bytes are anything else.
    #[cfg(feature = "msgpack")]
    pub fn from_msgpack(bytes: &[u8]) -> Result<Self, msgpack::Error> {
        let mut data = Self::new();
        for (key, value) in msgpack::map(bytes)? {
            let key = match key {
                msgpack::Key::Text(text) => EntryKey::Text(text.as_bytes().into()),
                msgpack::Key::Bytes(key) => EntryKey::Read(Value::Msgpack(key)),
            };
            data.put(Entry { key, value: Value::Msgpack(value) });
        }
        Ok(data)
    }

    /// What the msgpack serializer of django-redis would store.
    ///
    /// # Errors
    /// [`SessionError::Value`] names the key whose value, or which itself, has no form in MessagePack.
    #[cfg(feature = "msgpack")]
    pub fn to_msgpack(&self) -> Result<Vec<u8>, SessionError> {
        let mut output = Vec::with_capacity(256);
        msgpack::write_map_header(&mut output, self.len());
        for (key, value) in self.entries() {
            let refused = |source| SessionError::Value { key: shown(key).into_owned(), source };
            match key {
                Key::Text(text) => match str::from_utf8(text) {
                    Ok(text) => msgpack::write_text(&mut output, text),
                    Err(_) => return Err(refused(msgpack::Error::Json(json::Error::LoneSurrogate).into())),
                },
                Key::Other(Value::Msgpack(key)) => output.extend(key.as_bytes()),
                Key::Other(_) => return Err(refused(msgpack::Error::Key.into())),
            }
            output.extend(value.to_msgpack().map_err(refused)?.as_bytes());
        }
        Ok(output)
    }

    /// Takes over from `now` each key that is here as it was in `base`.
    #[cfg(feature = "_async")]
    #[allow(dead_code, reason = "for stores that merge, which are features")]
    pub(crate) fn keep_changes_of_others(&mut self, base: &Self, now: &Self) {
        let added = now.entries.iter().filter(|entry| base.find(&entry.key).is_none());
        for entry in base.entries.iter().chain(added) {
            let (before, mine) = (base.find(&entry.key), self.find(&entry.key));
            let is_unchanged = match (before, mine) {
                (Some(before), Some(mine)) => base.entries[before].value.is_same(&self.entries[mine].value),
                (before, mine) => before.is_none() && mine.is_none(),
            };
            if !is_unchanged {
                continue;
            }
            match (now.find(&entry.key).map(|place| now.entries[place].clone()), mine) {
                (Some(theirs), Some(mine)) => self.entries[mine] = theirs,
                (Some(theirs), None) => self.push(theirs),
                (None, Some(mine)) => drop(self.take(mine)),
                (None, None) => {}
            }
        }
    }

    /// Where the same key is here.
    #[cfg(feature = "_async")]
    #[allow(dead_code, reason = "for stores that merge, which are features")]
    fn find(&self, key: &EntryKey) -> Option<usize> {
        match (key.text(), key) {
            (None, EntryKey::Read(key)) => self
                .entries
                .iter()
                .position(|entry| matches!(entry.key.shown(), Key::Other(other) if key.is_same(other))),
            (text, _) => self.place(text?),
        }
    }

    fn place(&self, text: &[u8]) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(text).copied(),
            None => self.entries.iter().position(|entry| entry.key.text() == Some(text)),
        }
    }

    /// In the place of the entry whose key has the same text, if there is one.
    fn put(&mut self, entry: Entry) {
        match entry.key.text().and_then(|text| self.place(text)) {
            Some(place) => self.entries[place] = entry,
            None => self.push(entry),
        }
    }

    fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        let unlisted = match &self.places {
            Some(_) => self.entries.len() - 1..,
            None if self.entries.len() > FEW => 0..,
            None => return,
        };
        let first = unlisted.start;
        let places = self.places.get_or_insert_default();
        for (index, entry) in self.entries[unlisted].iter().enumerate() {
            if let Some(text) = entry.key.text() {
                places.insert(text.into(), first + index);
            }
        }
    }

    fn take(&mut self, place: usize) -> Entry {
        let entry = self.entries.remove(place);
        if let Some(places) = &mut self.places {
            places.retain(|_, other| {
                let is_it = *other == place;
                *other -= usize::from(*other > place);
                !is_it
            });
        }
        entry
    }
}

/// A key for people.
fn shown(key: Key<'_>) -> Cow<'_, str> {
    match key {
        Key::Text(text) => String::from_utf8_lossy(text),
        Key::Other(other) => match other.to_json_key() {
            Ok(text) => String::from_utf8_lossy(&text).into_owned().into(),
            Err(_) => "\u{fffd}".into(),
        },
    }
}

impl From<Object> for Data {
    fn from(object: Object) -> Self {
        let mut data = Self::new();
        for (key, text) in object.into_entries() {
            data.push(Entry { key: EntryKey::Text(key), value: Value::Json(text) });
        }
        data
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn json_goes_through_to_the_letter() {
        for text in [
            "{}",
            r#"{"a":1.0,"b":NaN,"c":[ 1 ,  2],"\ud800":"\udfff"}"#,
            r#"{"":null,"\u00e9":1e16,"\"":{}}"#,
        ] {
            let data = Data::from(object(text));
            assert_eq!(String::from_utf8(data.to_json().unwrap()).unwrap(), text);
            assert_eq!(data.to_json_object().unwrap(), object(text));
        }
    }

    #[test]
    fn a_value_keeps_its_place() {
        let mut data = Data::from(object(r#"{"a":1,"b":2}"#));
        let two = RawValue::new(&2).unwrap();
        assert!(data.insert("a", two.clone()).is_some() && data.insert("c", two).is_none());
        assert_eq!(data.to_json().unwrap(), br#"{"a":2,"b":2,"c":2}"#);
        assert!(data.remove("a").is_some() && data.remove("a").is_none());
        assert_eq!(data.to_json().unwrap(), br#"{"b":2,"c":2}"#);
        assert_eq!((data.len(), data.is_empty()), (2, false));
        assert_eq!(data.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "c"]);
    }

    /// From one number of keys on they have an index, which follows what is taken out.
    #[test]
    fn many_keys_are_found_as_few_are() {
        use crate::serializers::pickle::Value as Pickle;

        let number = |n: usize| Value::from(RawValue::new(&n).unwrap());
        let key = |n: usize| Pickle::str(&format!("k{n}"));
        let items = (0..3 * FEW).map(|n| match n % 10 {
            7 => (Pickle::new(&n).unwrap(), Pickle::new(&n).unwrap()),
            _ => (key(n), Pickle::new(&n).unwrap()),
        });
        let mut data = Data::from_pickle(&Pickle::from_dict_items(items)).unwrap();
        let mut expected: Vec<usize> = (0..3 * FEW).collect();
        for n in [0, 5, 3 * FEW - 2, 20, 8, 6] {
            assert_eq!(data.remove(&format!("k{n}")).unwrap().to(), Ok(n));
            assert!(data.remove(&format!("k{n}")).is_none());
            expected.retain(|other| *other != n);
        }
        assert!(data.insert("k20", number(20)).is_none() && data.insert("k9", number(9)).is_some());
        expected.push(20);
        assert!(data.entries().map(|(_, value)| value.to::<usize>().unwrap()).eq(expected.iter().copied()));
        for n in expected {
            let found = data.get(&format!("k{n}"));
            assert_eq!(found.map(|value| value.to::<usize>()), (n % 10 != 7).then_some(Ok(n)), "{n}");
        }
        assert!(data.get("k7").is_none() && data.get("7").is_none());
        while data.len() > 6 {
            let (last, _) = data.iter().last().unwrap();
            let last = last.into_owned();
            assert_eq!(data.remove(&last).is_some(), last.starts_with('k'));
            if !last.starts_with('k') {
                data.take(data.len() - 1);
            }
        }
        assert_eq!(data.get("k1").unwrap().to(), Ok(1));
    }

    /// Keys that are other objects to Python and the same text to us: the last one counts, in the first one's place.
    #[test]
    fn keys_of_one_text() {
        use crate::serializers::pickle::{Limits, loads};

        // {"a": 1, SafeString("a"): 2, "b": 3}
        let safe = b"cdjango.utils.safestring\nSafeString\n\x8c\x01a\x85\x81";
        let pickled = [&b"\x80\x04}(\x8c\x01aK\x01"[..], safe, b"K\x02\x8c\x01bK\x03u."].concat();
        let value = loads(&pickled, &Limits::default()).unwrap();
        let data = Data::from_pickle(&value).unwrap();
        assert_eq!(data.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(data.get("a").unwrap().to::<u8>(), Ok(2));
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Data::from(object(r#"{"a":"hush"}"#))).contains("hush"));
    }

    mod pickle {
        use super::*;
        use crate::serializers::pickle::{self, Limits, Protocol, Value as Pickle};

        fn number(number: i32) -> Pickle {
            Pickle::new(&number).unwrap()
        }

        #[test]
        fn goes_through_with_keys_that_are_no_text_and_what_is_shared() {
            let shared = Pickle::list([number(7)]);
            let dict = Pickle::from_dict_items([
                (Pickle::str("a"), Pickle::tuple([shared.clone()])),
                (number(1), shared.clone()),
                (Pickle::tuple([number(1), Pickle::none()]), shared),
                (Pickle::from_wtf8(b"\xed\xa0\x80").unwrap(), Pickle::bytes(b"hush")),
            ]);
            let bytes = pickle::dumps(&dict, Protocol::V4).unwrap();
            let dict = pickle::loads(&bytes, &Limits::default()).unwrap();
            let mut data = Data::from_pickle(&dict).unwrap();
            assert_eq!(pickle::dumps(&data.to_pickle().unwrap(), Protocol::V4).unwrap(), bytes);
            assert_eq!(data.get("a").unwrap().to::<[[u8; 1]; 1]>(), Ok([[7]]));
            assert!(!format!("{data:?}").contains("hush"));

            data.insert("a", RawValue::new(&[1]).unwrap());
            data.insert("b", RawValue::new("c").unwrap());
            let back = Data::from_pickle(&data.to_pickle().unwrap()).unwrap();
            assert_eq!(back.get("a").unwrap().to_json().unwrap().as_bytes(), b"[1]");
            assert_eq!((back.len(), back.get("b").unwrap().to::<String>()), (5, Ok("c".to_owned())));
        }

        #[test]
        fn what_json_has_not_is_refused_by_its_key() {
            let moment = Pickle::timestamp("2026-11-23T12:00:00Z".parse().unwrap()).unwrap();
            let data = Data::from_pickle(&Pickle::from_dict_items([(Pickle::str("when"), moment)])).unwrap();
            let error = data.to_json().unwrap_err();
            assert!(matches!(&error, SessionError::Value { key, .. } if key == "when"), "{error:?}");

            let key = Pickle::from_dict_items([(Pickle::tuple([number(1)]), number(1))]);
            let error = Data::from_pickle(&key).unwrap().to_json().unwrap_err();
            assert!(matches!(error, SessionError::Value { source: ValueError::Key, .. }));
            assert!(Data::from_pickle(&Pickle::list([])).is_none());
        }

        #[test]
        fn json_dumps_turns_keys_into_text() {
            let keys = [Pickle::none(), Pickle::new(&true).unwrap(), Pickle::new(&1.5).unwrap(), number(-1)];
            let dict = Pickle::from_dict_items(keys.map(|key| (key, number(0))));
            let text = Data::from_pickle(&dict).unwrap().to_json().unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), r#"{"null":0,"true":0,"1.5":0,"-1":0}"#);
        }
    }

    mod pickled {
        use super::*;
        use crate::serializers::pickle::{self, Limits, Protocol, Value as Pickle};

        fn loaded(bytes: &[u8]) -> Data {
            Data::from_pickle(&pickle::loads(bytes, &Limits::default()).unwrap()).unwrap()
        }

        fn dumped(data: &Data) -> Vec<u8> {
            pickle::dumps(&data.to_pickle().unwrap(), Protocol::V4).unwrap()
        }

        /// What CPython pickles of a dict of these items, in substance.
        fn dict(items: impl IntoIterator<Item = (Pickle, Pickle)>) -> Data {
            loaded(&pickle::dumps(&Pickle::from_dict_items(items), Protocol::V5).unwrap())
        }

        fn number(number: i64) -> Pickle {
            Pickle::new(&number).unwrap()
        }

        #[test]
        fn becomes_what_json_dumps_makes_of_it() {
            let data = dict([
                (Pickle::str("tuple"), Pickle::tuple([number(1), Pickle::none()])),
                (number(1), Pickle::str("a number")),
                (Pickle::str("1"), Pickle::str("text")),
                (Pickle::none(), number(2)),
                (Pickle::new(&true).unwrap(), number(3)),
                (Pickle::new(&1.5).unwrap(), number(4)),
                (Pickle::new(&f64::NAN).unwrap(), number(5)),
                (Pickle::from_wtf8(b"\xed\xa0\x80").unwrap(), number(6)),
            ]);
            // As in Python, `True` is the key 1.
            let text = r#"{"tuple":[1,null],"1":3,"1":"text","null":2,"1.5":4,"NaN":5,"\ud800":6}"#;
            assert_eq!(String::from_utf8(data.to_json().unwrap()).unwrap(), text);
            assert_eq!(data.to_json_object().unwrap(), object(text), "the last one is read");
            assert_eq!(data.get("1").unwrap().to::<String>().unwrap(), "text");
            let keys: Vec<_> = data.iter().map(|(key, _)| key.into_owned()).collect();
            assert_eq!(keys, ["tuple", "1", "1", "null", "1.5", "NaN", "\u{fffd}\u{fffd}\u{fffd}"]);
            assert_eq!(dumped(&loaded(&dumped(&data))), dumped(&data));
        }

        #[test]
        fn one_changes_and_the_others_stay() {
            let moment = Pickle::timestamp("2026-11-23T12:00:00Z".parse().unwrap()).unwrap();
            let mut data = dict([
                (Pickle::str("when"), moment.clone()),
                (Pickle::str("visits"), number(1)),
                (Pickle::tuple([number(1)]), Pickle::bytes(b"b")),
            ]);
            data.insert("visits", RawValue::new(&2).unwrap());
            data.insert("new", Pickle::decimal("1.10").unwrap());
            let data = loaded(&dumped(&data));
            assert_eq!(data.get("when").unwrap().to::<String>().unwrap(), "2026-11-23T12:00:00+00:00");
            assert_eq!(data.get("visits").unwrap().to::<u8>().unwrap(), 2);
            assert_eq!(data.get("new").unwrap().to::<String>().unwrap(), "1.10");
            let Value::Pickle(new) = data.get("new").unwrap() else { panic!() };
            assert_eq!(new.class(), "decimal.Decimal");
            let (key, value) = data.entries().nth(2).unwrap();
            let (Key::Other(Value::Pickle(key)), Value::Pickle(value)) = (key, value) else { panic!() };
            assert_eq!((key.class().as_str(), value.as_bytes()), ("tuple", Some(&b"b"[..])));
        }

        #[test]
        fn what_json_has_not_is_refused_by_key_and_class() {
            let error =
                dict([(Pickle::str("price"), Pickle::decimal("1.10").unwrap())]).to_json().unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                error.to_string().contains("price") && source.contains("decimal.Decimal"),
                "{error}: {source}"
            );
            let error = dict([(Pickle::tuple([]), number(1))]).to_json().unwrap_err();
            assert!(matches!(error, SessionError::Value { source: ValueError::Key, .. }), "{error:?}");
        }

        #[test]
        fn what_is_shared_stays_shared() {
            let list = Pickle::list((0..1000).map(number));
            let data = dict([(Pickle::str("both"), Pickle::tuple([list.clone(), list.clone()]))]);
            let both = data.get("both").unwrap().to_pickle().unwrap();
            let items = both.items().unwrap().zip(["a", "b"]);
            let apart = Data::from_pickle(&Pickle::from_dict_items(
                items.map(|(item, name)| (Pickle::str(name), item)),
            ));
            let alone = dumped(&dict([(Pickle::str("a"), list)])).len();
            assert!(dumped(&data).len() < alone + 100 && dumped(&apart.unwrap()).len() < alone + 100);
        }

        #[test]
        fn json_becomes_a_pickle() {
            let text = r#"{"a":[1.0,NaN,1180591620717411303424],"\ud800":"\udfff"}"#;
            let data = loaded(&dumped(&Data::from(object(text))));
            assert_eq!(String::from_utf8(data.to_json().unwrap()).unwrap(), text);
            assert!(Data::from_pickle(&number(1)).is_none());
        }
    }

    #[cfg(feature = "msgpack")]
    mod msgpack {
        use super::*;
        use crate::serializers::msgpack::{self, Value as Msgpack};

        #[test]
        fn becomes_what_json_dumps_makes_of_it() {
            let map = b"\x82\xa2\xc3\xa9\x94\x01\xcb\xbf\xf8\0\0\0\0\0\0\xc3\xc0\xa3big\xcf\xff\xff\xff\xff\xff\xff\xff\xff";
            let data = Data::from_msgpack(map).unwrap();
            assert_eq!(data.to_msgpack().unwrap(), map);
            let text = r#"{"\u00e9":[1,-1.5,true,null],"big":18446744073709551615}"#;
            assert_eq!(String::from_utf8(data.to_json().unwrap()).unwrap(), text);
            assert_eq!(data.to_json_object().unwrap(), object(text));
            assert_eq!(data.get("big").unwrap().to::<u64>(), Ok(u64::MAX));
            assert_eq!(Data::from(object(text)).to_msgpack().unwrap(), map);
        }

        #[test]
        fn bytes_and_extensions_go_through_and_json_refuses_them_by_their_key() {
            for map in
                [&b"\x81\xa4cart\xc4\x04hush"[..], b"\x81\xa4cart\xd6\x01hush", b"\x81\xc4\x04cart\x01"]
            {
                let data = Data::from_msgpack(map).unwrap();
                assert_eq!(data.to_msgpack().unwrap(), map);
                let error = data.to_json().unwrap_err();
                assert!(matches!(&error, SessionError::Value { .. }), "{error:?}");
                assert!(!format!("{error:?} {data:?}").contains("hush"));
            }
            let value = Value::from(Msgpack::from_bytes(*b"\xc4\x03tea").unwrap());
            assert_eq!(value.to::<rmpv::Value>().unwrap(), rmpv::Value::Binary(b"tea".to_vec()));
            assert_eq!(
                Data::from_msgpack(b"\x01").unwrap_err(),
                msgpack::Error::NotAMap { found: "an integer" }
            );
        }

        #[test]
        fn what_msgpack_has_not_is_refused_by_its_key() {
            for text in [r#"{"cart":18446744073709551616}"#, r#"{"cart":["\ud800"]}"#] {
                let error = Data::from(object(text)).to_msgpack().unwrap_err();
                assert!(matches!(&error, SessionError::Value { key, .. } if key == "cart"), "{error:?}");
            }
            let error = Data::from(object(r#"{"cart\ud800":1}"#)).to_msgpack().unwrap_err();
            assert!(
                matches!(&error, SessionError::Value { key, .. } if key.starts_with("cart")),
                "{error:?}"
            );
        }
    }
}
