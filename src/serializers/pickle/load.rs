//! The machine that reads a pickle. It follows CPython's `Modules/_pickle.c`, and calls and imports nothing.

use std::borrow::Cow;

use super::graph::{Builder, FALSE, Graph, How, Id, Kind, Links, NONE, Node, Object, Span, Step, TRUE};
use super::int::{self, Int};
use super::{Error, Limits, keys, names, text};

/// How the strings of Python 2, which are bytes, become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldText {
    Ascii,
    Latin1,
}

/// What a step of the machine comes to. The error lies in a box, so that the rest fits into registers.
type Done<T> = Result<T, Box<Error>>;

pub(super) fn load(data: Cow<'_, [u8]>, limits: &Limits, old_text: OldText) -> Result<(Graph, Id), Error> {
    let max_size = limits.max_size.min(u32::MAX as usize / 4);
    if data.len() > max_size {
        return Err(Error::Limit { unit: "bytes", max: max_size });
    }
    let mut machine = Machine::new(&data, limits, old_text, max_size * 3);
    let root = machine.run().map_err(|error| *error)?;
    let mut graph = machine.builder.finish(data.into_owned());
    keys::settle(&mut graph)?;
    graph.shrink();
    Ok((graph, root))
}

/// A line as C reads a number out of it: to the first zero byte.
fn c_string(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What a place of the memo holds that is empty.
const EMPTY: Id = Id::MAX;

struct Machine<'a> {
    data: &'a [u8],
    offset: usize,
    builder: Builder,
    depths: Depths,
    /// Nodes, and before those above each mark where those above the mark before it begin.
    stack: Vec<Id>,
    /// Where the nodes above the last mark begin.
    fence: usize,
    marks: usize,
    memo: Vec<Id>,
    /// How many places of the memo are taken, by which MEMOIZE counts.
    memo_len: usize,
    protocol: u8,
    old_text: OldText,
    limits: &'a Limits,
    /// How many nodes there may be. References that were copied count, too.
    max_nodes: usize,
    max_data: usize,
}

/// How deep the values under each node nest, as far as is known: what is appended later does not count for those
/// that hold the node already.
struct Depths {
    known: Vec<u32>,
    max: usize,
    /// Each level takes a byte of the pickle, so in a short one there is nothing to look after.
    is_short: bool,
}

impl Depths {
    fn of(&self, id: Id) -> u32 {
        self.known.get(id as usize).copied().unwrap_or(0)
    }

    /// `id` is going to hold `children`, too.
    fn deepen(&mut self, id: Id, children: &[Id]) -> Done<()> {
        if self.is_short {
            return Ok(());
        }
        let below = children.iter().map(|child| self.of(*child) + 1).max().unwrap_or(0);
        if below > self.of(id) {
            if below as usize > self.max {
                return Err(Error::Limit { unit: "levels", max: self.max }.into());
            }
            if id as usize >= self.known.len() {
                self.known.resize(id as usize + 1, 0);
            }
            self.known[id as usize] = below;
        }
        Ok(())
    }
}

impl<'a> Machine<'a> {
    fn new(data: &'a [u8], limits: &'a Limits, old_text: OldText, max_data: usize) -> Self {
        let is_short = data.len() <= limits.max_depth;
        Self {
            data,
            offset: 0,
            builder: Builder::around(data.len()),
            depths: Depths { known: Vec::new(), max: limits.max_depth, is_short },
            // Of a login, and of the items of most carts: these need not grow.
            stack: Vec::with_capacity(64),
            fence: 0,
            marks: 0,
            memo: Vec::with_capacity(data.len() / 16),
            memo_len: 0,
            protocol: 0,
            old_text,
            limits,
            max_nodes: limits.max_nodes,
            max_data,
        }
    }

