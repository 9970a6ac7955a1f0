//! Writes graphs as CPython's pickler would: in the same order, and what is shared once.

use std::collections::HashMap;
#[cfg(feature = "_cache")]
use std::sync::Arc;

use super::graph::{Graph, How, Id, Node, Object, Span, Step};
use super::{Error, Protocol, Value, int};

/// CPython puts that many items under one mark.
const BATCH: usize = 1000;

static NO_GRAPH: Graph = Graph { nodes: Vec::new(), data: Vec::new(), refused: None };

/// A value to write, and where the nodes of its graph begin among those of all graphs that are written together.
#[derive(Clone, Copy)]
struct Root<'a> {
    graph: &'a Graph,
    base: usize,
    id: Id,
}

pub(super) fn dump(value: &Value, protocol: Protocol) -> Result<Vec<u8>, Error> {
    let root = Root { graph: &value.graph, base: 0, id: value.id };
    dump_roots(&[root], value.graph.nodes.len(), protocol, |writer| writer.whole(root))
}

/// Writes a dict of values that may be of several graphs, without putting them together in one first.
#[cfg(feature = "_cache")]
pub(super) fn dump_dict(items: &[(Value, Value)], protocol: Protocol) -> Result<Vec<u8>, Error> {
    let (mut bases, mut nodes) = (HashMap::new(), 0);
    let roots: Vec<Root> = items
        .iter()
        .flat_map(|(key, value)| [key, value])
        .map(|value| {
            let base = *bases.entry(Arc::as_ptr(&value.graph)).or_insert(nodes);
            if base == nodes {
                nodes += value.graph.nodes.len();
            }
            Root { graph: &value.graph, base, id: value.id }
        })
        .collect();
    dump_roots(&roots, nodes, protocol, |writer| writer.dict(&roots))
}

fn dump_roots<'a>(
    roots: &[Root<'a>],
    nodes: usize,
    protocol: Protocol,
    write: impl Fn(&mut Writer<'a>) -> Result<bool, Error>,
) -> Result<Vec<u8>, Error> {
    let mut uses = Uses { counts: vec![0; nodes], size: 16, is_all_shared: false };
    for root in roots {
        uses.count(*root)?;
    }
    loop {
        let mut writer = Writer::new(uses, protocol);
        writer.output.extend([0x80, protocol.number()]);
        if write(&mut writer)? {
            writer.output.push(b'.');
            return Ok(writer.output);
        }
        // A tuple or object turned out to lead to itself by its own parts. Then CPython writes it twice and drops one,
        // which only works out if everything has its place in the memo.
        uses = writer.uses;
        uses.counts.fill(2);
        uses.is_all_shared = true;
    }
}

/// How often each node is referred to from what is written, and about how much that is.
struct Uses {
    counts: Vec<u8>,
    size: usize,
    /// Whether all count as shared.
    is_all_shared: bool,
}

impl Uses {
    fn count(&mut self, Root { graph, base, id }: Root) -> Result<(), Error> {
        if let Some(error) = &graph.refused {
            return Err(error.clone());
        }
        let counts = &mut self.counts[base..];
        let mut open = Vec::new();
        let mut visit = |id: Id, open: &mut Vec<Id>| {
            let count = &mut counts[id as usize];
            if *count == 0 {
                open.push(id);
            }
            *count = count.saturating_add(1);
        };
        visit(id, &mut open);
        while let Some(id) = open.pop() {
            let node = graph.node(id);
            self.size += 16 + node.text_len();
            node.each_child(|child| {
                self.size += 6;
                visit(child, &mut open);
            });
        }
        Ok(())
    }
}

/// What remains to be written of a value that was begun.
#[derive(Clone, Copy)]
enum Frame {
    /// Items from the given place on; they follow a mark if `is_marked`.
    Items { id: Id, step: usize, at: usize, is_marked: bool },
    /// The elements of a tuple from the given place on.
    Elements { id: Id, at: usize },
    /// An object of which so many parts are on the stack: class, arguments, keywords. `is_again` if it was met within its
    /// own parts.
    Parts { id: Id, done: usize, is_again: bool },
    /// Arguments from the given place on, of which the last is copied.
    Fresh { id: Id, at: usize },
    /// An object that is made, from the given step on.
    Steps { id: Id, step: usize },
}

struct Writer<'a> {
    /// The graph of the value that is being written, and where its nodes begin in the lists of all.
    graph: &'a Graph,
    base: usize,
    uses: Uses,
    /// Whether a tuple or object was begun, which has its place in the memo only when it is done.
    is_begun: Vec<bool>,
    is_entangled: bool,
    /// For each node the place that it has in the memo, plus one.
    memo: Vec<u32>,
    memo_len: u32,
    /// Places of the names of modules and classes.
    names: HashMap<&'a [u8], u32>,
    output: Vec<u8>,
    protocol: Protocol,
    open: Vec<Frame>,
}

