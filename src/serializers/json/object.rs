//! An object whose values stay the text that they were read from.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scan::{Scanner, unescape};
use super::{Error, from_slice, ser, to_vec};

/// By this name the reader and the writer of this module know a [`RawValue`] within another type.
pub(crate) const RAW_VALUE: &str = "$django_sessions::json::RawValue";

/// The JSON text of one value, found to be well-formed, in the bytes that it was read from.
///
/// Whatever Python wrote is kept to the letter: `1.0` and `1`, `NaN`, integers of any size, lone surrogates. It may
/// stand within types of your own, which this module reads and writes (no other JSON library can).
/// `Debug` shows the length only, since sessions hold secrets.
///
/// ```
/// use django_sessions::serializers::json::{self, RawValue};
///
/// // Append to a list without a word of what is in it.
/// let mut cart: Vec<RawValue> = json::from_slice(br#"[{"sku":"tea","weight":NaN}]"#)?;
/// cart.push(RawValue::new("jam")?);
/// assert_eq!(json::to_vec(&cart)?, br#"[{"sku":"tea","weight":NaN},"jam"]"#);
/// # Ok::<(), json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RawValue(Box<[u8]>);

impl RawValue {
    /// Takes `text` as it is; its bytes are latin-1, as Django reads them.
    ///
    /// # Errors
    /// When `text` is not one JSON value by Python's rules.
    pub fn from_text(text: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let text = text.into();
        let mut scanner = Scanner::new(&text);
        scanner.value()?;
        scanner.end()?;
        Ok(Self(text.into()))
    }

    /// Writes `value` as Python would.
    ///
    /// # Errors
    /// When `value` has no JSON form.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Ok(Self(to_vec(value)?.into()))
    }

    /// Takes text that this crate has just written.
    pub(crate) fn trusted(text: Vec<u8>) -> Self {
        Self(text.into())
    }

    /// The text. Its bytes are ASCII if Python or this crate wrote it, and latin-1 otherwise.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the value into a Rust type.
    ///
    /// # Errors
    /// As [`from_slice`].
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        from_slice(&self.0)
    }
}

impl fmt::Debug for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawValue({} bytes)", self.0.len())
    }
}

impl Serialize for RawValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(RAW_VALUE, &Text(&self.0))
    }
}

/// Bytes that serde hands on whole.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(RAW_VALUE, RawVisitor)
    }
}

struct RawVisitor;

impl de::Visitor<'_> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value, read by django_sessions::serializers::json")
    }

    fn visit_byte_buf<E: de::Error>(self, text: Vec<u8>) -> Result<RawValue, E> {
        Ok(RawValue(text.into()))
    }
}

/// A JSON object with its order and its values' text kept: the content of a session.
///
/// Equal when keys, their order and the values' text are equal.
///
/// ```
/// use django_sessions::serializers::json::{Object, RawValue};
///
/// let mut object = Object::parse(br#"{"big":1180591620717411303424,"seen":false}"#)?;
/// object.insert("seen", RawValue::new(&true)?);
/// assert_eq!(object.to_vec(), br#"{"big":1180591620717411303424,"seen":true}"#);
/// # Ok::<(), django_sessions::serializers::json::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Object {
    /// Keys in generalized UTF-8, so that lone surrogates have a place.
    entries: IndexMap<Box<[u8]>, RawValue>,
}

impl Object {
    /// An object without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Splits the text of an object; of equal keys the last value stays, at the first one's place, as in Python.
    ///
    /// # Errors
    /// [`Error::NotAnObject`] for any other JSON, and the errors of text that is not JSON.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let mut object = Self::new();
        split(text, |key, value| object.insert_bytes(key, value))?;
        Ok(object)
    }

    /// The text of the object: compact, with keys in ASCII and each value as it is.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut output = vec![b'{'];
        for (index, (key, value)) in self.entries.iter().enumerate() {
            if index > 0 {
                output.push(b',');
            }
            write_key(&mut output, key);
            output.push(b':');
            output.extend(value.as_bytes());
        }
        output.push(b'}');
        output
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.entries.get(key.as_bytes())
    }

    /// Puts `value` under `key`: in its place if the key is there, else at the end. Returns the value it replaces.
    pub fn insert(&mut self, key: &str, value: RawValue) -> Option<RawValue> {
        self.entries.insert(key.as_bytes().into(), value)
    }

    /// Takes out the value under `key`; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<RawValue> {
        self.entries.shift_remove(key.as_bytes())
    }

    /// Puts `value` under a key in generalized UTF-8.
    pub(crate) fn insert_bytes(&mut self, key: Box<[u8]>, value: RawValue) {
        self.entries.insert(key, value);
    }

    /// Keys, in generalized UTF-8, and values.
    pub(crate) fn into_entries(self) -> impl ExactSizeIterator<Item = (Box<[u8]>, RawValue)> {
        self.entries.into_iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in order. In a key that is not Unicode (it holds a lone surrogate) U+FFFD stands for the rest.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &RawValue)> {
        self.entries.iter().map(|(key, value)| (String::from_utf8_lossy(key), value))
    }
}