    fn run(&mut self) -> Done<Id> {
        let data = self.data;
        // Kept out of `self`: whatever comes next depends on it, and memory is slow to hand over what it was just given.
        let mut at = 0;
        loop {
            let Some(opcode) = data.get(at) else { return self.truncated() };
            at += 1;
            self.offset = at;
            match opcode {
                b'.' => return self.pop(),
                b'(' => self.mark()?,
                b'0' => self.pop_or_unmark()?,
                b'2' => self.top().map(|id| self.stack.push(id))?,
                b'\x94' => self.put(self.memo_len)?,
                b'N' => self.stack.push(NONE),
                b'\x89' => self.stack.push(FALSE),
                b'\x88' => self.stack.push(TRUE),
                b']' => self.push(Node::List(Links::default()))?,
                b'}' => self.push(Node::Dict(Links::default()))?,
                b')' => self.push(Node::Tuple(Links::default()))?,
                b'\x85' => self.last(1).and_then(|items| self.compound(Node::Tuple, items))?,
                b'\x86' => self.last(2).and_then(|items| self.compound(Node::Tuple, items))?,
                b'\x87' => self.last(3).and_then(|items| self.compound(Node::Tuple, items))?,
                b'a' => self.last(1).and_then(|items| self.fill(Kind::Appended, items))?,
                b'e' => self.marked().and_then(|items| self.fill(Kind::Appended, items))?,
                b's' => self.last(2).and_then(|items| self.fill(Kind::Set, items))?,
                b'u' => self.marked_pairs().and_then(|items| self.fill(Kind::Set, items))?,
                // These have one byte for an operand.
                b'h' | b'K' | b'q' | b'\x8c' => {
                    let Some(operand) = data.get(at) else { return self.truncated() };
                    at += 1;
                    match opcode {
                        b'h' => self.get(usize::from(*operand))?,
                        b'K' => self.push(Node::Int(i64::from(*operand)))?,
                        b'q' => self.put(usize::from(*operand))?,
                        _ => at = self.str(at, usize::from(*operand))?,
                    }
                }
                _ => {
                    self.step(*opcode)?;
                    at = self.offset;
                }
            }
        }
    }

    #[cold]
    fn malformed<T>(&self, problem: &'static str) -> Done<T> {
        Err(Error::Malformed { problem, offset: self.offset }.into())
    }

    #[cold]
    fn outside(&self, what: &'static str) -> Done<()> {
        Err(Error::Outside { what, offset: self.offset }.into())
    }

    #[cold]
    fn truncated<T>(&self) -> Done<T> {
        Err(Error::Truncated { offset: self.data.len() }.into())
    }

    #[cold]
    fn beyond<T>(&self, unit: &'static str, max: usize) -> Done<T> {
        Err(Error::Limit { unit, max }.into())
    }

    /// What is seldom, or has longer operands.
    fn step(&mut self, opcode: u8) -> Done<()> {
        match opcode {
            b'\x80' => self.set_protocol(),
            b'\x95' => self.frame(),
            b'1' => self.unmark().map(|first| self.stack.truncate(first - 1)),
            // The memo.
            b'r' => self.medium().and_then(|index| self.put(index)),
            b'p' => self.index().and_then(|index| self.put(index)),
            b'j' => self.medium().and_then(|index| self.get(index)),
            b'g' => self.index().and_then(|index| self.get(index)),
            // Numbers.
            b'M' => self.array().and_then(|n| self.push(Node::Int(u16::from_le_bytes(n).into()))),
            b'J' => self.array().and_then(|n| self.push(Node::Int(i32::from_le_bytes(n).into()))),
            b'\x8a' => self.short().and_then(|len| self.long(len)),
            b'\x8b' => self.signed().and_then(|len| self.long(len)),
            b'I' => self.int_line(),
            b'L' => self.long_line(),
            b'G' => self.array().and_then(|bytes| self.push(Node::Float(f64::from_be_bytes(bytes)))),
            b'F' => self.float_line(),
            // Text and bytes.
            b'X' => self.medium().and_then(|len| self.long_str(len)),
            b'\x8d' => self.eight().and_then(|len| self.long_str(len)),
            b'V' => self.unicode_line(),
            b'C' => self.short().and_then(|len| self.bytes(len, Node::Bytes)),
            b'B' => self.medium().and_then(|len| self.bytes(len, Node::Bytes)),
            b'\x8e' => self.eight().and_then(|len| self.bytes(len, Node::Bytes)),
            b'\x96' => self.eight().and_then(|len| self.bytes(len, Node::ByteArray)),
            b'U' => self.short().and_then(|len| self.old_str(len)),
            b'T' => self.signed().and_then(|len| self.old_str(len)),
            b'S' => self.string_line(),
            // Compounds.
            b'\x8f' => self.push(Node::Set(Links::default())),
            b't' => self.marked().and_then(|items| self.compound(Node::Tuple, items)),
            b'l' => self.marked().and_then(|items| self.compound(Node::List, items)),
            b'd' => self.marked_pairs().and_then(|items| self.compound(Node::Dict, items)),
            b'\x91' => self.marked().and_then(|items| self.compound(Node::FrozenSet, items)),
            b'\x90' => self.marked().and_then(|items| self.fill(Kind::Added, items)),
            _ => self.step_of_object(opcode),
        }
    }