impl<'a> Writer<'a> {
    fn new(uses: Uses, protocol: Protocol) -> Self {
        let nodes = uses.counts.len();
        Self {
            graph: &NO_GRAPH,
            base: 0,
            is_begun: vec![false; nodes],
            is_entangled: false,
            memo: vec![0; nodes],
            memo_len: 0,
            names: HashMap::new(),
            output: Vec::with_capacity(uses.size.min(1 << 20)),
            protocol,
            open: Vec::new(),
            uses,
        }
    }

    /// Writes a value with all that it refers to. False if everything must have its place in the memo, and has not.
    fn whole(&mut self, root: Root<'a>) -> Result<bool, Error> {
        (self.graph, self.base) = (root.graph, root.base);
        // Entangled tuples are written more than once. They are few, unless somebody means harm.
        let max = self.uses.size * 4 + 4096;
        self.save(root.id);
        while let Some(frame) = self.open.pop() {
            self.go_on(frame);
            if self.is_entangled && !self.uses.is_all_shared {
                return Ok(false);
            }
            if self.output.len() > max {
                return Err(Error::Limit { unit: "bytes written", max });
            }
        }
        Ok(true)
    }

    /// Writes a dict of these keys and values.
    #[cfg(feature = "_cache")]
    fn dict(&mut self, roots: &[Root<'a>]) -> Result<bool, Error> {
        self.output.push(b'}');
        for batch in roots.chunks(BATCH * 2) {
            let is_marked = batch.len() > 2;
            if is_marked {
                self.output.push(b'(');
            }
            for root in batch {
                if !self.whole(*root)? {
                    return Ok(false);
                }
            }
            self.output.push(if is_marked { Opcodes::SET_ITEM.many } else { Opcodes::SET_ITEM.one });
        }
        Ok(true)
    }

    /// Where a node of the current graph stands in the lists of all.
    fn at(&self, id: Id) -> usize {
        self.base + id as usize
    }

    /// The place that a node has in the memo, if it has one yet.
    fn place(&self, id: Id) -> Option<u32> {
        self.memo[self.at(id)].checked_sub(1)
    }

    /// Notes that a value is begun whose place in the memo comes last. Whether it was begun before.
    fn begin_parts(&mut self, id: Id) -> bool {
        let at = self.at(id);
        let is_again = std::mem::replace(&mut self.is_begun[at], true);
        self.is_entangled |= is_again;
        is_again
    }

    /// Writes a value that holds no others in whole, and begins any other.
    fn save(&mut self, id: Id) {
        if let Some(place) = self.place(id) {
            return self.get(place);
        }
        match self.graph.node(id) {
            Node::None => self.output.push(b'N'),
            Node::Bool(value) => self.output.push(if *value { 0x88 } else { 0x89 }),
            Node::Int(value) => self.int(*value),
            Node::Long(span) => self.long(self.graph.bytes(*span)),
            Node::Float(value) => {
                self.output.push(b'G');
                self.output.extend(value.to_be_bytes());
            }
            Node::Str(span) => self.text(id, *span),
            Node::Bytes(span) => {
                self.sized(b'C', b'B', *span);
                self.memoize(id);
            }
            Node::ByteArray(span) => self.byte_array(id, *span),
            Node::Tuple(items) if items.is_empty() => self.output.push(b')'),
            Node::Tuple(items) => {
                self.begin_parts(id);
                if items.len() > 3 {
                    self.output.push(b'(');
                }
                self.open.push(Frame::Elements { id, at: 0 });
            }
            Node::FrozenSet(_) => {
                self.begin_parts(id);
                self.output.push(b'(');
                self.open.push(Frame::Elements { id, at: 0 });
            }
            Node::List(_) => self.begin(id, b']'),
            Node::Dict(_) => self.begin(id, b'}'),
            Node::Set(_) => self.begin(id, 0x8f),
            Node::Global { module, name } => self.global(id, *module, *name),
            Node::Object(object) => {
                let is_again = self.begin_parts(id);
                if object.how == How::Instance {
                    self.output.push(b'(');
                }
                self.open.push(Frame::Parts { id, done: 0, is_again });
            }
        }
    }

    fn begin(&mut self, id: Id, opcode: u8) {
        self.output.push(opcode);
        self.memoize(id);
        self.open.push(Frame::Items { id, step: 0, at: 0, is_marked: false });
    }

    fn go_on(&mut self, frame: Frame) {
        match frame {
            Frame::Items { id, step, at, is_marked } => self.items(id, step, at, is_marked),
            Frame::Elements { id, at } => self.elements(id, at),
            Frame::Parts { id, done, is_again } => self.parts(id, done, is_again),
            Frame::Fresh { id, at } => self.fresh(id, at),
            Frame::Steps { id, step } => self.steps(id, step),
        }
    }

    // ------------------------------------------------------------------------------------------- the memo

    fn memoize(&mut self, id: Id) {
        let at = self.at(id);
        if self.uses.counts[at] > 1 {
            self.output.push(0x94);
            self.memo_len += 1;
            self.memo[at] = self.memo_len;
        }
    }

    fn get(&mut self, place: u32) {
        match u8::try_from(place) {
            Ok(place) => self.output.extend([b'h', place]),
            Err(_) => {
                self.output.push(b'j');
                self.output.extend(place.to_le_bytes());
            }
        }
    }

    // ------------------------------------------------------------------------------------------- scalars

    fn int(&mut self, value: i64) {
        if let Ok(byte) = u8::try_from(value) {
            self.output.extend([b'K', byte]);
        } else if let Ok(short) = u16::try_from(value) {
            self.output.push(b'M');
            self.output.extend(short.to_le_bytes());
        } else if let Ok(int) = i32::try_from(value) {
            self.output.push(b'J');
            self.output.extend(int.to_le_bytes());
        } else {
            self.long(int::shortest(&value.to_le_bytes()));
        }
    }

    fn long(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.output.extend([0x8a, len]),
            Err(_) => {
                self.output.push(0x8b);
                self.output.extend((bytes.len() as u32).to_le_bytes());
            }
        }
        self.output.extend(bytes);
    }

