//! Keys of dicts and items of sets: those that are equal to Python count once.

use std::collections::{HashMap, HashSet};

use super::graph::{Graph, Id, Links, Node};
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
    for id in 0..graph.nodes.len() as Id {
        let settled = match graph.node(id) {
            Node::Dict(links) => settled_pairs(graph, links, &mut classes)?,
            Node::Set(links) | Node::FrozenSet(links) => settled_items(graph, links, &mut classes)?,
            _ => None,
        };
        if let Some(items) = settled {
            graph.shorten(id, &items);
        }
    }
    Ok(())
}

/// The keys and values of a dict, if they are fewer than there were.
fn settled_pairs(graph: &Graph, links: Links, classes: &mut Classes) -> Result<Option<Vec<Id>>, Error> {
    let pairs = graph.pairs(links);
    // Often the dicts of a list have the same keys, which a pickler writes once.
    let (known, mut both) = (&classes.different, pairs.iter().zip(&classes.different));
    if pairs.len() == known.len() && both.all(|([key, _], known)| key == known) {
        return Ok(None);
    }
    let keys = pairs.iter().map(|[key, _]| *key);
    if are_different_texts(graph, keys.clone()) {
        classes.different.clear();
        classes.different.extend(keys);
        return Ok(None);
    }
    let mut places = HashMap::with_capacity(pairs.len());
    let mut settled: Vec<[Id; 2]> = Vec::with_capacity(pairs.len());
    for &[key, value] in pairs {
        let place = *places.entry(classes.of(graph, key)?).or_insert(settled.len());
        match settled.get_mut(place) {
            Some(pair) => pair[1] = value,
            None => settled.push([key, value]),
        }
    }
    Ok((settled.len() < pairs.len()).then(|| settled.into_flattened()))
}

/// The items of a set, if they are fewer than there were.
fn settled_items(graph: &Graph, links: Links, classes: &mut Classes) -> Result<Option<Vec<Id>>, Error> {
    let items = graph.items(links);
    if are_different_texts(graph, items.iter().copied()) {
        return Ok(None);
    }
    let mut seen = HashSet::with_capacity(items.len());
    let mut settled = Vec::with_capacity(items.len());
    for &item in items {
        if seen.insert(classes.of(graph, item)?) {
            settled.push(item);
        }
    }
    Ok((settled.len() < items.len()).then_some(settled))
}

/// Up to so many texts are compared with each other.
const FEW: usize = 8;

/// The usual case, found quickly.
fn are_different_texts(graph: &Graph, ids: impl ExactSizeIterator<Item = Id>) -> bool {
    let mut texts = ids.map(|id| match graph.node(id) {
        Node::Str(span) => Some(graph.bytes(span)),
        _ => None,
    });
    if texts.len() > FEW {
        let mut seen = HashSet::with_capacity(texts.len());
        return texts.all(|text| text.is_some_and(|text| seen.insert(text)));
    }
    let mut seen = [&[][..]; FEW];
    texts.enumerate().all(|(index, text)| {
        seen[index] = text.unwrap_or_default();
        text.is_some_and(|text| !seen[..index].contains(&text))
    })
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
                    let items = graph.items(items);
                    open.extend(items.iter().filter(|item| !self.known.contains_key(item)));
                    if open.len() > before {
                        continue;
                    }
                    Some(self.compound(matches!(graph.node(id), Node::FrozenSet(_)), items))
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

    fn compound(&self, is_frozenset: bool, items: &[Id]) -> Vec<u8> {
        let mut numbers: Vec<u32> = items.iter().map(|item| self.known[item]).collect();
        let mut kind = b't';
        if is_frozenset {
            kind = b'z';
            numbers.sort_unstable();
            numbers.dedup();
        }
        [kind].into_iter().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
    }
}

fn content(graph: &Graph, id: Id, node: Node) -> Result<Vec<u8>, Error> {
    let number = |bytes: &[u8]| [b"i", bytes].concat();
    Ok(match node {
        Node::None => b"n".to_vec(),
        Node::Bool(value) => number(&int::from_i128(i128::from(value))),
        Node::Int(value) => number(&int::from_i128(i128::from(value))),
        Node::Long(span) => number(graph.bytes(span)),
        Node::Float(value) => match int::from_whole_f64(value) {
            Some(whole) => number(&whole),
            // Not even equal to itself.
            None if value.is_nan() => [&b"o"[..], &id.to_le_bytes()].concat(),
            None => [&b"f"[..], &value.to_le_bytes()].concat(),
        },
        Node::Str(span) => [b"s", graph.bytes(span)].concat(),
        Node::Bytes(span) => [b"b", graph.bytes(span)].concat(),
        Node::Global(_) | Node::Object(_) => [&b"o"[..], &id.to_le_bytes()].concat(),
        Node::List(_) => return Err(Error::Unhashable { kind: "list" }),
        Node::Dict(_) => return Err(Error::Unhashable { kind: "dict" }),
        Node::Set(_) => return Err(Error::Unhashable { kind: "set" }),
        Node::ByteArray(_) => return Err(Error::Unhashable { kind: "bytearray" }),
        Node::Tuple(_) | Node::FrozenSet(_) => unreachable!("put together from their items"),
    })
}
