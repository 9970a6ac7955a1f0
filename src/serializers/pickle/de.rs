//! Values of a pickle read into Rust types.

use std::borrow::Cow;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::classes::{self, View};
use super::graph::{Graph, Id, Node};
use super::{Error, MAX_EXPANDED, int, json};
use crate::serializers::json::{MAX_VALUE_DEPTH, RAW_VALUE};

/// What a value costs beside its text.
const VALUE_COST: usize = 64;

pub(super) fn deserialize<T: DeserializeOwned>(graph: &Graph, root: Id) -> Result<T, Error> {
    let max = MAX_EXPANDED.max(graph.data.len() * 8);
    let mut reader = Reader { graph, depth: 0, left: max, max };
    T::deserialize(Value { reader: &mut reader, id: root })
}

struct Reader<'a> {
    graph: &'a Graph,
    depth: usize,
    /// What may yet be read: shared values are read each time.
    left: usize,
    max: usize,
}

impl Reader<'_> {
    fn spend(&mut self, id: Id) -> Result<(), Error> {
        let cost = VALUE_COST + self.graph.node(id).text_len();
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::Limit { unit: "bytes of values", max: self.max }),
        }
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_VALUE_DEPTH {
            return Err(Error::Limit { unit: "levels", max: MAX_VALUE_DEPTH });
        }
        Ok(())
    }
}

struct Value<'r, 'a> {
    reader: &'r mut Reader<'a>,
    id: Id,
}

impl<'a> Value<'_, 'a> {
    fn view(&mut self) -> Result<View<'a>, Error> {
        self.reader.spend(self.id)?;
        Ok(classes::view(self.reader.graph, self.id))
    }

    fn opaque(&self) -> Error {
        Error::Object { class: classes::type_name(self.reader.graph, self.id) }
    }

    fn visit<'de, V: Visitor<'de>>(self, view: View<'a>, visitor: V) -> Result<V::Value, Error> {
        match view {
            View::None => visitor.visit_unit(),
            View::Bool(value) => visitor.visit_bool(value),
            View::Int(value) => match u64::try_from(value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(value),
            },
            View::Long(bytes) => match (int::to_i128(bytes), int::to_u128(bytes)) {
                (_, Some(value)) if u64::try_from(value).is_ok() => visitor.visit_u64(value as u64),
                (Some(value), _) => visitor.visit_i128(value),
                (None, Some(value)) => visitor.visit_u128(value),
                (None, None) => Err(Error::IntegerOutOfRange),
            },
            View::Float(value) => visitor.visit_f64(value),
            View::Text(text) | View::Lazy(text) => {
                visitor.visit_str(str::from_utf8(text).map_err(|_| Error::LoneSurrogate)?)
            }
            View::Bytes(bytes) => visitor.visit_bytes(bytes),
            View::Written(text) => visitor.visit_string(text),
            View::Items(items) | View::Set(items) => self.items(items, visitor),
            View::Pairs(pairs) => self.pairs(pairs, visitor),
            View::Opaque => Err(self.opaque()),
        }
    }

    fn items<'de, V: Visitor<'de>>(self, items: &'a [Id], visitor: V) -> Result<V::Value, Error> {
        self.reader.enter()?;
        let mut access = Items { items: items.iter(), reader: self.reader };
        let value = visitor.visit_seq(&mut access)?;
        if access.items.len() > 0 {
            return Err(too_many());
        }
        self.reader.depth -= 1;
        Ok(value)
    }

    fn pairs<'de, V: Visitor<'de>>(self, pairs: Cow<'a, [[Id; 2]]>, visitor: V) -> Result<V::Value, Error> {
        self.reader.enter()?;
        let mut access = Pairs { pairs: &pairs, at: 0, reader: self.reader };
        let value = visitor.visit_map(&mut access)?;
        if access.at < pairs.len() {
            return Err(too_many());
        }
        self.reader.depth -= 1;
        Ok(value)
    }
}

fn too_many() -> Error {
    Error::Shape("more items than the type has".to_owned())
}

impl<'de> de::Deserializer<'de> for Value<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let view = self.view()?;
        self.visit(view, visitor)
    }

    /// An integer of any size is a float to who asks for one, as `float()` in Python.
    fn deserialize_f64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        match self.view()? {
            View::Int(value) => visitor.visit_f64(value as f64),
            View::Long(bytes) => visitor.visit_f64(int::to_f64(bytes)?),
            view => self.visit(view, visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    /// Bytes are also the sequence of their numbers, which `Vec<u8>` asks for.
    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        match self.view()? {
            View::Bytes(bytes) => {
                visitor.visit_seq(de::value::SeqDeserializer::<_, Error>::new(bytes.iter().copied()))
            }
            view => self.visit(view, visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.reader.graph.node(self.id) {
            Node::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name != RAW_VALUE {
            return visitor.visit_newtype_struct(self);
        }
        let json = json::to_json(self.reader.graph, self.id)?;
        match self.reader.left.checked_sub(json.as_bytes().len()) {
            Some(left) => self.reader.left = left,
            None => return Err(Error::Limit { unit: "bytes of values", max: self.reader.max }),
        }
        visitor.visit_byte_buf(json.as_bytes().to_vec())
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.view()? {
            View::Pairs(pairs) => match *pairs {
                [[name, content]] => {
                    self.reader.enter()?;
                    let value = visitor.visit_enum(Variant { reader: self.reader, name, content })?;
                    self.reader.depth -= 1;
                    Ok(value)
                }
                _ => Err(Error::Shape("a dict of one item expected, for a variant".to_owned())),
            },
            View::Text(text) | View::Lazy(text) => {
                let name: StrDeserializer<'_, Error> =
                    str::from_utf8(text).map_err(|_| Error::LoneSurrogate)?.into_deserializer();
                visitor.visit_enum(name)
            }
            View::Opaque => Err(self.opaque()),
            _ => Err(Error::Shape("a text or a dict expected, for a variant".to_owned())),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct
        tuple_struct map struct identifier
    }
}

struct Items<'r, 'a> {
    items: std::slice::Iter<'a, Id>,
    reader: &'r mut Reader<'a>,
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        match self.items.next() {
            Some(id) => seed.deserialize(Value { reader: self.reader, id: *id }).map(Some),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Pairs<'p, 'r, 'a> {
    pairs: &'p [[Id; 2]],
    at: usize,
    reader: &'r mut Reader<'a>,
}

impl<'de> de::MapAccess<'de> for &mut Pairs<'_, '_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        match self.pairs.get(self.at) {
            Some([key, _]) => seed.deserialize(Value { reader: self.reader, id: *key }).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let [_, value] = self.pairs[self.at];
        self.at += 1;
        seed.deserialize(Value { reader: self.reader, id: value })
    }
}

/// `{"Variant": content}`, as serde writes enums that hold something.
struct Variant<'r, 'a> {
    reader: &'r mut Reader<'a>,
    name: Id,
    content: Id,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = seed.deserialize(Value { reader: &mut *self.reader, id: self.name })?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        de::Deserialize::deserialize(Value { reader: self.reader, id: self.content })
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Value { reader: self.reader, id: self.content })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(Value { reader: self.reader, id: self.content }, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(Value { reader: self.reader, id: self.content }, visitor)
    }
}