    /// Text or bytes after the opcode for a short one or for a long one.
    fn sized(&mut self, short: u8, long: u8, span: Span) {
        match u8::try_from(span.len) {
            Ok(len) => self.output.extend([short, len]),
            Err(_) => {
                self.output.push(long);
                self.output.extend(span.len.to_le_bytes());
            }
        }
        self.output.extend(self.graph.bytes(span));
    }

    fn text(&mut self, id: Id, span: Span) {
        self.sized(0x8c, b'X', span);
        self.memoize(id);
    }

    fn byte_array(&mut self, id: Id, span: Span) {
        if self.protocol == Protocol::V5 {
            self.output.push(0x96);
            self.output.extend(u64::from(span.len).to_le_bytes());
            self.output.extend(self.graph.bytes(span));
        } else {
            self.name(b"builtins");
            self.name(b"bytearray");
            self.output.push(0x93);
            self.sized(b'C', b'B', span);
            self.output.extend([0x85, b'R']);
        }
        self.memoize(id);
    }

    fn global(&mut self, id: Id, module: Span, name: Span) {
        self.name(self.graph.bytes(module));
        self.name(self.graph.bytes(name));
        self.output.push(0x93);
        self.memoize(id);
    }

    /// The name of a module or class. These repeat, so each has its place in the memo.
    fn name(&mut self, name: &'a [u8]) {
        if let Some(place) = self.names.get(name) {
            return self.get(*place);
        }
        match u8::try_from(name.len()) {
            Ok(len) => self.output.extend([0x8c, len]),
            Err(_) => {
                self.output.push(b'X');
                self.output.extend((name.len() as u32).to_le_bytes());
            }
        }
        self.output.extend(name);
        self.output.push(0x94);
        self.names.insert(name, self.memo_len);
        self.memo_len += 1;
    }

    // ------------------------------------------------------------------------------------------ compounds

