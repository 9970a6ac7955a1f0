//! The values of one pickle, as nodes that refer to each other by number.
//!
//! Shared references and cycles are nodes that are named more than once; however deep the nesting, dropping or copying
//! a graph takes no stack.

use std::collections::HashMap;
use std::sync::Arc;

use super::Error;

/// The number of a node within its graph.
pub(super) type Id = u32;

/// Where some text or bytes lie within the graph's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, the least significant byte first, of an integer beyond 64 bits.
    Long(Span),
    Float(f64),
    /// UTF-8 in which surrogates may stand ("surrogatepass"), as pickles have it.
    Str(Span),
    Bytes(Span),
    ByteArray(Span),
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    FrozenSet(Box<[Id]>),
    /// A class or function, by name.
    Global {
        module: Span,
        name: Span,
    },
    Object(Box<Object>),
}

/// A value that Python makes by a call, and what is done to it afterwards. Nothing is called here.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) how: How,
    pub(super) class: Id,
    /// A tuple.
    pub(super) args: Id,
    pub(super) steps: Vec<Step>,
}

/// The call that makes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// `class(*args)`
    Reduce,
    /// `class.__new__(class, *args)`
    New,
    /// The same with keywords, a dict.
    NewWith(Id),
    /// An instance in the way of Python 1: without arguments, `__init__` is not called.
    Instance,
}

/// What is done to an object once it is made, in order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(Vec<Id>),
    SetItems(Vec<(Id, Id)>),
    Add(Vec<Id>),
    Build(Id),
}

/// Nodes and what their text lies in.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) data: Vec<u8>,
    /// Why this graph, put together in Rust, cannot be written.
    pub(super) refused: Option<Error>,
}

/// Nodes that every graph begins with.
pub(super) const NONE: Id = 0;
pub(super) const FALSE: Id = 1;
pub(super) const TRUE: Id = 2;

impl Graph {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.data[span.start as usize..][..span.len as usize]
    }

    /// The text in `span`, if it is Unicode.
    pub(super) fn text(&self, span: Span) -> Option<&str> {
        str::from_utf8(self.bytes(span)).ok()
    }

    /// Module and name, if the node is a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.node(id) {
            Node::Global { module, name } => Some((self.text(*module)?, self.text(*name)?)),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

impl Node {
    /// Tells `visit` each node that this one refers to.
    pub(super) fn each_child(&self, mut visit: impl FnMut(Id)) {
        match self {
            Node::List(items) | Node::Set(items) => items.iter().copied().for_each(visit),
            Node::Tuple(items) | Node::FrozenSet(items) => items.iter().copied().for_each(visit),
            Node::Dict(items) => items.iter().for_each(|(key, value)| {
                visit(*key);
                visit(*value);
            }),
            Node::Object(object) => object.each_child(visit),
            _ => {}
        }
    }

    pub(super) fn text_len(&self) -> usize {
        match self {
            Node::Long(span) | Node::Str(span) | Node::Bytes(span) | Node::ByteArray(span) => {
                span.len as usize
            }
            Node::Global { module, name } => module.len as usize + name.len as usize,
            _ => 0,
        }
    }

    /// Puts `f(child)` in the place of each child.
    fn map_children(&mut self, mut f: impl FnMut(Id) -> Id) {
        match self {
            Node::List(items) | Node::Set(items) => items.iter_mut().for_each(|id| *id = f(*id)),
            Node::Tuple(items) | Node::FrozenSet(items) => items.iter_mut().for_each(|id| *id = f(*id)),
            Node::Dict(items) => {
                items.iter_mut().for_each(|(key, value)| (*key, *value) = (f(*key), f(*value)))
            }
            Node::Object(object) => object.map_children(f),
            _ => {}
        }
    }

    fn map_spans(&mut self, mut f: impl FnMut(Span) -> Span) {
        match self {
            Node::Long(span) | Node::Str(span) | Node::Bytes(span) | Node::ByteArray(span) => {
                *span = f(*span)
            }
            Node::Global { module, name } => (*module, *name) = (f(*module), f(*name)),
            _ => {}
        }
    }
}

impl Object {
    fn each_child(&self, mut visit: impl FnMut(Id)) {
        visit(self.class);
        visit(self.args);
        if let How::NewWith(keywords) = self.how {
            visit(keywords);
        }
        for step in &self.steps {
            match step {
                Step::Append(items) | Step::Add(items) => items.iter().copied().for_each(&mut visit),
                Step::SetItems(items) => items.iter().for_each(|(key, value)| {
                    visit(*key);
                    visit(*value);
                }),
                Step::Build(state) => visit(*state),
            }
        }
    }

    fn map_children(&mut self, mut f: impl FnMut(Id) -> Id) {
        self.class = f(self.class);
        self.args = f(self.args);
        if let How::NewWith(keywords) = &mut self.how {
            *keywords = f(*keywords);
        }
        for step in &mut self.steps {
            match step {
                Step::Append(items) | Step::Add(items) => items.iter_mut().for_each(|id| *id = f(*id)),
                Step::SetItems(items) => {
                    items.iter_mut().for_each(|(key, value)| (*key, *value) = (f(*key), f(*value)));
                }
                Step::Build(state) => *state = f(*state),
            }
        }
    }
}

