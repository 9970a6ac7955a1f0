//! A settings file as it was read, before it is known what is in it.
//!
//! Deserializing from it says which key is wrong, what it should be, and never what a text is: it may be a secret.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Display};

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

pub(super) type Table = BTreeMap<String, Tree>;

#[derive(Clone)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// The value of an environment variable, which becomes a number or a yes or no where one is wanted.
    Variable(String),
    List(Vec<Tree>),
    Table(Table),
}

/// What is wrong, and under which key.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) key: String,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }

    /// The same one level up.
    pub(super) fn under(mut self, key: &str) -> Self {
        self.key = match self.key.as_str() {
            "" => key.to_owned(),
            inner if inner.starts_with('[') => format!("{key}{inner}"),
            inner => format!("{key}.{inner}"),
        };
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new("", message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("this is {}, and should be {expected}", describe(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        unknown_key(field, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("this is {variant:?}, and should be one of {}", quoted(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(field, "this is missing, and has no default")
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(_) => "a text".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_) => {
            found.to_string()
        }
        _ => "something else".to_owned(),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn unknown_key(key: &str, known: &[&str]) -> Fault {
    let closest = known.iter().map(|name| (distance(key, name), *name)).min();
    let hint = match closest {
        Some((distance, name)) if distance <= 2.max(key.len() / 3) && distance < key.len() => {
            format!("do you mean {name:?}?")
        }
        _ => format!("there are {}", quoted(known)),
    };
    Fault::new(key, format!("there is no such setting; {hint}"))
}

/// How many letters must change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

impl Tree {
    /// Puts the values of environment variables in the place of `{ env = "NAME" }`.
    pub(super) fn resolve(self, variables: &dyn Fn(&str) -> Option<String>) -> Result<Self, Fault> {
        match self {
            Self::Table(table) => match (table.len(), table.get("env")) {
                (1, Some(Self::Text(name))) => match variables(name) {
                    Some(value) => Ok(Self::Variable(value)),
                    None => {
                        Err(Fault::new("", format!("the environment variable {name} is not set; set it")))
                    }
                },
                _ => {
                    let mut resolved = Table::new();
                    for (key, value) in table {
                        let value = value.resolve(variables).map_err(|fault| fault.under(&key))?;
                        resolved.insert(key, value);
                    }
                    Ok(Self::Table(resolved))
                }
            },
            Self::List(items) => {
                let items = items.into_iter().enumerate().map(|(number, item)| {
                    item.resolve(variables).map_err(|fault| fault.under(&format!("[{number}]")))
                });
                Ok(Self::List(items.collect::<Result<_, _>>()?))
            }
            value => Ok(value),
        }
    }

    pub(super) fn into_table(self) -> Result<Table, Fault> {
        match self {
            Self::Table(table) => Ok(table),
            _ => Err(Fault::new("", "this should be a table")),
        }
    }
}

/// A table whose keys are taken one by one; whatever is left in the end is unknown.
pub(super) struct Reader {
    table: Table,
    known: Vec<&'static str>,
}

impl Reader {
    pub(super) fn new(table: Table) -> Self {
        Self { table, known: Vec::new() }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Tree> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Replaces the default in `slot`, if the key is there.
    pub(super) fn read<T: de::DeserializeOwned>(
        &mut self,
        key: &'static str,
        slot: &mut T,
    ) -> Result<(), Fault> {
        if let Some(value) = self.take(key) {
            *slot = T::deserialize(value).map_err(|fault| fault.under(key))?;
        }
        Ok(())
    }

    /// # Errors
    /// When a key was not taken.
    pub(super) fn finish(self) -> Result<(), Fault> {
        match self.table.keys().next() {
            Some(key) => Err(unknown_key(key, &self.known)),
            None => Ok(()),
        }
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        i64::try_from(value).map(Tree::Integer).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut table = Table::new();
        while let Some((key, value)) = entries.next_entry::<String, Tree>()? {
            match table.entry(key) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(place) => {
                    return Err(de::Error::custom(format!("the key {:?} stands here twice", place.key())));
                }
            };
        }
        Ok(Tree::Table(table))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

/// Numbers: as they are, or out of an environment variable.
macro_rules! deserialize_numbers {
    ($($method:ident $kind:ty: $visit:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self {
                Self::Variable(text) => match text.trim().parse::<$kind>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(de::Error::invalid_type(Unexpected::Str(""), &visitor)),
                },
                value => value.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Tree {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Integer(value) => visitor.visit_i64(value),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(value) | Self::Variable(value) => visitor.visit_string(value),
            Self::List(items) => visitor.visit_seq(Items { items: items.into_iter(), number: 0 }),
            Self::Table(table) => visitor.visit_map(Entries { entries: table.into_iter(), value: None }),
        }
    }

    deserialize_numbers! {
        deserialize_i8 i64: visit_i64,
        deserialize_i16 i64: visit_i64,
        deserialize_i32 i64: visit_i64,
        deserialize_i64 i64: visit_i64,
        deserialize_u8 u64: visit_u64,
        deserialize_u16 u64: visit_u64,
        deserialize_u32 u64: visit_u64,
        deserialize_u64 u64: visit_u64,
        deserialize_f32 f64: visit_f64,
        deserialize_f64 f64: visit_f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Variable(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
                "false" | "no" | "off" | "0" => visitor.visit_bool(false),
                _ => Err(Fault::new("", "this should be true or false (or yes, no, on, off, 1, 0)")),
            },
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Text(variant) | Self::Variable(variant) => {
                let variant: StringDeserializer<Fault> = variant.into_deserializer();
                visitor.visit_enum(variant)
            }
            Self::Table(table) => {
                let entries = Entries { entries: table.into_iter(), value: None };
                visitor.visit_enum(MapAccessDeserializer::new(entries))
            }
            value => value.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

struct Items {
    items: std::vec::IntoIter<Tree>,
    number: usize,
}

impl<'de> de::SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let number = self.number;
        self.number += 1;
        seed.deserialize(item).map(Some).map_err(|fault| fault.under(&format!("[{number}]")))
    }
}

struct Entries {
    entries: std::collections::btree_map::IntoIter<String, Tree>,
    value: Option<(String, Tree)>,
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let found = seed.deserialize(StringDeserializer::new(key.clone()));
        self.value = Some((key, value));
        found.map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let (key, value) = self.value.take().expect("a key is asked for before its value");
        seed.deserialize(value).map_err(|fault| fault.under(&key))
    }
}