    /// Goes on with the elements of a tuple or frozenset, or makes it of them.
    fn elements(&mut self, id: Id, at: usize) {
        let node = self.graph.node(id);
        let (Node::Tuple(items) | Node::FrozenSet(items)) = node else { return };
        if let Some(item) = items.get(at) {
            self.open.push(Frame::Elements { id, at: at + 1 });
            return self.save(*item);
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

    /// The items that are put into a container, or into an object at one step.
    fn put_in(&self, id: Id, step: usize) -> Option<Items<'a>> {
        match self.graph.node(id) {
            Node::List(items) => Some(Items::Single(items, Opcodes::APPEND)),
            Node::Set(items) => Some(Items::Single(items, Opcodes::ADD)),
            Node::Dict(items) => Some(Items::Pairs(items)),
            Node::Object(object) => match object.steps.get(step)? {
                Step::Append(items) => Some(Items::Single(items, Opcodes::APPEND)),
                Step::Add(items) => Some(Items::Single(items, Opcodes::ADD)),
                Step::SetItems(items) => Some(Items::Pairs(items)),
                Step::Build(_) => None,
            },
            _ => None,
        }
    }

    /// Goes on with the items of a list, set or dict, or of an object's step.
    fn items(&mut self, id: Id, step: usize, at: usize, is_marked: bool) {
        let Some(items) = self.put_in(id, step) else { return };
        let (len, opcodes, width) = items.shape();
        let (mut at, mut is_marked) = (at, is_marked);
        loop {
            // Before the first item of a batch, and after its last.
            if at > 0 && at % width == 0 && (at == len || at % (BATCH * width) == 0) {
                self.output.push(if is_marked { opcodes.many } else { opcodes.one });
                is_marked = false;
            }
            if at == len {
                return;
            }
            if at % (BATCH * width) == 0 && (len - at > width || opcodes.one == opcodes.many) {
                self.output.push(b'(');
                is_marked = true;
            }
            let item = items.get(at);
            at += 1;
            let begun = self.open.len();
            self.open.push(Frame::Items { id, step, at, is_marked });
            self.save(item);
            // Most items are written by then, and those after them can follow at once.
            if self.open.len() > begun + 1 {
                return;
            }
            self.open.truncate(begun);
        }
    }

    // ------------------------------------------------------------------------------------------- objects

    /// Goes on with the class and arguments of an object, or makes it.
    fn parts(&mut self, id: Id, done: usize, is_again: bool) {
        let Node::Object(object) = self.graph.node(id) else { return };
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
        let opcode = match self.graph.node(*arg) {
            Node::List(_) => b']',
            Node::Dict(_) => b'}',
            Node::Set(_) => 0x8f,
            _ => return self.save(*arg),
        };
        self.output.push(opcode);
        self.open.push(Frame::Items { id: *arg, step: 0, at: 0, is_marked: false });
    }

    fn made(&mut self, id: Id) {
        self.memoize(id);
        self.open.push(Frame::Steps { id, step: 0 });
    }

    fn steps(&mut self, id: Id, step: usize) {
        let Node::Object(object) = self.graph.node(id) else { return };
        // The state lies on the stack now.
        if let Some(Step::Build(_)) = step.checked_sub(1).and_then(|before| object.steps.get(before)) {
            self.output.push(b'b');
        }
        let Some(next) = object.steps.get(step) else { return };
        self.open.push(Frame::Steps { id, step: step + 1 });
        match next {
            Step::Build(state) => self.save(*state),
            _ => self.open.push(Frame::Items { id, step, at: 0, is_marked: false }),
        }
    }
}

/// The opcodes for one item and for all since the mark.
#[derive(Clone, Copy)]
struct Opcodes {
    one: u8,
    many: u8,
}

impl Opcodes {
    const APPEND: Self = Self { one: b'a', many: b'e' };
    const SET_ITEM: Self = Self { one: b's', many: b'u' };
    /// There is none for one item.
    const ADD: Self = Self { one: 0x90, many: 0x90 };
}

#[derive(Clone, Copy)]
enum Items<'a> {
    Single(&'a [Id], Opcodes),
    Pairs(&'a [(Id, Id)]),
}

impl Items<'_> {
    /// How many values these are, how they are put in, and how many belong together.
    fn shape(self) -> (usize, Opcodes, usize) {
        match self {
            Items::Single(items, opcodes) => (items.len(), opcodes, 1),
            Items::Pairs(items) => (items.len() * 2, Opcodes::SET_ITEM, 2),
        }
    }

    fn get(self, at: usize) -> Id {
        match self {
            Items::Single(items, _) => items[at],
            Items::Pairs(items) => {
                let (key, value) = items[at / 2];
                if at.is_multiple_of(2) { key } else { value }
            }
        }
    }
}
