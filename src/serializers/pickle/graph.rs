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

/// Which links of the graph lead from a node: so many from the first on, and room for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    start: u32,
    pub(super) len: u32,
    /// How many there is room for, which is more than there are only where a value grew after others were made.
    room: u32,
}

/// One value.
#[derive(Clone, Copy, Debug)]
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
    List(Links),
    Tuple(Links),
    /// Keys and values in turns.
    Dict(Links),
    Set(Links),
    FrozenSet(Links),
    /// A class or function: its place among the names.
    Global(u32),
    /// Its place among the objects.
    Object(u32),
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
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Append(Links),
    /// Keys and values in turns.
    SetItems(Links),
    Add(Links),
    Build(Id),
}

/// Nodes, and what their text and their links lie in. All are in one piece each, so that a graph takes few allocations.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) links: Arena,
    objects: Vec<Object>,
    /// Module and name of each class and function.
    names: Vec<(Span, Span)>,
    pub(super) data: Vec<u8>,
    /// How many bytes stand in `data` once and are another value's, too.
    pub(super) repeated: usize,
    /// Why this graph, put together in Rust, cannot be written.
    pub(super) refused: Option<Error>,
}

/// Nodes that every graph begins with.
pub(super) const NONE: Id = 0;
pub(super) const FALSE: Id = 1;
pub(super) const TRUE: Id = 2;

/// Of longer pickles no more room is made beforehand than of one of so many bytes.
const MANY: usize = 1 << 16;

impl Graph {
    pub(super) const fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            links: Arena { ids: Vec::new() },
            objects: Vec::new(),
            names: Vec::new(),
            data: Vec::new(),
            repeated: 0,
            refused: None,
        }
    }

    pub(super) fn node(&self, id: Id) -> Node {
        self.nodes[id as usize]
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.data[span.start as usize..][..span.len as usize]
    }

    /// The text in `span`, if it is Unicode.
    pub(super) fn text(&self, span: Span) -> Option<&str> {
        str::from_utf8(self.bytes(span)).ok()
    }

    pub(super) fn items(&self, links: Links) -> &[Id] {
        &self.links.ids[links.start as usize..][..links.len as usize]
    }

    pub(super) fn pairs(&self, links: Links) -> &[[Id; 2]] {
        self.items(links).as_chunks().0
    }

    #[cfg(feature = "_sql")]
    pub(super) fn has_objects(&self) -> bool {
        !self.objects.is_empty()
    }

    pub(super) fn object(&self, place: u32) -> &Object {
        &self.objects[place as usize]
    }

    pub(super) fn object_mut(&mut self, place: u32) -> &mut Object {
        &mut self.objects[place as usize]
    }

    /// Where module and name of a class or function lie.
    pub(super) fn name(&self, place: u32) -> (Span, Span) {
        self.names[place as usize]
    }

    /// Module and name, if the node is a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.node(id) {
            Node::Global(place) => {
                let (module, name) = self.name(place);
                Some((self.text(module)?, self.text(name)?))
            }
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) => Some(self.items(items)),
            _ => None,
        }
    }

    /// Tells `visit` each node that `node` refers to.
    pub(super) fn each_child(&self, node: Node, mut visit: impl FnMut(Id)) {
        match node {
            Node::List(links)
            | Node::Set(links)
            | Node::Tuple(links)
            | Node::FrozenSet(links)
            | Node::Dict(links) => self.items(links).iter().copied().for_each(visit),
            Node::Object(place) => {
                let object = self.object(place);
                visit(object.class);
                visit(object.args);
                if let How::NewWith(keywords) = object.how {
                    visit(keywords);
                }
                for step in &object.steps {
                    match *step {
                        Step::Append(links) | Step::Add(links) | Step::SetItems(links) => {
                            self.items(links).iter().copied().for_each(&mut visit);
                        }
                        Step::Build(state) => visit(state),
                    }
                }
            }
            _ => {}
        }
    }

    /// About how many bytes a pickle of this graph takes: one that was read, what it took.
    pub(super) fn likely_size(&self) -> usize {
        self.data.len() + self.links.ids.len() * 2 + 16
    }

    /// How many it takes at most, if what is shared is written once.
    pub(super) fn max_size(&self) -> usize {
        let text = self.data.len() + self.repeated;
        text + self.nodes.len() * 16 + self.links.ids.len() * 6 + self.objects.len() * 16
    }

    /// Puts `items` into the value of a node. False if that takes none of this kind.
    ///
    /// # Errors
    /// As [`Arena::extend`].
    pub(super) fn put(&mut self, id: Id, kind: Kind, items: &[Id]) -> Result<bool, Box<Error>> {
        let links = match (&mut self.nodes[id as usize], kind) {
            (Node::List(links), Kind::Appended) => links,
            (Node::Dict(links), Kind::Set) => links,
            (Node::Set(links), Kind::Added) => links,
            (Node::Object(place), _) => self.objects[*place as usize].step(kind),
            _ => return Ok(false),
        };
        self.links.extend(links, items)?;
        Ok(true)
    }

    /// Leaves a dict or set only `items`, which are no more than it has.
    pub(super) fn shorten(&mut self, id: Id, items: &[Id]) {
        if let Node::Dict(links) | Node::Set(links) | Node::FrozenSet(links) = &mut self.nodes[id as usize] {
            self.links.ids[links.start as usize..][..items.len()].copy_from_slice(items);
            links.len = items.len() as u32;
        }
    }

    /// Gives back what was reserved for more than there turned out to be, where that is much.
    pub(super) fn shrink(&mut self) {
        if self.nodes.capacity() > self.nodes.len() * 2 {
            self.nodes.shrink_to_fit();
        }
        if self.links.ids.capacity() > self.links.ids.len() * 2 {
            self.links.ids.shrink_to_fit();
        }
    }
}