/// A graph in the making.
pub(super) struct Builder {
    pub(super) graph: Graph,
    globals: HashMap<(Box<str>, Box<str>), Id>,
    /// For each graph that values were taken from: the new numbers of its nodes. The graph is kept, for another could
    /// otherwise come to lie in its place.
    imported: HashMap<*const Graph, (Arc<Graph>, Vec<Option<Id>>)>,
}

impl Builder {
    /// A graph around `data`, which nodes may refer to.
    pub(super) fn new(data: Vec<u8>) -> Self {
        let mut nodes = Vec::with_capacity(3 + data.len() / 8);
        nodes.extend([Node::None, Node::Bool(false), Node::Bool(true)]);
        Self {
            graph: Graph { nodes, data, refused: None },
            globals: HashMap::new(),
            imported: HashMap::new(),
        }
    }

    pub(super) fn push(&mut self, node: Node) -> Id {
        self.graph.nodes.push(node);
        Id::try_from(self.graph.nodes.len() - 1).expect("4 Gi nodes take more memory than there is")
    }

    /// Keeps `bytes` in the graph.
    pub(super) fn span(&mut self, bytes: &[u8]) -> Span {
        let start = self.graph.data.len();
        let (Ok(first), Ok(len), Ok(_)) =
            (u32::try_from(start), u32::try_from(bytes.len()), u32::try_from(start + bytes.len()))
        else {
            // Values put together in Rust: writing them fails.
            self.graph.refused = Some(Error::Limit { unit: "bytes", max: u32::MAX as usize });
            return Span { start: 0, len: 0 };
        };
        self.graph.data.extend(bytes);
        Span { start: first, len }
    }

    pub(super) fn str(&mut self, text: &str) -> Id {
        let span = self.span(text.as_bytes());
        self.push(Node::Str(span))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Id {
        let span = self.span(bytes);
        self.push(Node::Bytes(span))
    }

    /// The one node of a class or function: it is one object in Python, too.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Id {
        if let Some(id) = self.globals.get(&(module.into(), name.into())) {
            return *id;
        }
        let node = Node::Global { module: self.span(module.as_bytes()), name: self.span(name.as_bytes()) };
        let id = self.push(node);
        self.globals.insert((module.into(), name.into()), id);
        id
    }

    /// `module.name(*args)`
    pub(super) fn call(&mut self, module: &str, name: &str, args: &[Id]) -> Id {
        let class = self.global(module, name);
        let args = self.push(Node::Tuple(args.into()));
        self.push(Node::Object(Box::new(Object { how: How::Reduce, class, args, steps: Vec::new() })))
    }

    /// Copies a value and all that it refers to. What two values of one graph share stays shared.
    pub(super) fn import(&mut self, from: &Arc<Graph>, root: Id) -> Id {
        let known = self.imported.remove(&Arc::as_ptr(from));
        let (_, mut numbers) = known.unwrap_or_else(|| (Arc::clone(from), vec![None; from.nodes.len()]));
        let mut fresh = Vec::new();
        let id = self.claim(from, root, &mut numbers, &mut fresh);
        let mut next = 0;
        while let Some(&copy) = fresh.get(next) {
            next += 1;
            let mut node = std::mem::replace(&mut self.graph.nodes[copy as usize], Node::None);
            node.map_spans(|span| self.span(from.bytes(span)));
            node.map_children(|child| self.claim(from, child, &mut numbers, &mut fresh));
            self.graph.nodes[copy as usize] = node;
        }
        self.imported.insert(Arc::as_ptr(from), (Arc::clone(from), numbers));
        if self.graph.refused.is_none() {
            self.graph.refused.clone_from(&from.refused);
        }
        id
    }

    /// The new number of node `id` of `from`; a copy that still has its old children is noted in `fresh`.
    fn claim(&mut self, from: &Graph, id: Id, numbers: &mut [Option<Id>], fresh: &mut Vec<Id>) -> Id {
        if id <= TRUE {
            return id;
        }
        if let Some(known) = numbers[id as usize] {
            return known;
        }
        let copy = if let Some((module, name)) = from.global(id) {
            self.global(module, name)
        } else {
            let copy = self.push(from.node(id).clone());
            fresh.push(copy);
            copy
        };
        numbers[id as usize] = Some(copy);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;

    /// Or the next value's graph could come to lie where that of this one was, and be taken for it.
    #[test]
    fn an_imported_graph_lives_as_long_as_it_is_known() {
        let value = Value::new(&[1, 7]).unwrap();
        let graph = Arc::downgrade(&value.graph);
        let mut builder = Builder::new(Vec::new());
        builder.import(&value.graph, value.id);
        drop(value);
        assert!(builder.imported.contains_key(&graph.as_ptr()));
        assert!(graph.upgrade().is_some());
    }
}
