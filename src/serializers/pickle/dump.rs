//! Writes graphs as CPython's pickler would: in the same order, and what is shared once.

#[cfg(feature = "_cache")]
use std::borrow::Cow;
use std::collections::HashMap;
#[cfg(feature = "_cache")]
use std::sync::Arc;

#[cfg(feature = "_cache")]
mod json;

use super::graph::{Graph, How, Id, Links, Node, Object, Span, Step};
use super::{Error, Protocol, Value, int};
#[cfg(feature = "_cache")]
use crate::serializers::json::RawValue;

/// CPython puts that many items under one mark.
const BATCH: usize = 1000;

static NO_GRAPH: Graph = Graph::empty();

/// A value to write, and where the nodes of its graph begin among those of all graphs that are written together.
#[derive(Clone, Copy)]
struct Root<'a> {
    graph: &'a Graph,
    base: usize,
    id: Id,
}

pub(super) fn dump(value: &Value, protocol: Protocol) -> Result<Vec<u8>, Error> {
    let root = Root { graph: &value.graph, base: 0, id: value.id };
    let mut sizes = Sizes::default();
    sizes.add(&value.graph);
    dump_roots(&[root], sizes, protocol, |writer| writer.whole(root))
}

/// A key or value of a dict that is written.
#[cfg(feature = "_cache")]
pub(crate) enum Part<'a> {
    Value(Cow<'a, Value>),
    /// In generalized UTF-8.
    Text(&'a [u8]),
    Json(&'a RawValue),
}

/// Writes a dict of values that may be of several graphs or none, without putting them together in one first.
#[cfg(feature = "_cache")]
pub(super) fn dump_dict(items: &[[Part<'_>; 2]], protocol: Protocol) -> Result<Vec<u8>, Error> {
    let (mut first, mut bases, mut sizes) = (None::<&Graph>, HashMap::new(), Sizes::default());
    let mut roots: Vec<Root<'_>> = Vec::with_capacity(items.len() * 2);
    for part in items.as_flattened() {
        let value = match part {
            Part::Value(value) => value,
            Part::Text(text) => {
                sizes.add_text(text.len());
                continue;
            }
            Part::Json(json) => {
                sizes.add_text(json.as_bytes().len());
                continue;
            }
        };
        let graph = &*value.graph;
        let base = match first {
            // Most are of the graph that was loaded.
            Some(first) if std::ptr::eq(first, graph) => 0,
            Some(_) => *bases.entry(Arc::as_ptr(&value.graph)).or_insert_with(|| sizes.add(graph)),
            None => {
                first = Some(graph);
                sizes.add(graph)
            }
        };
        roots.push(Root { graph, base, id: value.id });
    }
    dump_roots(&roots, sizes, protocol, |writer| writer.dict(items, &roots))
}

/// How large all graphs are together that are written.
#[derive(Clone, Copy, Default)]
struct Sizes {
    nodes: usize,
    /// What the output may take, about.
    output: usize,
    /// More than it should ever take.
    max: usize,
}

impl Sizes {
    /// Returns where the nodes of this graph begin.
    fn add(&mut self, graph: &Graph) -> usize {
        let base = self.nodes;
        self.nodes += graph.nodes.len();
        self.output += graph.likely_size();
        self.max += graph.max_size();
        base
    }

    #[cfg(feature = "_cache")]
    fn add_text(&mut self, len: usize) {
        self.output += len + 8;
        self.max += len * 4 + 16;
    }
}

fn dump_roots<'a>(
    roots: &[Root<'a>],
    sizes: Sizes,
    protocol: Protocol,
    write: impl Fn(&mut Writer<'a>) -> Result<bool, Error>,
) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(sizes, protocol);
    for root in roots {
        writer.count(*root)?;
    }
    loop {
        writer.output.extend_from_slice(&[0x80, protocol.number()]);
        if write(&mut writer)? {
            writer.output.push(b'.');
            return Ok(writer.output);
        }
        // A tuple or object turned out to lead to itself by its own parts. Then CPython writes it twice and drops one,
        // which only works out if everything has its place in the memo.
        writer = Writer::new(sizes, protocol);
        writer.notes.fill(Note { uses: 2, ..Note::default() });
        writer.is_all_shared = true;
    }
}

/// What is known of a node.
#[derive(Clone, Copy, Default)]
struct Note {
    /// The place that it has in the memo, plus one.
    place: u32,
    /// How often it is referred to from what is written; 2 is often.
    uses: u8,
    /// Whether it is a tuple or object that was begun, which has its place in the memo only when it is done.
    is_begun: bool,
}

/// What remains to be written of a value that was begun.
#[derive(Clone, Copy)]
enum Frame<'a> {
    Items(Items<'a>),
    /// The elements of a tuple from the given place on.
    Elements {
        id: Id,
        at: usize,
    },
    /// An object of which so many parts are on the stack: class, arguments, keywords. `is_again` if it was met within its
    /// own parts.
    Parts {
        id: Id,
        done: usize,
        is_again: bool,
    },
    /// Arguments from the given place on, of which the last is copied.
    Fresh {
        id: Id,
        at: usize,
    },
    /// An object that is made, from the given step on.
    Steps {
        id: Id,
        step: usize,
    },
}

/// What is still to be put into a container.
#[derive(Clone, Copy)]
struct Items<'a> {
    rest: &'a [Id],
    opcodes: Opcodes,
    /// How many of them belong to the batch that was begun, and whether that follows a mark.
    batch: usize,
    is_begun: bool,
    is_marked: bool,
}

struct Writer<'a> {
    /// The graph of the value that is being written, and where its nodes begin among the notes.
    graph: &'a Graph,
    base: usize,
    notes: Vec<Note>,
    /// Whether all count as shared.
    is_all_shared: bool,
    is_entangled: bool,
    memo_len: u32,
    /// Places of the names of modules and classes.
    names: HashMap<&'a [u8], u32>,
    output: Vec<u8>,
    max_output: usize,
    protocol: Protocol,
    open: Vec<Frame<'a>>,
}

impl<'a> Writer<'a> {
    fn new(sizes: Sizes, protocol: Protocol) -> Self {
        Self {
            graph: &NO_GRAPH,
            base: 0,
            notes: vec![Note::default(); sizes.nodes],
            is_all_shared: false,
            is_entangled: false,
            memo_len: 0,
            names: HashMap::new(),
            output: Vec::with_capacity(sizes.output.min(1 << 20)),
            // Entangled tuples are written more than once. They are few, unless somebody means harm.
            max_output: sizes.max * 4 + 4096,
            protocol,
            open: Vec::new(),
        }
    }

    /// Counts how often each node is referred to.
    fn count(&mut self, Root { graph, base, id }: Root) -> Result<(), Error> {
        if let Some(error) = &graph.refused {
            return Err(error.clone());
        }
        let notes = &mut self.notes[base..];
        let mut open = Vec::new();
        let mut visit = |id: Id, open: &mut Vec<Id>| {
            let note = &mut notes[id as usize];
            if note.uses > 0 {
                note.uses = 2;
                return;
            }
            note.uses = 1;
            if graph.node(id).is_compound() {
                open.push(id);
            }
        };
        visit(id, &mut open);
        while let Some(id) = open.pop() {
            graph.each_child(graph.node(id), |child| visit(child, &mut open));
        }
        Ok(())
    }

    /// Writes a value with all that it refers to. False if everything must have its place in the memo, and has not.
    fn whole(&mut self, root: Root<'a>) -> Result<bool, Error> {
        (self.graph, self.base) = (root.graph, root.base);
        self.save(root.id);
        while let Some(frame) = self.open.pop() {
            self.go_on(frame);
            if self.is_entangled && !self.is_all_shared {
                return Ok(false);
            }
            if self.output.len() > self.max_output {
                return Err(Error::Limit { unit: "bytes written", max: self.max_output });
            }
        }
        Ok(true)
    }

    /// Writes a dict of these keys and values. The roots are those of them that are of graphs.
    #[cfg(feature = "_cache")]
    fn dict(&mut self, items: &[[Part<'_>; 2]], roots: &[Root<'a>]) -> Result<bool, Error> {
        let mut roots = roots.iter();
        self.output.push(b'}');
        for batch in items.chunks(BATCH) {
            let is_marked = batch.len() > 1;
            if is_marked {
                self.output.push(b'(');
            }
            for part in batch.as_flattened() {
                match part {
                    Part::Text(text) => self.text(text),
                    Part::Json(json) => self.json(json)?,
                    Part::Value(_) => match roots.next() {
                        Some(root) if self.whole(*root)? => {}
                        _ => return Ok(false),
                    },
                }
            }
            self.output.push(if is_marked { Opcodes::SET_ITEM.many } else { Opcodes::SET_ITEM.one });
        }
        Ok(true)
    }

    /// What is known of a node of the current graph.
    fn note(&mut self, id: Id) -> &mut Note {
        &mut self.notes[self.base + id as usize]
    }

    /// The place that a node has in the memo, if it has one yet.
    fn place(&mut self, id: Id) -> Option<u32> {
        self.note(id).place.checked_sub(1)
    }

    /// Notes that a value is begun whose place in the memo comes last. Whether it was begun before.
    fn begin_parts(&mut self, id: Id) -> bool {
        let is_again = std::mem::replace(&mut self.note(id).is_begun, true);
        self.is_entangled |= is_again;
        is_again
    }

    /// Writes a value that holds no others in whole, and begins any other.
    fn save(&mut self, id: Id) {
        if !self.save_at_once(id)
            && let Some(items) = self.begin(id)
        {
            self.open.push(Frame::Items(items));
        }
    }

    /// Writes a value, if it holds no others or was written before.
    #[inline(always)]
    fn save_at_once(&mut self, id: Id) -> bool {
        let note = self.notes[self.base + id as usize];
        match note.place.checked_sub(1) {
            Some(place) => {
                self.get(place);
                true
            }
            None => self.save_first(id, note),
        }
    }

    #[inline(never)]
    fn save_first(&mut self, id: Id, note: Note) -> bool {
        match self.graph.node(id) {
            Node::Str(span) => self.text(self.graph.bytes(span)),
            Node::Bytes(span) => self.bytes(self.graph.bytes(span)),
            Node::ByteArray(span) => self.byte_array(span),
            Node::Global(place) => self.global(place),
            node => return self.scalar(node),
        }
        if note.uses > 1 {
            self.memoize(id);
        }
        true
    }

    /// Writes a value that has no place in the memo.
    fn scalar(&mut self, node: Node) -> bool {
        match node {
            Node::None => self.output.push(b'N'),
            Node::Bool(value) => self.output.push(if value { 0x88 } else { 0x89 }),
            Node::Int(value) => self.int(value),
            Node::Long(span) => self.long(self.graph.bytes(span)),
            Node::Float(value) => self.float(value),
            Node::Tuple(Links { len: 0, .. }) => self.output.push(b')'),
            _ => return false,
        }
        true
    }

    /// Begins a value that holds others. Returns what is to be put into a container.
    fn begin(&mut self, id: Id) -> Option<Items<'a>> {
        let (opcode, links, opcodes) = match self.graph.node(id) {
            Node::List(links) => (b']', links, Opcodes::APPEND),
            Node::Dict(links) => (b'}', links, Opcodes::SET_ITEM),
            Node::Set(links) => (0x8f, links, Opcodes::ADD),
            Node::Object(place) => {
                let is_again = self.begin_parts(id);
                if self.graph.object(place).how == How::Instance {
                    self.output.push(b'(');
                }
                self.open.push(Frame::Parts { id, done: 0, is_again });
                return None;
            }
            node => {
                self.begin_parts(id);
                if !matches!(node, Node::Tuple(Links { len: ..4, .. })) {
                    self.output.push(b'(');
                }
                self.open.push(Frame::Elements { id, at: 0 });
                return None;
            }
        };
        self.output.push(opcode);
        self.memoize(id);
        Some(self.items_of(links, opcodes))
    }

    fn items_of(&self, links: Links, opcodes: Opcodes) -> Items<'a> {
        let rest = self.graph.items(links);
        Items { rest, opcodes, batch: 0, is_begun: false, is_marked: false }
    }

    fn open_items(&mut self, links: Links, opcodes: Opcodes) {
        let items = self.items_of(links, opcodes);
        self.open.push(Frame::Items(items));
    }

    fn go_on(&mut self, frame: Frame<'a>) {
        match frame {
            Frame::Items(items) => self.items(items),
            Frame::Elements { id, at } => self.elements(id, at),
            Frame::Parts { id, done, is_again } => self.parts(id, done, is_again),
            Frame::Fresh { id, at } => self.fresh(id, at),
            Frame::Steps { id, step } => self.steps(id, step),
        }
    }

    // ------------------------------------------------------------------------------------------- the memo

    fn memoize(&mut self, id: Id) {
        let place = self.memo_len + 1;
        let note = self.note(id);
        if note.uses > 1 {
            note.place = place;
            self.memo_len = place;
            self.output.push(0x94);
        }
    }

    #[inline]
    fn get(&mut self, place: u32) {
        match u8::try_from(place) {
            Ok(place) => self.output.extend_from_slice(&[b'h', place]),
            Err(_) => {
                self.output.push(b'j');
                self.output.extend_from_slice(&place.to_le_bytes());
            }
        }
    }

    // ------------------------------------------------------------------------------------------- scalars

    fn int(&mut self, value: i64) {
        if let Ok(byte) = u8::try_from(value) {
            self.output.extend_from_slice(&[b'K', byte]);
        } else if let Ok(short) = u16::try_from(value) {
            self.output.push(b'M');
            self.output.extend_from_slice(&short.to_le_bytes());
        } else if let Ok(int) = i32::try_from(value) {
            self.output.push(b'J');
            self.output.extend_from_slice(&int.to_le_bytes());
        } else {
            self.long(int::shortest(&value.to_le_bytes()));
        }
    }

    fn long(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.output.extend_from_slice(&[0x8a, len]),
            Err(_) => {
                self.output.push(0x8b);
                self.output.extend((bytes.len() as u32).to_le_bytes());
            }
        }
        self.output.extend(bytes);
    }

    fn float(&mut self, value: f64) {
        self.output.push(b'G');
        self.output.extend_from_slice(&value.to_be_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.sized([0x8c, b'X', 0x8d], text);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.sized([b'C', b'B', 0x8e], bytes);
    }

    /// Text or bytes after the opcode for one, four or eight bytes of length.
    fn sized(&mut self, [short, medium, long]: [u8; 3], bytes: &[u8]) {
        if let Ok(len) = u8::try_from(bytes.len()) {
            self.output.extend_from_slice(&[short, len]);
        } else if let Ok(len) = u32::try_from(bytes.len()) {
            self.output.push(medium);
            self.output.extend_from_slice(&len.to_le_bytes());
        } else {
            self.output.push(long);
            self.output.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        }
        self.output.extend_from_slice(bytes);
    }

    fn byte_array(&mut self, span: Span) {
        if self.protocol == Protocol::V5 {
            self.output.push(0x96);
            self.output.extend(u64::from(span.len).to_le_bytes());
            self.output.extend(self.graph.bytes(span));
        } else {
            self.name(b"builtins");
            self.name(b"bytearray");
            self.output.push(0x93);
            self.bytes(self.graph.bytes(span));
            self.output.extend_from_slice(&[0x85, b'R']);
        }
    }

    fn global(&mut self, place: u32) {
        let (module, name) = self.graph.name(place);
        self.name(self.graph.bytes(module));
        self.name(self.graph.bytes(name));
        self.output.push(0x93);
    }

    /// The name of a module or class. These repeat, so each has its place in the memo.
    fn name(&mut self, name: &'a [u8]) {
        if let Some(place) = self.names.get(name) {
            return self.get(*place);
        }
        self.text(name);
        let place = self.next_place();
        self.names.insert(name, place);
    }

    /// Gives what was just written the next place of the memo.
    fn next_place(&mut self) -> u32 {
        self.output.push(0x94);
        self.memo_len += 1;
        self.memo_len - 1
    }

    // ------------------------------------------------------------------------------------------ compounds

    /// Goes on with the elements of a tuple or frozenset, or makes it of them.
    fn elements(&mut self, id: Id, at: usize) {
        let node = self.graph.node(id);
        let (Node::Tuple(links) | Node::FrozenSet(links)) = node else { return };
        let items = self.graph.items(links);
        let mut at = at;
        while let Some(item) = items.get(at) {
            at += 1;
            if !self.save_at_once(*item) {
                self.open.push(Frame::Elements { id, at });
                if let Some(items) = self.begin(*item) {
                    self.open.push(Frame::Items(items));
                }
                return;
            }
        }
        let is_marked = items.len() > 3 || matches!(node, Node::FrozenSet(_));
        if let Some(place) = self.place(id) {
            // It contains itself, and was written on the way: that one it is.
            match is_marked {
                true => self.output.push(b'1'),
                false => self.output.extend(items.iter().map(|_| b'0')),
            }
            return self.get(place);
        }
        self.output.push(match node {
            Node::FrozenSet(_) => 0x91,
            _ if is_marked => b't',
            _ => 0x84 + items.len() as u8,
        });
        self.memoize(id);
    }

    /// Goes on with the items of a list, set or dict, or of an object's step.
    fn items(&mut self, mut items: Items<'a>) {
        loop {
            if items.batch == 0 {
                if items.is_begun {
                    self.output.push(if items.is_marked { items.opcodes.many } else { items.opcodes.one });
                }
                if items.rest.is_empty() {
                    return;
                }
                items.begin_batch();
                if items.is_marked {
                    self.output.push(b'(');
                }
            }
            let (batch, rest) = items.rest.split_at(items.batch);
            let held = batch.iter().position(|item| !self.save_at_once(*item));
            let Some(held) = held else {
                (items.rest, items.batch) = (rest, 0);
                continue;
            };
            let item = batch[held];
            (items.rest, items.batch) = (&items.rest[held + 1..], batch.len() - held - 1);
            self.open.push(Frame::Items(items));
            match self.begin(item) {
                Some(within) => items = within,
                None => return,
            }
        }
    }

    // ------------------------------------------------------------------------------------------- objects

    /// Goes on with the class and arguments of an object, or makes it.
    fn parts(&mut self, id: Id, done: usize, is_again: bool) {
        let Node::Object(place) = self.graph.node(id) else { return };
        let object = self.graph.object(place);
        if object.how == How::Instance {
            return self.instance(id, object, done);
        }
        let part = match (done, object.how) {
            (0, _) => Some(object.class),
            (1, _) => Some(object.args),
            (2, How::NewWith(keywords)) => Some(keywords),
            _ => None,
        };
        if let Some(part) = part {
            self.open.push(Frame::Parts { id, done: done + 1, is_again });
            if is_again && done == 1 && self.graph.global(object.class) == Some(("copyreg", "_reconstructor"))
            {
                self.open.push(Frame::Fresh { id: part, at: 0 });
                return;
            }
            return self.save(part);
        }
        if let Some(place) = self.place(id) {
            // Its own arguments led to it. CPython drops these parts, too.
            self.output.extend((0..done).map(|_| b'0'));
            return self.get(place);
        }
        self.output.push(match object.how {
            How::New => 0x81,
            How::NewWith(_) => 0x92,
            _ => b'R',
        });
        self.made(id);
    }

    /// The same for an instance in the way of Python 1, whose arguments lie on the stack one by one.
    fn instance(&mut self, id: Id, object: &Object, done: usize) {
        let args = self.graph.tuple(object.args).unwrap_or_default();
        let part = if done == 0 { Some(object.class) } else { args.get(done - 1).copied() };
        if let Some(part) = part {
            self.open.push(Frame::Parts { id, done: done + 1, is_again: false });
            return self.save(part);
        }
        if let Some(place) = self.place(id) {
            self.output.push(b'1');
            return self.get(place);
        }
        self.output.push(b'o');
        self.made(id);
    }

    /// The arguments by which protocols 0 and 1 make an object of a class on top of `dict` or `list`: what the object
    /// holds is copied out of the last one. That may still be in the making, further out, so here it is written anew.
    fn fresh(&mut self, id: Id, at: usize) {
        let args = self.graph.tuple(id).unwrap_or_default();
        let Some(arg) = args.get(at) else {
            return self.output.push(if at == 0 { b')' } else { b't' });
        };
        if at == 0 {
            self.output.push(b'(');
        }
        self.open.push(Frame::Fresh { id, at: at + 1 });
        let (opcode, links, opcodes) = match self.graph.node(*arg) {
            Node::List(links) => (b']', links, Opcodes::APPEND),
            Node::Dict(links) => (b'}', links, Opcodes::SET_ITEM),
            Node::Set(links) => (0x8f, links, Opcodes::ADD),
            _ => return self.save(*arg),
        };
        self.output.push(opcode);
        self.open_items(links, opcodes);
    }

    fn made(&mut self, id: Id) {
        self.memoize(id);
        self.open.push(Frame::Steps { id, step: 0 });
    }

    fn steps(&mut self, id: Id, step: usize) {
        let Node::Object(place) = self.graph.node(id) else { return };
        let object = self.graph.object(place);
        // The state lies on the stack now.
        if let Some(Step::Build(_)) = step.checked_sub(1).and_then(|before| object.steps.get(before)) {
            self.output.push(b'b');
        }
        let Some(next) = object.steps.get(step) else { return };
        self.open.push(Frame::Steps { id, step: step + 1 });
        match *next {
            Step::Build(state) => self.save(state),
            Step::Append(links) => self.open_items(links, Opcodes::APPEND),
            Step::SetItems(links) => self.open_items(links, Opcodes::SET_ITEM),
            Step::Add(links) => self.open_items(links, Opcodes::ADD),
        }
    }
}

/// The opcodes for one item and for all since the mark, and how many values belong together.
#[derive(Clone, Copy)]
struct Opcodes {
    one: u8,
    many: u8,
    width: u8,
}

impl Opcodes {
    const APPEND: Self = Self { one: b'a', many: b'e', width: 1 };
    const SET_ITEM: Self = Self { one: b's', many: b'u', width: 2 };
    /// There is none for one item.
    const ADD: Self = Self { one: 0x90, many: 0x90, width: 1 };
}

impl Items<'_> {
    fn begin_batch(&mut self) {
        let Opcodes { one, many, width } = self.opcodes;
        self.batch = self.rest.len().min(BATCH * usize::from(width));
        self.is_marked = self.batch > usize::from(width) || one == many;
        self.is_begun = true;
    }
}