/// How items come into a value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Appended,
    /// Keys and values.
    Set,
    Added,
}

impl Object {
    /// Where to put items of this kind: into the last step if it is one of them, and else into a new one.
    fn step(&mut self, kind: Kind) -> &mut Links {
        let is_same = matches!(
            (self.steps.last(), kind),
            (Some(Step::Append(_)), Kind::Appended)
                | (Some(Step::SetItems(_)), Kind::Set)
                | (Some(Step::Add(_)), Kind::Added)
        );
        if !is_same {
            self.steps.push(match kind {
                Kind::Appended => Step::Append(Links::default()),
                Kind::Set => Step::SetItems(Links::default()),
                Kind::Added => Step::Add(Links::default()),
            });
        }
        match self.steps.last_mut() {
            Some(Step::Append(links) | Step::SetItems(links) | Step::Add(links)) => links,
            _ => unreachable!("the last step is one of items"),
        }
    }
}

/// The links of all nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    ids: Vec<Id>,
}

impl Arena {
    /// Adds links to `items`. If other links were made meanwhile these are moved, to where they have room to double.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond 4 Gi of them, which a pickle that is read cannot name.
    pub(super) fn extend(&mut self, links: &mut Links, items: &[Id]) -> Result<(), Box<Error>> {
        if links.len > 0 {
            return self.grow(links, items);
        }
        let start = self.ids.len();
        if u32::try_from(start + items.len()).is_err() {
            return Err(too_many_links());
        }
        self.ids.extend_from_slice(items);
        *links = Links { start: start as u32, len: items.len() as u32, room: items.len() as u32 };
        Ok(())
    }

    fn grow(&mut self, links: &mut Links, items: &[Id]) -> Result<(), Box<Error>> {
        let (start, end) = (links.start as usize, links.start as usize + links.len as usize);
        let len = links.len as usize + items.len();
        if len <= links.room as usize {
            self.ids[end..][..items.len()].copy_from_slice(items);
            links.len = len as u32;
            return Ok(());
        }
        let is_last = end == self.ids.len();
        let (first, room) = if is_last { (start, len) } else { (self.ids.len(), len * 2) };
        if u32::try_from(first + room).is_err() {
            return Err(too_many_links());
        }
        if !is_last {
            self.ids.extend_from_within(start..end);
        }
        self.ids.extend_from_slice(items);
        self.ids.resize(first + room, NONE);
        *links = Links { start: first as u32, len: len as u32, room: room as u32 };
        Ok(())
    }
}

