//! Pickle machine: executes the opcodes of protocols 2 to 5 (and the binary ones of 1) and builds
//! [`PickleValue`]s, a closed set of plain values. It imports nothing and calls nothing; a limit of
//! steps bounds its memory.
//!
//! Names of classes and functions stay names. The few that PyTorch builds a state dict with are
//! known; a call of any other becomes an opaque [`PickleValue::Object`].

use std::collections::HashMap;

use super::TorchFileFault;

/// The first byte of every pickle of protocol 2 or later.
pub(super) const PROTO: u8 = 0x80;

/// Limit of opcodes, above those of any checkpoint.
const MOST_STEPS: usize = 1 << 21;

/// Qualified name of a class or function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GlobalName<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
}

/// Index of a sequence or a dict in the [`Heap`].
pub(super) type Id = usize;

/// A value of a pickle; text is borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PickleValue<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, as its little-endian bytes.
    Long(&'a [u8]),
    Text(&'a str),
    /// A float, bytes or a set, none of which weights need.
    Plain,
    Global(GlobalName<'a>),
    Tuple(Id),
    List(Id),
    Dict(Id),
    /// A storage, by the tuple that describes it.
    Storage(Id),
    /// A tensor, by the arguments of its `_rebuild_tensor_v2`.
    Tensor(Id),
    /// An instance of any other class, or the result of any other function.
    Object(GlobalName<'a>),
}

/// Arena of the sequences and dicts that values refer to by index, so that cycles and depth do no
/// harm.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    sequences: Vec<Vec<PickleValue<'a>>>,
    dicts: Vec<Vec<(PickleValue<'a>, PickleValue<'a>)>>,
    /// Tuples that describe storages, in the order of the file.
    pub(super) storages: Vec<Id>,
    /// Pairs copied so far by [`Heap::call`].
    copied: usize,
}

impl<'a> Heap<'a> {
    /// Items of a tuple or a list.
    pub(super) fn items(&self, id: Id) -> &[PickleValue<'a>] {
        self.sequences.get(id).map_or(&[], Vec::as_slice)
    }

    /// Pairs of a dict in insertion order.
    pub(super) fn pairs(&self, id: Id) -> &[(PickleValue<'a>, PickleValue<'a>)] {
        self.dicts.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn sequence(&mut self, items: Vec<PickleValue<'a>>) -> Id {
        self.sequences.push(items);
        self.sequences.len() - 1
    }

    pub(super) fn dict(&mut self) -> Id {
        self.dicts.push(Vec::new());
        self.dicts.len() - 1
    }

    /// Appends to a list; items for an object are dropped. Returns false if the target takes no
    /// items.
    pub(super) fn append(&mut self, target: PickleValue<'a>, items: &[PickleValue<'a>]) -> bool {
        if let PickleValue::List(id) = target
            && let Some(list) = self.sequences.get_mut(id)
        {
            list.extend_from_slice(items);
        }
        matches!(target, PickleValue::List(_) | PickleValue::Object(_) | PickleValue::Plain)
    }

    /// Sets alternating keys and values in a dict; items for an object are dropped. Returns false
    /// if the target takes none.
    pub(super) fn set(&mut self, target: PickleValue<'a>, items: &[PickleValue<'a>]) -> bool {
        let (pairs, rest) = items.as_chunks::<2>();
        if let PickleValue::Dict(id) = target
            && let Some(dict) = self.dicts.get_mut(id)
        {
            dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        rest.is_empty()
            && matches!(target, PickleValue::Dict(_) | PickleValue::Object(_) | PickleValue::Plain)
    }

    /// Resolves a persistent id.
    pub(super) fn persistent(&mut self, id: PickleValue<'a>) -> PickleValue<'a> {
        match id {
            PickleValue::Tuple(id)
                if self.items(id).first() == Some(&PickleValue::Text("storage")) =>
            {
                self.storages.push(id);
                PickleValue::Storage(id)
            }
            // The legacy format writes the class of a pickled module with its source.
            PickleValue::Tuple(id)
                if self.items(id).first() == Some(&PickleValue::Text("module")) =>
            {
                self.items(id).get(1).copied().unwrap_or(PickleValue::Plain)
            }
            _ => PickleValue::Plain,
        }
    }

    /// The result of a call. Nothing is called: for the functions known here, it follows from the
    /// arguments.
    pub(super) fn call(
        &mut self,
        callable: PickleValue<'a>,
        arguments: Id,
    ) -> Result<PickleValue<'a>, TorchFileFault> {
        let PickleValue::Global(name) = callable else { return Ok(PickleValue::Plain) };
        let known = match (name.module, name.name, self.items(arguments)) {
            ("collections", "OrderedDict" | "defaultdict", &[PickleValue::List(pairs)]) => {
                PickleValue::Dict(self.dict_of(pairs)?)
            }
            ("collections", "OrderedDict" | "defaultdict", _) => PickleValue::Dict(self.dict()),
            ("torch", "Size", &[size @ (PickleValue::Tuple(_) | PickleValue::List(_))]) => size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", _) => {
                PickleValue::Tensor(arguments)
            }
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state",
                &[tensor @ PickleValue::Tensor(_), ..],
            ) => tensor,
            // A tensor with attributes: the function and the arguments that make the tensor, and
            // the attributes.
            (
                "torch._tensor",
                "_rebuild_from_type_v2",
                &[
                    PickleValue::Global(GlobalName {
                        module: "torch._utils",
                        name: "_rebuild_tensor_v2",
                    }),
                    _,
                    PickleValue::Tuple(inner),
                    ..,
                ],
            ) => PickleValue::Tensor(inner),
            _ => PickleValue::Object(name),
        };
        Ok(known)
    }

    /// A dict from a list of pairs. The total of copied pairs is bounded, as one list may be used
    /// many times.
    fn dict_of(&mut self, list: Id) -> Result<Id, TorchFileFault> {
        const MOST: usize = 1 << 20;
        self.copied = self.copied.saturating_add(self.items(list).len());
        if self.copied > MOST {
            return Err(TorchFileFault::TooLarge);
        }
        let mut pairs = Vec::new();
        for item in self.items(list) {
            if let &(PickleValue::Tuple(pair) | PickleValue::List(pair)) = item
                && let &[key, value] = self.items(pair)
            {
                pairs.push((key, value));
            }
        }
        let id = self.dict();
        self.dicts[id] = pairs;
        Ok(id)
    }
}

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) object: PickleValue<'a>,
    pub(super) heap: Heap<'a>,
    /// Length of the pickle in bytes; others may follow.
    pub(super) length: usize,
}

