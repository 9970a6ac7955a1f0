//! Keys of dicts and items of sets: those that are equal to Python count once.

use std::collections::{HashMap, HashSet};

use super::graph::{Graph, Id, Node};
use super::{Error, int};

/// Leaves each dict of `graph` the last value of equal keys, at the first one's place, and each set the first of equal
/// items, as Python does.
///
/// Text, bytes, numbers, and tuples and frozensets of them are compared as Python compares; objects are equal to
/// themselves only.
///
/// # Errors
/// [`Error::Unhashable`].
pub(super) fn settle(graph: &mut Graph) -> Result<(), Error> {
    let mut classes = Classes::default();
    for index in 0..graph.nodes.len() {
        // Keys cannot lead back here but through something unhashable, which an empty node is, too.
        match &mut graph.nodes[index] {
            Node::Dict(items) if !items.is_empty() => {
                let items = std::mem::take(items);
                graph.nodes[index] = Node::Dict(settle_pairs(graph, items, &mut classes)?);
            }
            Node::Set(items) if !items.is_empty() => {
                let items = std::mem::take(items);
                graph.nodes[index] = Node::Set(settle_items(graph, items, &mut classes)?);
            }
            Node::FrozenSet(items) if !items.is_empty() => {
                let items = std::mem::take(items).into();
                graph.nodes[index] = Node::FrozenSet(settle_items(graph, items, &mut classes)?.into());
            }
            _ => {}
        }
    }
    Ok(())
}

type Pair = (Id, Id);

fn settle_pairs(graph: &Graph, items: Vec<Pair>, classes: &mut Classes) -> Result<Vec<Pair>, Error> {
    let keys = || items.iter().map(|(key, _)| *key);
    // Often the dicts of a list have the same keys, which a pickler writes once.
    if keys().eq(classes.different.iter().copied()) {
        return Ok(items);
    }
    if are_different_texts(graph, keys()) {
        classes.different.clear();
        classes.different.extend(keys());
        return Ok(items);
    }
    let mut places = HashMap::with_capacity(items.len());
    let mut settled: Vec<Pair> = Vec::with_capacity(items.len());
    for (key, value) in items {
        let place = *places.entry(classes.of(graph, key)?).or_insert(settled.len());
        match settled.get_mut(place) {
            Some(pair) => pair.1 = value,
            None => settled.push((key, value)),
        }
    }
    Ok(settled)
}

fn settle_items(graph: &Graph, mut items: Vec<Id>, classes: &mut Classes) -> Result<Vec<Id>, Error> {
    if are_different_texts(graph, items.iter().copied()) {
        return Ok(items);
    }
    let mut seen = HashSet::with_capacity(items.len());
    let mut failed = Ok(());
    items.retain(|item| match classes.of(graph, *item) {
        Ok(class) => seen.insert(class),
        Err(error) => {
            failed = Err(error);
            false
        }
    });
    failed.map(|()| items)
}

/// The usual case, found quickly.
fn are_different_texts(graph: &Graph, ids: impl Iterator<Item = Id> + Clone) -> bool {
    let texts = ids.map(|id| match graph.node(id) {
        Node::Str(span) => Some(graph.bytes(*span)),
        _ => None,
    });
    if texts.clone().count() > 8 {
        let mut seen = HashSet::new();
        return texts.into_iter().all(|text| text.is_some_and(|text| seen.insert(text)));
    }
    texts
        .clone()
        .enumerate()
        .all(|(index, text)| text.is_some() && !texts.clone().take(index).any(|other| other == text))
}

/// Numbers for hashable values: equal ones have the same.
#[derive(Default)]
struct Classes {
    /// By kind and content; what a tuple holds stands there as numbers.
    numbers: HashMap<Box<[u8]>, u32>,
    known: HashMap<Id, u32>,
    /// The keys of a dict that were found to differ.
    different: Vec<Id>,
}

impl Classes {
    fn of(&mut self, graph: &Graph, id: Id) -> Result<u32, Error> {
        let mut open = vec![id];
        while let Some(&id) = open.last() {
            let content = match graph.node(id) {
                _ if self.known.contains_key(&id) => None,
                Node::Tuple(items) | Node::FrozenSet(items) => {
                    let before = open.len();
                    open.extend(items.iter().filter(|item| !self.known.contains_key(item)));
                    if open.len() > before {
                        continue;
                    }
                    Some(self.compound(graph.node(id), items))
                }
                node => Some(content(graph, id, node)?),
            };
            open.pop();
            if let Some(content) = content {
                let next = self.numbers.len() as u32;
                let number = *self.numbers.entry(content.into()).or_insert(next);
                self.known.insert(id, number);
            }
        }
        Ok(self.known[&id])
    }

    fn compound(&self, node: &Node, items: &[Id]) -> Vec<u8> {
        let mut numbers: Vec<u32> = items.iter().map(|item| self.known[item]).collect();
        let mut kind = b't';
        if let Node::FrozenSet(_) = node {
            kind = b'z';
            numbers.sort_unstable();
            numbers.dedup();
        }
        [kind].into_iter().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
    }
}

fn content(graph: &Graph, id: Id, node: &Node) -> Result<Vec<u8>, Error> {
    let number = |bytes: &[u8]| [b"i", bytes].concat();
    Ok(match node {
        Node::None => b"n".to_vec(),
        Node::Bool(value) => number(&int::from_i128(i128::from(*value))),
        Node::Int(value) => number(&int::from_i128(i128::from(*value))),
        Node::Long(span) => number(graph.bytes(*span)),
        Node::Float(value) => match int::from_whole_f64(*value) {
            Some(whole) => number(&whole),
            // Not even equal to itself.
            None if value.is_nan() => [&b"o"[..], &id.to_le_bytes()].concat(),
            None => [&b"f"[..], &value.to_le_bytes()].concat(),
        },
        Node::Str(span) => [b"s", graph.bytes(*span)].concat(),
        Node::Bytes(span) => [b"b", graph.bytes(*span)].concat(),
        Node::Global { .. } | Node::Object(_) => [&b"o"[..], &id.to_le_bytes()].concat(),
        Node::List(_) => return Err(Error::Unhashable { kind: "list" }),
        Node::Dict(_) => return Err(Error::Unhashable { kind: "dict" }),
        Node::Set(_) => return Err(Error::Unhashable { kind: "set" }),
        Node::ByteArray(_) => return Err(Error::Unhashable { kind: "bytearray" }),
        Node::Tuple(_) | Node::FrozenSet(_) => unreachable!("put together from their items"),
    })
}
