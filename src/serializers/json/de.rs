//! Python's JSON read into Rust types.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::object::RAW_VALUE;
use super::scan::{Kind, Scanner, unescape};
use super::{Error, MAX_VALUE_DEPTH};

impl de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::Shape(message.to_string())
    }
}

pub(super) fn from_slice<T: DeserializeOwned>(data: &[u8]) -> Result<T, Error> {
    let mut reader = Reader { scanner: Scanner::new(data), depth: 0 };
    let value = T::deserialize(&mut reader)?;
    reader.scanner.end()?;
    Ok(value)
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    depth: usize,
}

fn to_string(text: &[u8]) -> Result<String, Error> {
    String::from_utf8(unescape(text)).map_err(|_| Error::LoneSurrogate)
}

fn to_float(text: &str) -> f64 {
    text.parse().expect("a number by the grammar is one to Rust")
}

impl Reader<'_> {
    fn enter(&mut self) -> Result<(), Error> {
        self.scanner.offset += 1;
        self.depth += 1;
        if self.depth > MAX_VALUE_DEPTH {
            return Err(Error::TooDeep { max_depth: MAX_VALUE_DEPTH });
        }
        Ok(())
    }

    fn leave(&mut self, close: u8) -> Result<(), Error> {
        self.depth -= 1;
        if self.scanner.take(close) {
            return Ok(());
        }
        match self.scanner.take(b',') {
            true => Err(Error::Shape("more items than the type has".to_owned())),
            false => self.scanner.expected("a comma or a closing bracket"),
        }
    }

    fn integer<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Error> {
        if let Ok(value) = text.parse::<u64>() {
            visitor.visit_u64(value)
        } else if let Ok(value) = text.parse::<i64>() {
            visitor.visit_i64(value)
        } else if let Ok(value) = text.parse::<i128>() {
            visitor.visit_i128(value)
        } else if let Ok(value) = text.parse::<u128>() {
            visitor.visit_u128(value)
        } else {
            Err(Error::IntegerOutOfRange)
        }
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.scanner.kind()? {
            Kind::String => visitor.visit_string(to_string(self.scanner.string()?)?),
            Kind::Number => match self.scanner.number()? {
                (text, true) => Reader::integer(text, visitor),
                (text, false) => visitor.visit_f64(to_float(text)),
            },
            Kind::Literal(literal) => {
                self.scanner.offset += literal.len();
                match literal {
                    "true" => visitor.visit_bool(true),
                    "false" => visitor.visit_bool(false),
                    "null" => visitor.visit_unit(),
                    "NaN" => visitor.visit_f64(f64::NAN),
                    "Infinity" => visitor.visit_f64(f64::INFINITY),
                    _ => visitor.visit_f64(f64::NEG_INFINITY),
                }
            }
            Kind::Array => {
                self.enter()?;
                let value = visitor.visit_seq(Items { reader: self, close: b']', is_first: true })?;
                self.leave(b']')?;
                Ok(value)
            }
            Kind::Object => {
                self.enter()?;
                let value = visitor.visit_map(Items { reader: self, close: b'}', is_first: true })?;
                self.leave(b'}')?;
                Ok(value)
            }
        }
    }

    /// An integer of any size is a float to who asks for one, as `float()` in Python.
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.scanner.kind()? {
            Kind::Number => {
                let (text, is_integer) = self.scanner.number()?;
                let value = to_float(text);
                if is_integer && value.is_infinite() {
                    Err(Error::IntegerOutOfRange)
                } else {
                    visitor.visit_f64(value)
                }
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.scanner.kind()? {
            Kind::Literal("null") => {
                self.scanner.offset += 4;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            RAW_VALUE => visitor.visit_byte_buf(self.scanner.value()?.to_vec()),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.scanner.kind()? {
            Kind::Object => {
                self.enter()?;
                let value = visitor.visit_enum(Variant { reader: self })?;
                self.leave(b'}')?;
                Ok(value)
            }
            _ => visitor.visit_enum(to_string(self.scanner.string()?)?.into_deserializer()),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.scanner.value()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

/// The items of an array, or the keys and values of an object.
struct Items<'r, 'a> {
    reader: &'r mut Reader<'a>,
    close: u8,
    is_first: bool,
}

impl Items<'_, '_> {
    /// Whether another item follows; its comma is taken then, its closing bracket never.
    fn has_next(&mut self) -> Result<bool, Error> {
        let scanner = &mut self.reader.scanner;
        scanner.skip_whitespace();
        if scanner.data.get(scanner.offset) == Some(&self.close) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.is_first) && !scanner.take(b',') {
            return scanner.expected("a comma or a closing bracket");
        }
        Ok(true)
    }
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.has_next()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.has_next()? {
            return Ok(None);
        }
        let key = to_string(self.reader.scanner.key()?)?;
        seed.deserialize(Key(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}

/// A key, which JSON has as text only: numbers and booleans are read out of it where the type wants them.
struct Key(String);

macro_rules! keys {
    ($($method:ident $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => visitor.visit_string(self.0),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Key {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    keys!(deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64,
          deserialize_i128 visit_i128, deserialize_u8 visit_u8, deserialize_u16 visit_u16,
          deserialize_u32 visit_u32, deserialize_u64 visit_u64, deserialize_u128 visit_u128,
          deserialize_bool visit_bool);

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0 == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// `{"Variant": content}`, as serde writes enums that hold something.
struct Variant<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = to_string(self.reader.scanner.key()?)?;
        Ok((seed.deserialize(Key(name))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        de::Deserialize::deserialize(self.reader)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(self.reader, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(self.reader, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::super::{Error, MAX_VALUE_DEPTH, from_slice, to_vec};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Item {
        Unit,
        One(u8),
        Two(u8, String),
        Named { a: Option<u8>, b: bool },
    }

    #[test]
    fn numbers() {
        assert_eq!(from_slice::<i128>(b"1180591620717411303424"), Ok(1 << 70));
        assert_eq!(from_slice::<f64>(b"1180591620717411303424"), Ok(2f64.powi(70)));
        assert_eq!(from_slice::<f64>(b"1e400"), Ok(f64::INFINITY));
        assert!(from_slice::<Vec<f64>>(b"[NaN]").unwrap()[0].is_nan());
        assert_eq!(from_slice::<i64>(b"-0"), Ok(0));
        assert_eq!(from_slice::<f64>("9".repeat(400).as_bytes()), Err(Error::IntegerOutOfRange));
        assert_eq!(from_slice::<u128>("9".repeat(400).as_bytes()), Err(Error::IntegerOutOfRange));
        assert!(matches!(from_slice::<i64>(b"1.0"), Err(Error::Shape(_))));
        assert!(matches!(from_slice::<u8>(b"256"), Err(Error::Shape(_))));
    }

    #[test]
    fn strings() {
        assert_eq!(from_slice::<String>(br#""\ud83e\udd80 \u00e9""#).as_deref(), Ok("🦀 é"));
        assert_eq!(from_slice::<String>(br#""\ud83e""#), Err(Error::LoneSurrogate));
    }

    #[test]
    fn compounds() {
        let items =
            vec![Item::Unit, Item::One(1), Item::Two(2, "é".to_owned()), Item::Named { a: None, b: true }];
        assert_eq!(from_slice::<Vec<Item>>(&to_vec(&items).unwrap()).unwrap(), items);
        let map = BTreeMap::from([(-5, true), (7, false)]);
        assert_eq!(from_slice::<BTreeMap<i32, bool>>(&to_vec(&map).unwrap()).unwrap(), map);
        assert_eq!(from_slice::<(u8, Option<u8>)>(b" [ 1 , null ] "), Ok((1, None)));
        assert!(matches!(from_slice::<(u8, u8)>(b"[1,2,3]"), Err(Error::Shape(_))));
    }

    #[test]
    fn depth() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(from_slice::<serde_json::Value>(nested(MAX_VALUE_DEPTH).as_bytes()).is_ok());
        assert_eq!(
            from_slice::<serde_json::Value>(nested(MAX_VALUE_DEPTH + 1).as_bytes()),
            Err(Error::TooDeep { max_depth: MAX_VALUE_DEPTH })
        );
        assert!(from_slice::<serde::de::IgnoredAny>(nested(5_000).as_bytes()).is_ok());
    }
}