/// Parses the pickle at the start of a buffer.
pub(super) fn load(bytes: &[u8]) -> Result<Pickle<'_>, TorchFileFault> {
    let mut machine = Unpickler {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    for _ in 0..MOST_STEPS {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let object = machine.pop()?;
            return Ok(Pickle { object, heap: machine.heap, length: machine.at });
        }
        machine.step(opcode)?;
    }
    Err(TorchFileFault::TooLarge)
}

struct Unpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<PickleValue<'a>>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u64, PickleValue<'a>>,
    heap: Heap<'a>,
}

impl<'a> Unpickler<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), TorchFileFault> {
        if let Some(value) = self.literal(opcode)? {
            self.stack.push(value);
            return Ok(());
        }
        match opcode {
            PROTO => {
                if self.byte()? > 5 {
                    return Err(self.fault("a later pickle protocol"));
                }
            }
            // FRAME: its size does not matter, as the whole pickle is in memory.
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'q' | b'r' | b'p' | 0x94 => self.put(opcode)?,
            b'h' | b'j' | b'g' => self.get(opcode)?,
            b'c' | 0x93 | b'i' | b'o' | b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.object(opcode)?,
            _ => self.container(opcode)?,
        }
        Ok(())
    }

    /// Opcodes that carry a value themselves.
    fn literal(&mut self, opcode: u8) -> Result<Option<PickleValue<'a>>, TorchFileFault> {
        let value = match opcode {
            b'N' => PickleValue::None,
            0x88 => PickleValue::Bool(true),
            0x89 => PickleValue::Bool(false),
            b'J' => PickleValue::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => PickleValue::Int(i64::from(self.byte()?)),
            b'M' => PickleValue::Int(i64::from(u16::from_le_bytes(self.array()?))),
            0x8a => long(self.sized(1)?),
            0x8b => long(self.sized(4)?),
            b'G' => plain(self.take(8)?),
            // Strings of Python 2 and 3.
            b'U' | 0x8c => text(self.sized(1)?),
            b'T' | b'X' => text(self.sized(4)?),
            0x8d => text(self.sized(8)?),
            // Bytes.
            b'C' => plain(self.sized(1)?),
            b'B' => plain(self.sized(4)?),
            0x8e | 0x96 => plain(self.sized(8)?),
            // EMPTY_SET
            0x8f => PickleValue::Plain,
            b')' => PickleValue::Tuple(self.heap.sequence(Vec::new())),
            b']' => PickleValue::List(self.heap.sequence(Vec::new())),
            b'}' => PickleValue::Dict(self.heap.dict()),
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    /// Opcodes that build and fill tuples, lists, dicts and sets.
    fn container(&mut self, opcode: u8) -> Result<(), TorchFileFault> {
        let done = match opcode {
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                let tuple = PickleValue::Tuple(self.heap.sequence(items));
                self.stack.push(tuple);
                true
            }
            b't' | b'l' | b'd' | 0x91 => {
                let items = self.pop_mark()?;
                let (value, done) = match opcode {
                    b't' => (PickleValue::Tuple(self.heap.sequence(items)), true),
                    b'l' => (PickleValue::List(self.heap.sequence(items)), true),
                    b'd' => {
                        let dict = PickleValue::Dict(self.heap.dict());
                        (dict, self.heap.set(dict, &items))
                    }
                    // FROZENSET
                    _ => (PickleValue::Plain, true),
                };
                self.stack.push(value);
                done
            }
            b'a' => {
                let item = self.pop()?;
                self.heap.append(self.top()?, &[item])
            }
            // APPENDS and ADDITEMS
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.heap.append(self.top()?, &items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.heap.set(self.top()?, &[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.heap.set(self.top()?, &items)
            }
            _ => return Err(self.fault("an unknown opcode")),
        };
        if done { Ok(()) } else { Err(self.fault("items for a value that takes none")) }
    }

    /// Opcodes that name classes, create objects and set their state.
    fn object(&mut self, opcode: u8) -> Result<(), TorchFileFault> {
        let value = match opcode {
            b'c' => PickleValue::Global(GlobalName { module: self.line()?, name: self.line()? }),
            0x93 => match (self.pop()?, self.pop()?) {
                (PickleValue::Text(name), PickleValue::Text(module)) => {
                    PickleValue::Global(GlobalName { module, name })
                }
                _ => return Err(self.fault("a name that is not text")),
            },
            b'i' => {
                let name = GlobalName { module: self.line()?, name: self.line()? };
                self.pop_mark()?;
                PickleValue::Object(name)
            }
            b'o' => match self.pop_mark()?.first() {
                Some(&PickleValue::Global(name)) => PickleValue::Object(name),
                _ => PickleValue::Plain,
            },
            // REDUCE, NEWOBJ, NEWOBJ_EX
            b'R' | 0x81 | 0x92 => {
                if opcode == 0x92 {
                    self.pop()?;
                }
                let arguments = self.pop()?;
                let callable = self.pop()?;
                match arguments {
                    PickleValue::Tuple(arguments) => self.heap.call(callable, arguments)?,
                    // An opaque value, such as `tuple(...)`.
                    _ => PickleValue::Plain,
                }
            }
            // BUILD: the state of an object, such as the `_metadata` of a state dict, is dropped.
            b'b' => {
                self.pop()?;
                self.pop()?
            }
            _ => {
                let id = self.pop()?;
                self.heap.persistent(id)
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, opcode: u8) -> Result<(), TorchFileFault> {
        let key = if opcode == 0x94 {
            self.memo.len() as u64
        } else {
            self.memo_key(opcode == b'q', opcode == b'p')?
        };
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), TorchFileFault> {
        let key = self.memo_key(opcode == b'h', opcode == b'g')?;
        let value =
            self.memo.get(&key).copied().ok_or_else(|| self.fault("an unknown memo key"))?;
        self.stack.push(value);
        Ok(())
    }

    fn memo_key(&mut self, short: bool, decimal: bool) -> Result<u64, TorchFileFault> {
        if short {
            Ok(u64::from(self.byte()?))
        } else if decimal {
            self.line()?.parse().map_err(|_| self.fault("an invalid memo key"))
        } else {
            Ok(u64::from(u32::from_le_bytes(self.array()?)))
        }
    }

    fn fault(&self, why: &'static str) -> TorchFileFault {
        TorchFileFault::Pickle { why, at: self.at }
    }

    fn top(&self) -> Result<PickleValue<'a>, TorchFileFault> {
        self.stack.last().copied().ok_or_else(|| self.fault("an empty stack"))
    }

    fn pop(&mut self) -> Result<PickleValue<'a>, TorchFileFault> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(self.fault("an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.fault("an empty stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<PickleValue<'a>>, TorchFileFault> {
        let mark = self.marks.pop().ok_or_else(|| self.fault("no mark"))?;
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], TorchFileFault> {
        let rest = self.bytes.get(self.at..).ok_or(TorchFileFault::Truncated)?;
        let taken = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or(TorchFileFault::Truncated)?;
        self.at += taken.len();
        Ok(taken)
    }

    /// Bytes behind their length, which takes `width` bytes.
    fn sized(&mut self, width: u64) -> Result<&'a [u8], TorchFileFault> {
        let mut length = [0; 8];
        for (byte, given) in length.iter_mut().zip(self.take(width)?) {
            *byte = *given;
        }
        self.take(u64::from_le_bytes(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchFileFault> {
        self.take(N as u64)?.first_chunk().copied().ok_or(TorchFileFault::Truncated)
    }

    fn byte(&mut self) -> Result<u8, TorchFileFault> {
        self.array().map(|[byte]| byte)
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, TorchFileFault> {
        let rest = self.bytes.get(self.at..).ok_or(TorchFileFault::Truncated)?;
        let length =
            rest.iter().position(|byte| *byte == b'\n').ok_or(TorchFileFault::Truncated)?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| self.fault("a name that is not text"))
    }
}

/// A little-endian integer in two's complement.
fn long(bytes: &[u8]) -> PickleValue<'_> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut filled = [if negative { 0xff } else { 0 }; 8];
    let Some(low) = filled.get_mut(..bytes.len()) else { return PickleValue::Long(bytes) };
    low.copy_from_slice(bytes);
    PickleValue::Int(i64::from_le_bytes(filled))
}

/// A value whose bytes are dropped.
fn plain(_: &[u8]) -> PickleValue<'_> {
    PickleValue::Plain
}

/// A string; one of Python 2 may be bytes instead.
fn text(bytes: &[u8]) -> PickleValue<'_> {
    std::str::from_utf8(bytes).map_or(PickleValue::Plain, PickleValue::Text)
}