    fn step_of_object(&mut self, opcode: u8) -> Done<()> {
        match opcode {
            b'c' => self.global_lines(),
            b'\x93' => self.global(),
            b'R' => self.reduce(),
            b'\x81' => self.make_new(),
            b'\x92' => self.new_with(),
            b'i' => self.instance_lines(),
            b'o' => self.instance(),
            b'b' => self.build(),
            b'P' | b'Q' => self.outside("a persistent id"),
            b'\x82' | b'\x83' | b'\x84' => self.outside("an extension code"),
            b'\x97' | b'\x98' => self.outside("an out-of-band buffer"),
            _ => self.malformed("an unknown opcode"),
        }
    }

    // ------------------------------------------------------------------------------------------ the input

    fn take(&mut self, len: usize) -> Done<&'a [u8]> {
        let Some(bytes) = self.data[self.offset..].get(..len) else { return self.truncated() };
        self.offset += len;
        Ok(bytes)
    }

    /// Where so many bytes lie that were just taken. The size of the input was found to fit.
    fn taken(&self, len: usize) -> Span {
        Span { start: (self.offset - len) as u32, len: len as u32 }
    }

    fn array<const N: usize>(&mut self) -> Done<[u8; N]> {
        let Some(bytes) = self.data[self.offset..].first_chunk() else { return self.truncated() };
        self.offset += N;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Done<u8> {
        let Some(byte) = self.data.get(self.offset) else { return self.truncated() };
        self.offset += 1;
        Ok(*byte)
    }

    fn short(&mut self) -> Done<usize> {
        self.byte().map(usize::from)
    }

    fn medium(&mut self) -> Done<usize> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn eight(&mut self) -> Done<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).or_else(|_| self.truncated())
    }

    /// A length that may not be negative.
    fn signed(&mut self) -> Done<usize> {
        let offset = self.offset;
        usize::try_from(i32::from_le_bytes(self.array()?))
            .map_err(|_| Error::Malformed { problem: "a negative length", offset }.into())
    }

    /// What stands before the next line feed, which is taken, too.
    fn line(&mut self) -> Done<&'a [u8]> {
        let rest = &self.data[self.offset..];
        let Some(len) = rest.iter().position(|byte| *byte == b'\n') else { return self.truncated() };
        self.offset += len + 1;
        Ok(&rest[..len])
    }

    // ------------------------------------------------------------------------------------- stack and memo

    fn top(&self) -> Done<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.fence => Ok(*id),
            _ => self.malformed("nothing on the stack"),
        }
    }

    fn pop(&mut self) -> Done<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_pair(&mut self) -> Done<(Id, Id)> {
        let value = self.pop()?;
        Ok((self.pop()?, value))
    }

    fn mark(&mut self) -> Done<()> {
        if self.marks >= self.limits.max_depth {
            return self.beyond("levels", self.limits.max_depth);
        }
        self.marks += 1;
        self.stack.push(self.fence as u32);
        self.fence = self.stack.len();
        Ok(())
    }

    /// Takes off the last mark. Returns where the nodes above it begin, which lie there still.
    fn unmark(&mut self) -> Done<usize> {
        if self.marks == 0 {
            return self.malformed("no mark on the stack");
        }
        self.marks -= 1;
        let first = self.fence;
        self.fence = self.stack[first - 1] as usize;
        Ok(first)
    }

    fn pop_or_unmark(&mut self) -> Done<()> {
        if self.stack.len() > self.fence {
            self.stack.pop();
            return Ok(());
        }
        match self.marks {
            0 => self.malformed("nothing on the stack"),
            _ => self.unmark().map(|first| self.stack.truncate(first - 1)),
        }
    }

    fn marked(&mut self) -> Done<Items> {
        self.unmark().map(|first| Items { first, below: first - 1 })
    }

    fn marked_pairs(&mut self) -> Done<Items> {
        let items = self.marked()?;
        match (self.stack.len() - items.first) % 2 {
            0 => Ok(items),
            _ => self.malformed("a key without a value"),
        }
    }

    fn last(&mut self, len: usize) -> Done<Items> {
        match self.stack.len() - self.fence {
            all if all < len => self.malformed("too few values on the stack"),
            _ => Ok(Items { first: self.stack.len() - len, below: self.stack.len() - len }),
        }
    }

    fn index(&mut self) -> Done<usize> {
        let line = self.line()?;
        match int::from_c_decimal(c_string(line)) {
            Some(index) => Ok(index),
            None => self.malformed("no place of the memo"),
        }
    }

    fn put(&mut self, index: usize) -> Done<()> {
        let id = self.top()?;
        if index >= self.limits.max_memo {
            return self.beyond("places in the memo", self.limits.max_memo);
        }
        if index == self.memo.len() {
            self.memo.push(id);
            self.memo_len += 1;
            return Ok(());
        }
        if index > self.memo.len() {
            self.memo.resize(index + 1, EMPTY);
        }
        self.memo_len += usize::from(self.memo[index] == EMPTY);
        self.memo[index] = id;
        Ok(())
    }

    fn get(&mut self, index: usize) -> Done<()> {
        match self.memo.get(index) {
            Some(id) if *id != EMPTY => self.push_id(*id),
            _ => self.malformed("an empty place of the memo"),
        }
    }

    // --------------------------------------------------------------------------------------------- nodes

    fn push_id(&mut self, id: Id) -> Done<()> {
        self.stack.push(id);
        Ok(())
    }

    /// Here and in [`node`](Self::node) a call would cost more than what is done: the node would go by way of the stack.
    #[inline(always)]
    fn push(&mut self, node: Node) -> Done<()> {
        let id = self.node(node)?;
        self.push_id(id)
    }

    #[inline(always)]
    fn node(&mut self, node: Node) -> Done<Id> {
        if self.builder.graph.nodes.len() >= self.max_nodes {
            return self.beyond("values", self.limits.max_nodes);
        }
        Ok(self.builder.push(node))
    }

    /// Text that does not stand in the pickle as it is.
    fn decoded(&mut self, bytes: &[u8]) -> Done<Span> {
        if self.builder.data_len() + bytes.len() > self.max_data {
            return self.beyond("bytes of text", self.max_data);
        }
        Ok(self.builder.span(bytes))
    }

    fn bytes_of(&self, span: Span) -> &[u8] {
        self.builder.kept(span).unwrap_or_else(|| &self.data[span.start as usize..][..span.len as usize])
    }

    // ----------------------------------------------------------------------------------- the whole pickle

    fn set_protocol(&mut self) -> Done<()> {
        self.protocol = self.byte()?;
        if self.protocol > 5 { Err(Error::Protocol(self.protocol).into()) } else { Ok(()) }
    }

    /// A frame only says how much to read ahead.
    fn frame(&mut self) -> Done<()> {
        let len = self.eight()?;
        if len > self.data.len() - self.offset { self.truncated() } else { Ok(()) }
    }

    // ------------------------------------------------------------------------------------------- numbers

    fn push_int(&mut self, value: Int) -> Done<()> {
        let node = match value {
            Int::Small(value) => Node::Int(value),
            Int::Big(bytes) => Node::Long(self.decoded(&bytes)?),
        };
        self.push(node)
    }

    fn long(&mut self, len: usize) -> Done<()> {
        let shortest = int::shortest(self.take(len)?);
        if shortest.len() <= 8 {
            return self.push_int(int::from_twos_complement(shortest));
        }
        self.push(Node::Long(Span { len: shortest.len() as u32, ..self.taken(len) }))
    }

    fn int_line(&mut self) -> Done<()> {
        let line = self.line()?;
        match int::from_c(c_string(line)) {
            // "I00" and "I01" are the booleans of protocols 0 and 1.
            Some(value @ (0 | 1)) if line.len() == 2 => self.push_id(if value == 1 { TRUE } else { FALSE }),
            Some(value) => self.push(Node::Int(value)),
            None => self.python_int(c_string(line)),
        }
    }

    fn long_line(&mut self) -> Done<()> {
        let line = self.line()?;
        self.python_int(c_string(line.strip_suffix(b"L").unwrap_or(line)))
    }

    fn python_int(&mut self, text: &[u8]) -> Done<()> {
        match int::from_python(text) {
            Some(value) => self.push_int(value),
            None => self.malformed("no integer"),
        }
    }

    fn float_line(&mut self) -> Done<()> {
        let line = c_string(self.line()?);
        let value = str::from_utf8(line).ok().and_then(|text| text.parse::<f64>().ok());
        let is_named = line.iter().any(|byte| matches!(byte, b'n' | b'N'));
        match value {
            // CPython: OverflowError.
            Some(value) if value.is_infinite() && !is_named => self.malformed("a float out of range"),
            Some(value) => self.push(Node::Float(value)),
            None => self.malformed("no float"),
        }
    }

    // -------------------------------------------------------------------------------------- text and bytes

    /// The text that lies at this place. Returns where it ends.
    fn str(&mut self, at: usize, len: usize) -> Done<usize> {
        let Some(bytes) = self.data[at..].get(..len) else { return self.truncated() };
        if !text::is_text(bytes) {
            return self.malformed("text that is not UTF-8");
        }
        // The size of the input was found to fit.
        self.push(Node::Str(Span { start: at as u32, len: len as u32 }))?;
        Ok(at + len)
    }

    fn long_str(&mut self, len: usize) -> Done<()> {
        self.offset = self.str(self.offset, len)?;
        Ok(())
    }

    fn bytes(&mut self, len: usize, kind: impl Fn(Span) -> Node) -> Done<()> {
        self.take(len)?;
        self.push(kind(self.taken(len)))
    }

    fn unicode_line(&mut self) -> Done<()> {
        let line = self.line()?;
        match text::raw_unicode_escape(line) {
            Ok(decoded) => {
                let span = self.decoded(&decoded)?;
                self.push(Node::Str(span))
            }
            Err(problem) => self.malformed(problem),
        }
    }

    fn string_line(&mut self) -> Done<()> {
        let line = self.line()?;
        let ([b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"']) = line else {
            return self.malformed("a string without its quotes");
        };
        match text::unescape(inner) {
            Ok(bytes) => self.old_bytes(&bytes),
            Err(problem) => self.malformed(problem),
        }
    }

    fn old_str(&mut self, len: usize) -> Done<()> {
        let bytes = self.take(len)?;
        if bytes.is_ascii() { self.push(Node::Str(self.taken(len))) } else { self.old_bytes(bytes) }
    }

    fn old_bytes(&mut self, bytes: &[u8]) -> Done<()> {
        let span = match self.old_text {
            _ if bytes.is_ascii() => self.decoded(bytes)?,
            OldText::Ascii => return self.malformed("a string of Python 2 that is not ASCII"),
            OldText::Latin1 => self.decoded(&text::from_latin1(bytes))?,
        };
        self.push(Node::Str(span))
    }

    // ------------------------------------------------------------------------------------------ compounds

    /// Makes a compound of the items, in their place.
    fn compound(&mut self, kind: impl Fn(Links) -> Node, Items { first, below }: Items) -> Done<()> {
        let (mut links, items) = (Links::default(), &self.stack[first..]);
        self.builder.graph.links.extend(&mut links, items)?;
        self.depths.deepen(self.builder.graph.nodes.len() as Id, items)?;
        self.stack.truncate(below);
        self.push(kind(links))
    }

    /// Puts the items into what lies below them.
    fn fill(&mut self, kind: Kind, Items { first, below }: Items) -> Done<()> {
        if below <= self.fence {
            return self.malformed("nothing on the stack");
        }
        let (target, items) = (self.stack[below - 1], &self.stack[first..]);
        if !items.is_empty() {
            self.depths.deepen(target, items)?;
            if !self.builder.graph.put(target, kind, items)? {
                return self.malformed("items for what takes no such");
            }
        }
        self.stack.truncate(below);
        Ok(())
    }

    // --------------------------------------------------------------------------------- classes and objects

    fn global_lines(&mut self) -> Done<()> {
        let (module, name) = (self.line()?, self.line()?);
        let id = self.named(module, name)?;
        self.push_id(id)
    }

    fn global(&mut self) -> Done<()> {
        let (module, name) = self.pop_pair()?;
        let graph = &self.builder.graph;
        let (Node::Str(module), Node::Str(name)) = (graph.node(module), graph.node(name)) else {
            return self.malformed("a class whose name is no text");
        };
        // Names are short, and these may lie in the graph that takes the class.
        let (module, name) = (self.bytes_of(module).to_vec(), self.bytes_of(name).to_vec());
        let id = self.named(&module, &name)?;
        self.push_id(id)
    }

    fn named(&mut self, module: &[u8], name: &[u8]) -> Done<Id> {
        if module.is_empty() || name.is_empty() {
            return self.malformed("a class without a name");
        }
        let (Ok(module), Ok(name)) = (str::from_utf8(module), str::from_utf8(name)) else {
            return self.malformed("a class whose name is not UTF-8");
        };
        let (module, name) = match self.protocol {
            0..3 => names::to_python3(module, name),
            _ => (module, name),
        };
        // Below protocol 4 CPython finds no class within another. Written as protocol 4, it would.
        if self.protocol < 4 && name.contains('.') {
            return self.malformed("a class within a class");
        }
        let has_room = self.builder.data_len() + module.len() + name.len() <= self.max_data
            && self.builder.graph.nodes.len() < self.max_nodes;
        if !has_room {
            return self.beyond("values", self.limits.max_nodes);
        }
        Ok(self.builder.global(module, name))
    }

    fn object(&mut self, how: How, class: Id, args: Id) -> Done<()> {
        let graph = &self.builder.graph;
        if !matches!(graph.node(class), Node::Global(_) | Node::Object(_)) {
            return self.malformed("a call of what is no class");
        }
        if graph.tuple(args).is_none() {
            return self.malformed("a call whose arguments are no tuple");
        }
        let node = self.builder.object(Object { how, class, args, steps: Vec::new() });
        let id = self.node(node)?;
        match how {
            How::NewWith(keywords) => self.depths.deepen(id, &[class, args, keywords])?,
            _ => self.depths.deepen(id, &[class, args])?,
        }
        self.push_id(id)
    }

    fn reduce(&mut self) -> Done<()> {
        let (class, args) = self.pop_pair()?;
        match self.plain(class, args)? {
            Some(id) => self.push_id(id),
            None => self.object(How::Reduce, class, args),
        }
    }

    fn make_new(&mut self) -> Done<()> {
        let (class, args) = self.pop_pair()?;
        self.object(How::New, class, args)
    }

    fn new_with(&mut self) -> Done<()> {
        let keywords = self.pop()?;
        let (class, args) = self.pop_pair()?;
        if !matches!(self.builder.graph.node(keywords), Node::Dict(_)) {
            return self.malformed("a call whose keywords are no dict");
        }
        self.object(How::NewWith(keywords), class, args)
    }

    fn instance_lines(&mut self) -> Done<()> {
        let (module, name) = (self.line()?, self.line()?);
        let items = self.marked()?;
        if !module.is_ascii() || !name.is_ascii() {
            return self.malformed("a class whose name is not ASCII");
        }
        let class = self.named(module, name)?;
        self.instance_of(class, items)
    }

    fn instance(&mut self) -> Done<()> {
        let Items { first, below } = self.marked()?;
        match self.stack.get(first) {
            Some(class) => self.instance_of(*class, Items { first: first + 1, below }),
            None => self.malformed("an instance without a class"),
        }
    }

    fn instance_of(&mut self, class: Id, args: Items) -> Done<()> {
        self.compound(Node::Tuple, args)?;
        let args = self.stack.pop().expect("the tuple was just made");
        self.object(How::Instance, class, args)
    }

    fn build(&mut self) -> Done<()> {
        let state = self.pop()?;
        let target = self.top()?;
        self.depths.deepen(target, &[state])?;
        match self.builder.graph.node(target) {
            Node::Object(place) => self.builder.graph.object_mut(place).steps.push(Step::Build(state)),
            _ if state == NONE => {}
            _ => return self.malformed("a state for what is no object"),
        }
        Ok(())
    }

    /// The plain value of a call by which older protocols spell bytes and sets.
    fn plain(&mut self, class: Id, args: Id) -> Done<Option<Id>> {
        let graph = &self.builder.graph;
        let (Node::Global(place), Some(args)) = (graph.node(class), graph.tuple(args)) else {
            return Ok(None);
        };
        let (module, name) = graph.name(place);
        if !matches!(self.bytes_of(module), b"builtins" | b"_codecs") {
            return Ok(None);
        }
        let args = match *args {
            [] => [None, None],
            [one] => [Some(graph.node(one)), None],
            [one, other] => [Some(graph.node(one)), Some(graph.node(other))],
            _ => return Ok(None),
        };
        let empty = Span { start: 0, len: 0 };
        let node = match (self.bytes_of(name), args) {
            (b"bytes", [None, _]) => Node::Bytes(empty),
            (b"bytearray", [None, _]) => Node::ByteArray(empty),
            (b"bytearray", [Some(Node::Bytes(span)), None]) => Node::ByteArray(self.repeated(span)?),
            (b"encode", [Some(Node::Str(span)), Some(Node::Str(codec))]) if self.is_latin1(codec) => {
                Node::Bytes(self.encoded(span)?)
            }
            (b"bytearray", [Some(Node::Str(span)), Some(Node::Str(codec))]) if self.is_latin1(codec) => {
                Node::ByteArray(self.encoded(span)?)
            }
            (b"set", [None, _]) => Node::Set(Links::default()),
            (b"frozenset", [None, _]) => Node::FrozenSet(Links::default()),
            (b"set", [Some(Node::List(items)), None]) => return self.copied(Node::Set, items).map(Some),
            (b"frozenset", [Some(Node::List(items)), None]) => {
                return self.copied(Node::FrozenSet, items).map(Some);
            }
            _ => return Ok(None),
        };
        self.node(node).map(Some)
    }

    /// A set of the items of a list.
    fn copied(&mut self, kind: fn(Links) -> Node, items: Links) -> Done<Id> {
        let (mut links, items) = (Links::default(), self.builder.graph.items(items).to_vec());
        self.max_nodes = self.max_nodes.saturating_sub(items.len());
        self.builder.graph.links.extend(&mut links, &items)?;
        let id = self.node(kind(links))?;
        self.depths.deepen(id, &items)?;
        Ok(id)
    }

    /// Bytes that another value has, too. They lie here once, but are written for each.
    fn repeated(&mut self, span: Span) -> Done<Span> {
        let repeated = self.builder.graph.repeated + span.len as usize;
        if self.builder.data_len() + repeated > self.max_data {
            return self.beyond("bytes of text", self.max_data);
        }
        self.builder.graph.repeated = repeated;
        Ok(span)
    }

    fn is_latin1(&self, codec: Span) -> bool {
        matches!(self.bytes_of(codec), b"latin1" | b"latin-1")
    }

    fn encoded(&mut self, span: Span) -> Done<Span> {
        match text::to_latin1(self.bytes_of(span)) {
            Some(bytes) => self.decoded(&bytes),
            None => self.malformed("bytes in latin-1 that are no bytes"),
        }
    }
}

/// Those on the stack from `first` on. Once they are used, what is left is what lies `below`: without the mark.
#[derive(Clone, Copy)]
struct Items {
    first: usize,
    below: usize,
}
