//! The machine that reads a pickle. It follows CPython's `Modules/_pickle.c`, and calls and imports nothing.

use super::graph::{Builder, FALSE, Graph, How, Id, NONE, Node, Object, Span, Step, TRUE};
use super::int::{self, Int};
use super::{Error, Limits, keys, names, text};

/// How the strings of Python 2, which are bytes, become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldText {
    Ascii,
    Latin1,
}

pub(super) fn load(data: &[u8], limits: &Limits, old_text: OldText) -> Result<(Graph, Id), Error> {
    let max_size = limits.max_size.min(u32::MAX as usize / 4);
    if data.len() > max_size {
        return Err(Error::Limit { unit: "bytes", max: max_size });
    }
    let mut machine = Machine {
        input: Input { data, offset: 0 },
        builder: Builder::new(data.to_vec()),
        depths: vec![0; 3],
        // Of a login, and of the items of most carts: these need not grow.
        stack: Vec::with_capacity(64),
        marks: Vec::with_capacity(16),
        memo: Vec::with_capacity(data.len() / 16),
        memo_len: 0,
        protocol: 0,
        copied: 0,
        old_text,
        limits,
        max_data: max_size * 3,
    };
    let root = machine.run()?;
    let mut graph = machine.builder.graph;
    keys::settle(&mut graph)?;
    graph.nodes.shrink_to_fit();
    Ok((graph, root))
}

/// Bytes that are taken from the front.
struct Input<'a> {
    data: &'a [u8],
    offset: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<Span, Error> {
        let start = self.offset;
        if len > self.data.len() - start {
            return Err(Error::Truncated { offset: self.data.len() });
        }
        self.offset += len;
        // The size of the input was found to fit.
        Ok(Span { start: start as u32, len: len as u32 })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let rest = &self.data[self.offset..];
        let Some(bytes) = rest.first_chunk() else {
            return Err(Error::Truncated { offset: self.data.len() });
        };
        self.offset += N;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.array().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<usize, Error> {
        self.byte().map(usize::from)
    }

    fn medium(&mut self) -> Result<usize, Error> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    /// A length that may not be negative.
    fn signed(&mut self) -> Result<usize, Error> {
        let offset = self.offset;
        usize::try_from(i32::from_le_bytes(self.array()?))
            .map_err(|_| Error::Malformed { problem: "a negative length", offset })
    }

    fn long(&mut self) -> Result<usize, Error> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| Error::Truncated { offset: self.data.len() })
    }

    /// What stands before the next line feed, which is taken, too.
    fn line(&mut self) -> Result<&'a [u8], Error> {
        let rest = &self.data[self.offset..];
        let Some(len) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(Error::Truncated { offset: self.data.len() });
        };
        self.offset += len + 1;
        Ok(&rest[..len])
    }
}

/// A line as C reads a number out of it: to the first zero byte.
fn c_string(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == 0).next().unwrap_or_default()
}