#[cold]
fn too_many_links() -> Box<Error> {
    Error::Limit { unit: "references", max: u32::MAX as usize }.into()
}

impl Node {
    /// Whether it refers to others.
    pub(super) fn is_compound(self) -> bool {
        matches!(
            self,
            Node::List(_)
                | Node::Tuple(_)
                | Node::Dict(_)
                | Node::Set(_)
                | Node::FrozenSet(_)
                | Node::Object(_)
        )
    }

    pub(super) fn text_len(self) -> usize {
        match self {
            Node::Long(span) | Node::Str(span) | Node::Bytes(span) | Node::ByteArray(span) => {
                span.len as usize
            }
            _ => 0,
        }
    }
}

/// A graph in the making.
pub(super) struct Builder {
    pub(super) graph: Graph,
    /// How many bytes will stand before those of the graph: the pickle that is read.
    before: usize,
    globals: HashMap<(Box<str>, Box<str>), Id>,
    /// For each graph that values were taken from: the new numbers of its nodes. The graph is kept, for another could
    /// otherwise come to lie in its place.
    imported: HashMap<*const Graph, (Arc<Graph>, Vec<Option<Id>>)>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut graph = Graph::empty();
        graph.nodes.extend([Node::None, Node::Bool(false), Node::Bool(true)]);
        Self { graph, before: 0, globals: HashMap::new(), imported: HashMap::new() }
    }

    /// A graph around a pickle of so many bytes, to which the nodes may refer before it is [put there](Self::finish).
    pub(super) fn around(len: usize) -> Self {
        let mut graph = Graph::empty();
        let likely = len.min(MANY) / 8;
        graph.nodes.reserve_exact(3 + likely);
        graph.links.ids.reserve_exact(likely);
        graph.nodes.extend([Node::None, Node::Bool(false), Node::Bool(true)]);
        Self { graph, before: len, globals: HashMap::new(), imported: HashMap::new() }
    }

    pub(super) fn finish(self, pickle: Vec<u8>) -> Graph {
        let mut graph = self.graph;
        let others = std::mem::replace(&mut graph.data, pickle);
        graph.data.extend(others);
        graph
    }

    /// How many bytes there will be.
    pub(super) fn data_len(&self) -> usize {
        self.before + self.graph.data.len()
    }

    /// What [`span`](Self::span) kept.
    pub(super) fn kept(&self, span: Span) -> Option<&[u8]> {
        let start = (span.start as usize).checked_sub(self.before)?;
        Some(&self.graph.data[start..][..span.len as usize])
    }

    #[inline(always)]
    pub(super) fn push(&mut self, node: Node) -> Id {
        let id = Id::try_from(self.graph.nodes.len()).expect("4 Gi nodes take more memory than there is");
        self.graph.nodes.push(node);
        id
    }

    /// Keeps `bytes` in the graph.
    pub(super) fn span(&mut self, bytes: &[u8]) -> Span {
        let start = self.data_len();
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

    /// Links to `items`. Too many make the graph one that cannot be written.
    pub(super) fn link(&mut self, items: &[Id]) -> Links {
        let mut links = Links::default();
        if let Err(error) = self.graph.links.extend(&mut links, items) {
            self.graph.refused = Some(*error);
        }
        links
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
        let place = self.graph.names.len() as u32;
        let spans = (self.span(module.as_bytes()), self.span(name.as_bytes()));
        self.graph.names.push(spans);
        let id = self.push(Node::Global(place));
        self.globals.insert((module.into(), name.into()), id);
        id
    }

    /// The node of an object, which is as new as its place among the objects.
    pub(super) fn object(&mut self, object: Object) -> Node {
        self.graph.objects.push(object);
        Node::Object(self.graph.objects.len() as u32 - 1)
    }

    /// `module.name(*args)`
    pub(super) fn call(&mut self, module: &str, name: &str, args: &[Id]) -> Id {
        let class = self.global(module, name);
        let links = self.link(args);
        let args = self.push(Node::Tuple(links));
        let node = self.object(Object { how: How::Reduce, class, args, steps: Vec::new() });
        self.push(node)
    }

    /// Copies a value and all that it refers to. What two values of one graph share stays shared.
    pub(super) fn import(&mut self, from: &Arc<Graph>, root: Id) -> Id {
        let known = self.imported.remove(&Arc::as_ptr(from));
        let (_, numbers) = known.unwrap_or_else(|| (Arc::clone(from), vec![None; from.nodes.len()]));
        let mut import = Import { builder: self, from, numbers, fresh: Vec::new() };
        let id = import.claim(root);
        let mut next = 0;
        while let Some(&(old, copy)) = import.fresh.get(next) {
            next += 1;
            import.builder.graph.nodes[copy as usize] = import.copy(from.node(old));
        }
        let numbers = import.numbers;
        self.imported.insert(Arc::as_ptr(from), (Arc::clone(from), numbers));
        if self.graph.refused.is_none() {
            self.graph.refused.clone_from(&from.refused);
        }
        id
    }
}