/// Hands `each` the keys of an object, in generalized UTF-8, and the values, in order.
pub(crate) fn split(text: &[u8], mut each: impl FnMut(Box<[u8]>, RawValue)) -> Result<(), Error> {
    let mut scanner = Scanner::new(text);
    let kind = scanner.kind()?;
    if !scanner.take(b'{') {
        scanner.value()?;
        scanner.end()?;
        return Err(Error::NotAnObject { found: kind.name() });
    }
    if !scanner.take(b'}') {
        loop {
            let key = unescape(scanner.key()?);
            each(key.into(), RawValue(scanner.value()?.into()));
            if scanner.take(b'}') {
                break;
            }
            if !scanner.take(b',') {
                return scanner.expected("a comma or a closing bracket");
            }
        }
    }
    scanner.end()
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue(self.to_vec().into()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(RawValue::deserialize(deserializer)?.as_bytes()).map_err(de::Error::custom)
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.entries.iter().eq(&other.entries)
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Writes a key that is in generalized UTF-8.
pub(crate) fn write_key(output: &mut Vec<u8>, key: &[u8]) {
    output.push(b'"');
    let mut rest = key;
    while !rest.is_empty() {
        let valid = match str::from_utf8(rest) {
            Ok(_) => rest.len(),
            Err(error) => error.valid_up_to(),
        };
        let (text, after) = rest.split_at(valid);
        for c in str::from_utf8(text).expect("checked above").chars() {
            ser::write_code_point(output, u32::from(c));
        }
        rest = after;
        // What is no UTF-8 here is one surrogate: three bytes that `unescape` wrote.
        if let Some((surrogate, after)) = rest.split_at_checked(3) {
            let [_, second, third] = [surrogate[0], surrogate[1], surrogate[2]].map(u32::from);
            ser::write_code_point(output, 0xd000 | (second & 0x3f) << 6 | third & 0x3f);
            rest = after;
        }
    }
    output.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_text_is_kept() {
        for text in [
            "{}",
            r#"{"a":1.0,"b":1,"c":1e16,"d":NaN,"e":[ 1 ,  2],"f":"\ud800","g":{"x":-0}}"#,
            r#"{"\ud800":1,"\udfff\ud800":2,"\ud83e\udd80":3,"a\ud800b":4}"#,
        ] {
            let object = Object::parse(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(object.to_vec()).unwrap(), text);
            assert_eq!(Object::parse(&object.to_vec()).unwrap(), object);
        }
    }

    #[test]
    fn duplicates_as_python() {
        let object = Object::parse(br#"{"a":1,"b":2,"\u0061":3}"#).unwrap();
        assert_eq!(object.to_vec(), br#"{"a":3,"b":2}"#);
    }

    #[test]
    fn refuses_other_values_by_name() {
        for (text, found) in [("[]", "an array"), ("1", "a number"), ("null", "null"), ("\"\"", "a string")] {
            assert_eq!(Object::parse(text.as_bytes()), Err(Error::NotAnObject { found }));
        }
        for text in ["[", "", "{\"a\":1", "{\"a\":1,}", "{\"a\":1}x", "{\"a\":1 \"b\":2}"] {
            assert!(matches!(Object::parse(text.as_bytes()), Err(Error::Syntax { .. })), "{text}");
        }
    }

    #[test]
    fn raw_values_within_other_types() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Cart {
            items: Vec<Object>,
            note: Option<RawValue>,
        }
        let text = br#"{"items":[{"x":NaN,"\ud800":1e16},{}],"note":1180591620717411303424}"#;
        let mut cart: Cart = from_slice(text).unwrap();
        assert_eq!(to_vec(&cart).unwrap(), text);
        cart.items[0].insert("y", RawValue::new(&1).unwrap());
        cart.note = None;
        assert_eq!(to_vec(&cart).unwrap(), br#"{"items":[{"x":NaN,"\ud800":1e16,"y":1},{}],"note":null}"#);
        assert!(matches!(from_slice::<Vec<Object>>(b"[1]"), Err(Error::Shape(_))));
        assert!(serde_json::from_str::<RawValue>("1").is_err(), "only this module keeps the text");
    }

    #[test]
    fn latin_1_bytes_stay() {
        let object = Object::parse(b"{\"\xe9\":\"\xe9\"}").unwrap();
        assert_eq!(object.get("é").unwrap().to::<String>().unwrap(), "é");
        assert_eq!(object.to_vec(), b"{\"\\u00e9\":\"\xe9\"}");
    }
}