struct Machine<'a> {
    input: Input<'a>,
    builder: Builder,
    /// How deep the values under each node nest, as far as is known: what is appended later does not count for those
    /// that hold the node already.
    depths: Vec<u32>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    /// How many places of the memo are taken, by which MEMOIZE counts.
    memo_len: usize,
    protocol: u8,
    /// References that were copied out of a list to make a set of it.
    copied: usize,
    old_text: OldText,
    limits: &'a Limits,
    max_data: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, Error> {
        loop {
            let opcode = self.input.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn malformed<T>(&self, problem: &'static str) -> Result<T, Error> {
        Err(Error::Malformed { problem, offset: self.input.offset })
    }

    fn outside(&self, what: &'static str) -> Result<(), Error> {
        Err(Error::Outside { what, offset: self.input.offset })
    }

    fn step(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            // What every pickle has.
            b'\x80' => self.set_protocol(),
            b'\x95' => self.frame(),
            b'(' => self.mark(),
            b'0' => self.pop_or_unmark(),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().map(|id| self.stack.push(id)),
            // The memo.
            b'\x94' => self.put(self.memo_len),
            b'q' => self.input.short().and_then(|index| self.put(index)),
            b'r' => self.input.medium().and_then(|index| self.put(index)),
            b'p' => self.index().and_then(|index| self.put(index)),
            b'h' => self.input.short().and_then(|index| self.get(index)),
            b'j' => self.input.medium().and_then(|index| self.get(index)),
            b'g' => self.index().and_then(|index| self.get(index)),
            // Constants and numbers.
            b'N' => self.push_id(NONE),
            b'\x89' => self.push_id(FALSE),
            b'\x88' => self.push_id(TRUE),
            b'K' => self.input.byte().and_then(|n| self.push(Node::Int(n.into()))),
            b'M' => self.input.array().and_then(|n| self.push(Node::Int(u16::from_le_bytes(n).into()))),
            b'J' => self.input.array().and_then(|n| self.push(Node::Int(i32::from_le_bytes(n).into()))),
            b'\x8a' => self.input.short().and_then(|len| self.long(len)),
            b'\x8b' => self.input.signed().and_then(|len| self.long(len)),
            b'I' => self.int_line(),
            b'L' => self.long_line(),
            b'G' => self.input.array().and_then(|bytes| self.push(Node::Float(f64::from_be_bytes(bytes)))),
            b'F' => self.float_line(),
            // Text and bytes.
            b'\x8c' => self.input.short().and_then(|len| self.str(len)),
            b'X' => self.input.medium().and_then(|len| self.str(len)),
            b'\x8d' => self.input.long().and_then(|len| self.str(len)),
            b'V' => self.unicode_line(),
            b'C' => self.input.short().and_then(|len| self.bytes(len, Node::Bytes)),
            b'B' => self.input.medium().and_then(|len| self.bytes(len, Node::Bytes)),
            b'\x8e' => self.input.long().and_then(|len| self.bytes(len, Node::Bytes)),
            b'\x96' => self.input.long().and_then(|len| self.bytes(len, Node::ByteArray)),
            b'U' => self.input.short().and_then(|len| self.old_str(len)),
            b'T' => self.input.signed().and_then(|len| self.old_str(len)),
            b'S' => self.string_line(),
            _ => self.step_of_compound(opcode),
        }
    }

    fn step_of_compound(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'\x8f' => self.push(Node::Set(Vec::new())),
            b')' => self.push(Node::Tuple([].into())),
            b'\x85' => self.tuple(1),
            b'\x86' => self.tuple(2),
            b'\x87' => self.tuple(3),
            b't' => self.pop_mark().and_then(|items| self.push(Node::Tuple(items.into()))),
            b'l' => self.pop_mark().and_then(|items| self.push(Node::List(items))),
            b'd' => self.pop_pairs().and_then(|pairs| self.push(Node::Dict(pairs))),
            b'\x91' => self.pop_mark().and_then(|items| self.push(Node::FrozenSet(items.into()))),
            b'a' => self.pop().and_then(|item| self.append(vec![item])),
            b'e' => self.pop_mark().and_then(|items| self.append(items)),
            b's' => self.pop_pair().and_then(|pair| self.set_items(vec![pair])),
            b'u' => self.pop_pairs().and_then(|pairs| self.set_items(pairs)),
            b'\x90' => self.pop_mark().and_then(|items| self.add(items)),
            // Classes and objects.
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

    // ------------------------------------------------------------------------------------- stack and memo

    fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Error> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.fence() => Ok(*id),
            _ => self.malformed("nothing on the stack"),
        }
    }

    fn pop(&mut self) -> Result<Id, Error> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_pair(&mut self) -> Result<(Id, Id), Error> {
        let value = self.pop()?;
        Ok((self.pop()?, value))
    }

    fn mark(&mut self) -> Result<(), Error> {
        if self.marks.len() >= self.limits.max_depth {
            return Err(Error::Limit { unit: "levels", max: self.limits.max_depth });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Error> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.malformed("no mark on the stack"),
        }
    }

    fn pop_or_unmark(&mut self) -> Result<(), Error> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_pairs(&mut self) -> Result<Vec<(Id, Id)>, Error> {
        let Some(mark) = self.marks.pop() else { return self.malformed("no mark on the stack") };
        let (pairs, rest) = self.stack[mark..].as_chunks::<2>();
        if !rest.is_empty() {
            return self.malformed("a key without a value");
        }
        let pairs = pairs.iter().map(|[key, value]| (*key, *value)).collect();
        self.stack.truncate(mark);
        Ok(pairs)
    }

    fn index(&mut self) -> Result<usize, Error> {
        let line = self.input.line()?;
        match int::from_c_decimal(c_string(line)) {
            Some(index) => Ok(index),
            None => self.malformed("no place of the memo"),
        }
    }

    fn put(&mut self, index: usize) -> Result<(), Error> {
        let id = self.top()?;
        if index >= self.limits.max_memo {
            return Err(Error::Limit { unit: "places in the memo", max: self.limits.max_memo });
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.memo_len += usize::from(self.memo[index].is_none());
        self.memo[index] = Some(id);
        Ok(())
    }

    fn get(&mut self, index: usize) -> Result<(), Error> {
        match self.memo.get(index) {
            Some(Some(id)) => self.push_id(*id),
            _ => self.malformed("an empty place of the memo"),
        }
    }

    // --------------------------------------------------------------------------------------------- nodes

    fn push_id(&mut self, id: Id) -> Result<(), Error> {
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, node: Node) -> Result<(), Error> {
        let id = self.node(node)?;
        self.push_id(id)
    }

    fn node(&mut self, node: Node) -> Result<Id, Error> {
        if self.builder.graph.nodes.len() + self.copied >= self.limits.max_nodes {
            return Err(Error::Limit { unit: "values", max: self.limits.max_nodes });
        }
        let mut depth = 0;
        node.each_child(|child| depth = depth.max(self.depth(child) + 1));
        if depth > 0 {
            self.check_depth(depth)?;
            self.set_depth(self.builder.graph.nodes.len() as Id, depth);
        }
        Ok(self.builder.push(node))
    }

    fn depth(&self, id: Id) -> u32 {
        self.depths.get(id as usize).copied().unwrap_or(0)
    }

    fn check_depth(&self, depth: u32) -> Result<(), Error> {
        if depth as usize > self.limits.max_depth {
            return Err(Error::Limit { unit: "levels", max: self.limits.max_depth });
        }
        Ok(())
    }

    fn set_depth(&mut self, id: Id, depth: u32) {
        if id as usize >= self.depths.len() {
            self.depths.resize(id as usize + 1, 0);
        }
        self.depths[id as usize] = depth;
    }

    /// `id` is going to hold `children`, too.
    fn deepen(&mut self, id: Id, children: impl Iterator<Item = Id>) -> Result<(), Error> {
        let below = children.map(|child| self.depth(child) + 1).max().unwrap_or(0);
        if below > self.depth(id) {
            self.check_depth(below)?;
            self.set_depth(id, below);
        }
        Ok(())
    }

    /// Text that does not stand in the pickle as it is.
    fn decoded(&mut self, bytes: &[u8]) -> Result<Span, Error> {
        if self.builder.graph.data.len() + bytes.len() > self.max_data {
            return Err(Error::Limit { unit: "bytes of text", max: self.max_data });
        }
        Ok(self.builder.span(bytes))
    }

    // ----------------------------------------------------------------------------------- the whole pickle

    fn set_protocol(&mut self) -> Result<(), Error> {
        self.protocol = self.input.byte()?;
        if self.protocol > 5 { Err(Error::Protocol(self.protocol)) } else { Ok(()) }
    }

    /// A frame only says how much to read ahead.
    fn frame(&mut self) -> Result<(), Error> {
        let len = self.input.long()?;
        let after = self.input.offset;
        self.input.take(len)?;
        self.input.offset = after;
        Ok(())
    }

    // ------------------------------------------------------------------------------------------- numbers

    fn push_int(&mut self, value: Int) -> Result<(), Error> {
        let node = match value {
            Int::Small(value) => Node::Int(value),
            Int::Big(bytes) => Node::Long(self.decoded(&bytes)?),
        };
        self.push(node)
    }

    fn long(&mut self, len: usize) -> Result<(), Error> {
        let span = self.input.take(len)?;
        let bytes = &self.input.data[span.start as usize..][..len];
        let shortest = int::shortest(bytes);
        if shortest.len() <= 8 {
            return self.push_int(int::from_twos_complement(shortest));
        }
        self.push(Node::Long(Span { len: shortest.len() as u32, ..span }))
    }

    fn int_line(&mut self) -> Result<(), Error> {
        let line = self.input.line()?;
        match int::from_c(c_string(line)) {
            // "I00" and "I01" are the booleans of protocols 0 and 1.
            Some(value @ (0 | 1)) if line.len() == 2 => self.push_id(if value == 1 { TRUE } else { FALSE }),
            Some(value) => self.push(Node::Int(value)),
            None => self.python_int(c_string(line)),
        }
    }

    fn long_line(&mut self) -> Result<(), Error> {
        let line = self.input.line()?;
        self.python_int(c_string(line.strip_suffix(b"L").unwrap_or(line)))
    }

    fn python_int(&mut self, text: &[u8]) -> Result<(), Error> {
        match int::from_python(text) {
            Some(value) => self.push_int(value),
            None => self.malformed("no integer"),
        }
    }

    fn float_line(&mut self) -> Result<(), Error> {
        let line = c_string(self.input.line()?);
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

    fn str(&mut self, len: usize) -> Result<(), Error> {
        let span = self.input.take(len)?;
        if !text::is_text(self.builder.graph.bytes(span)) {
            return self.malformed("text that is not UTF-8");
        }
        self.push(Node::Str(span))
    }

    fn bytes(&mut self, len: usize, kind: fn(Span) -> Node) -> Result<(), Error> {
        let span = self.input.take(len)?;
        self.push(kind(span))
    }

    fn unicode_line(&mut self) -> Result<(), Error> {
        let line = self.input.line()?;
        match text::raw_unicode_escape(line) {
            Ok(decoded) => {
                let span = self.decoded(&decoded)?;
                self.push(Node::Str(span))
            }
            Err(problem) => self.malformed(problem),
        }
    }

    fn string_line(&mut self) -> Result<(), Error> {
        let line = self.input.line()?;
        let ([b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"']) = line else {
            return self.malformed("a string without its quotes");
        };
        match text::unescape(inner) {
            Ok(bytes) => self.old_bytes(&bytes),
            Err(problem) => self.malformed(problem),
        }
    }

    fn old_str(&mut self, len: usize) -> Result<(), Error> {
        let span = self.input.take(len)?;
        let bytes = &self.input.data[span.start as usize..][..len];
        if bytes.is_ascii() { self.push(Node::Str(span)) } else { self.old_bytes(bytes) }
    }

    fn old_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let span = match self.old_text {
            _ if bytes.is_ascii() => self.decoded(bytes)?,
            OldText::Ascii => return self.malformed("a string of Python 2 that is not ASCII"),
            OldText::Latin1 => self.decoded(&text::from_latin1(bytes))?,
        };
        self.push(Node::Str(span))
    }

    // ------------------------------------------------------------------------------------------ compounds

    fn tuple(&mut self, len: usize) -> Result<(), Error> {
        if self.stack.len() - self.fence() < len {
            return self.malformed("too few values on the stack");
        }
        let items = self.stack.split_off(self.stack.len() - len);
        self.push(Node::Tuple(items.into()))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Error> {
        let target = self.top()?;
        self.deepen(target, items.iter().copied())?;
        match &mut self.builder.graph.nodes[target as usize] {
            _ if items.is_empty() => {}
            Node::List(list) if list.is_empty() => *list = items,
            Node::List(list) => list.extend(items),
            Node::Object(object) => match object.steps.last_mut() {
                Some(Step::Append(before)) => before.extend(items),
                _ => object.steps.push(Step::Append(items)),
            },
            _ => return self.malformed("items for what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, pairs: Vec<(Id, Id)>) -> Result<(), Error> {
        let target = self.top()?;
        self.deepen(target, pairs.iter().flat_map(|(key, value)| [*key, *value]))?;
        match &mut self.builder.graph.nodes[target as usize] {
            _ if pairs.is_empty() => {}
            Node::Dict(dict) if dict.is_empty() => *dict = pairs,
            Node::Dict(dict) => dict.extend(pairs),
            Node::Object(object) => match object.steps.last_mut() {
                Some(Step::SetItems(before)) => before.extend(pairs),
                _ => object.steps.push(Step::SetItems(pairs)),
            },
            _ => return self.malformed("keys for what is no dict"),
        }
        Ok(())
    }

    fn add(&mut self, items: Vec<Id>) -> Result<(), Error> {
        let target = self.top()?;
        self.deepen(target, items.iter().copied())?;
        match &mut self.builder.graph.nodes[target as usize] {
            _ if items.is_empty() => {}
            Node::Set(set) => set.extend(items),
            Node::Object(object) => match object.steps.last_mut() {
                Some(Step::Add(before)) => before.extend(items),
                _ => object.steps.push(Step::Add(items)),
            },
            _ => return self.malformed("items for what is no set"),
        }
        Ok(())
    }

    // --------------------------------------------------------------------------------- classes and objects

    fn global_lines(&mut self) -> Result<(), Error> {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let id = self.named(module, name)?;
        self.push_id(id)
    }

    fn global(&mut self) -> Result<(), Error> {
        let (module, name) = self.pop_pair()?;
        let graph = &self.builder.graph;
        let (Node::Str(module), Node::Str(name)) = (graph.node(module), graph.node(name)) else {
            return self.malformed("a class whose name is no text");
        };
        // Names are short, and these lie in the graph that takes the class.
        let (module, name) = (graph.bytes(*module).to_vec(), graph.bytes(*name).to_vec());
        let id = self.named(&module, &name)?;
        self.push_id(id)
    }

    fn named(&mut self, module: &[u8], name: &[u8]) -> Result<Id, Error> {
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
        let is_new = self.builder.graph.data.len() + module.len() + name.len() <= self.max_data
            && self.builder.graph.nodes.len() + self.copied < self.limits.max_nodes;
        if !is_new {
            return Err(Error::Limit { unit: "values", max: self.limits.max_nodes });
        }
        Ok(self.builder.global(module, name))
    }

    fn object(&mut self, how: How, class: Id, args: Id) -> Result<(), Error> {
        let graph = &self.builder.graph;
        if !matches!(graph.node(class), Node::Global { .. } | Node::Object(_)) {
            return self.malformed("a call of what is no class");
        }
        if graph.tuple(args).is_none() {
            return self.malformed("a call whose arguments are no tuple");
        }
        self.push(Node::Object(Box::new(Object { how, class, args, steps: Vec::new() })))
    }

    fn reduce(&mut self) -> Result<(), Error> {
        let (class, args) = self.pop_pair()?;
        match self.plain(class, args)? {
            Some(node) => self.push(node),
            None => self.object(How::Reduce, class, args),
        }
    }

    fn make_new(&mut self) -> Result<(), Error> {
        let (class, args) = self.pop_pair()?;
        self.object(How::New, class, args)
    }

    fn new_with(&mut self) -> Result<(), Error> {
        let keywords = self.pop()?;
        let (class, args) = self.pop_pair()?;
        if !matches!(self.builder.graph.node(keywords), Node::Dict(_)) {
            return self.malformed("a call whose keywords are no dict");
        }
        self.object(How::NewWith(keywords), class, args)
    }

    fn instance_lines(&mut self) -> Result<(), Error> {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let args = self.pop_mark()?;
        if !module.is_ascii() || !name.is_ascii() {
            return self.malformed("a class whose name is not ASCII");
        }
        let class = self.named(module, name)?;
        self.instance_of(class, args)
    }

    fn instance(&mut self) -> Result<(), Error> {
        let mut args = self.pop_mark()?;
        if args.is_empty() {
            return self.malformed("an instance without a class");
        }
        let class = args.remove(0);
        self.instance_of(class, args)
    }

    fn instance_of(&mut self, class: Id, args: Vec<Id>) -> Result<(), Error> {
        let args = self.node(Node::Tuple(args.into()))?;
        self.object(How::Instance, class, args)
    }

    fn build(&mut self) -> Result<(), Error> {
        let state = self.pop()?;
        let target = self.top()?;
        self.deepen(target, [state].into_iter())?;
        match &mut self.builder.graph.nodes[target as usize] {
            Node::Object(object) => object.steps.push(Step::Build(state)),
            _ if state == NONE => {}
            _ => return self.malformed("a state for what is no object"),
        }
        Ok(())
    }

    /// The plain value of a call by which older protocols spell bytes and sets.
    fn plain(&mut self, class: Id, args: Id) -> Result<Option<Node>, Error> {
        let graph = &self.builder.graph;
        let (Some(("builtins" | "_codecs", name)), Some(args)) = (graph.global(class), graph.tuple(args))
        else {
            return Ok(None);
        };
        let args = args.iter().map(|id| graph.node(*id)).collect::<Vec<_>>();
        match (name, &args[..]) {
            ("bytes", []) => Ok(Some(Node::Bytes(Span { start: 0, len: 0 }))),
            ("bytearray", []) => Ok(Some(Node::ByteArray(Span { start: 0, len: 0 }))),
            ("bytearray", [Node::Bytes(span)]) => Ok(Some(Node::ByteArray(*span))),
            ("encode", [Node::Str(span), Node::Str(codec)]) => self.encoded(*span, *codec, Node::Bytes),
            ("bytearray", [Node::Str(span), Node::Str(codec)]) => {
                self.encoded(*span, *codec, Node::ByteArray)
            }
            ("set", []) => Ok(Some(Node::Set(Vec::new()))),
            ("frozenset", []) => Ok(Some(Node::FrozenSet([].into()))),
            ("set" | "frozenset", [Node::List(items)]) => {
                let (is_frozen, items) = (name == "frozenset", items.clone());
                self.copied += items.len();
                Ok(Some(if is_frozen { Node::FrozenSet(items.into()) } else { Node::Set(items) }))
            }
            _ => Ok(None),
        }
    }

    fn encoded(&mut self, span: Span, codec: Span, kind: fn(Span) -> Node) -> Result<Option<Node>, Error> {
        let graph = &self.builder.graph;
        if !matches!(graph.bytes(codec), b"latin1" | b"latin-1") {
            return Ok(None);
        }
        match text::to_latin1(graph.bytes(span)) {
            Some(bytes) => Ok(Some(kind(self.decoded(&bytes)?))),
            None => self.malformed("bytes in latin-1 that are no bytes"),
        }
    }
}