/// Values of another graph on their way into this one.
struct Import<'b, 'a> {
    builder: &'b mut Builder,
    from: &'a Graph,
    /// The new numbers of its nodes.
    numbers: Vec<Option<Id>>,
    /// Nodes that have a new number, and are still to be copied.
    fresh: Vec<(Id, Id)>,
}

impl Import<'_, '_> {
    /// The new number of a node.
    fn claim(&mut self, id: Id) -> Id {
        if id <= TRUE {
            return id;
        }
        if let Some(known) = self.numbers[id as usize] {
            return known;
        }
        let copy = if let Some((module, name)) = self.from.global(id) {
            self.builder.global(module, name)
        } else {
            let copy = self.builder.push(Node::None);
            self.fresh.push((id, copy));
            copy
        };
        self.numbers[id as usize] = Some(copy);
        copy
    }

    fn copy(&mut self, node: Node) -> Node {
        let from = self.from;
        match node {
            Node::None | Node::Bool(_) | Node::Int(_) | Node::Float(_) => node,
            Node::Long(span) => Node::Long(self.builder.span(from.bytes(span))),
            Node::Str(span) => Node::Str(self.builder.span(from.bytes(span))),
            Node::Bytes(span) => Node::Bytes(self.builder.span(from.bytes(span))),
            Node::ByteArray(span) => Node::ByteArray(self.builder.span(from.bytes(span))),
            Node::List(links) => Node::List(self.links(links)),
            Node::Tuple(links) => Node::Tuple(self.links(links)),
            Node::Dict(links) => Node::Dict(self.links(links)),
            Node::Set(links) => Node::Set(self.links(links)),
            Node::FrozenSet(links) => Node::FrozenSet(self.links(links)),
            // `claim` has made it.
            Node::Global(_) => Node::None,
            Node::Object(place) => {
                let Object { how, class, args, steps } = from.object(place);
                let how = match *how {
                    How::NewWith(keywords) => How::NewWith(self.claim(keywords)),
                    how => how,
                };
                let (class, args) = (self.claim(*class), self.claim(*args));
                let steps = steps.iter().map(|step| self.step(*step)).collect();
                self.builder.object(Object { how, class, args, steps })
            }
        }
    }

    fn step(&mut self, step: Step) -> Step {
        match step {
            Step::Append(links) => Step::Append(self.links(links)),
            Step::SetItems(links) => Step::SetItems(self.links(links)),
            Step::Add(links) => Step::Add(self.links(links)),
            Step::Build(state) => Step::Build(self.claim(state)),
        }
    }

    fn links(&mut self, links: Links) -> Links {
        let items: Vec<Id> = self.from.items(links).iter().map(|id| self.claim(*id)).collect();
        self.builder.link(&items)
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
        let mut builder = Builder::new();
        builder.import(&value.graph, value.id);
        drop(value);
        assert!(builder.imported.contains_key(&graph.as_ptr()));
        assert!(graph.upgrade().is_some());
    }
}
