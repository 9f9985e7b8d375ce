//! The pickle machine: follows the opcodes of protocols 2 to 5 (and the binary ones of 1) and builds [`PickleValue`]s. It
//! imports nothing and calls nothing; its memory is bounded by a constant number of steps.

use std::collections::HashMap;

use super::error::TorchFileFault;
use super::value::{GlobalName, Heap, PickleValue};

/// The first byte of every pickle of protocol 2 or later.
pub(super) const PROTO: u8 = 0x80;

/// More opcodes than the pickle of any checkpoint has.
const MOST_STEPS: usize = 1 << 21;

/// The object of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) object: PickleValue<'a>,
    pub(super) heap: Heap<'a>,
    /// Bytes that it took, where others may follow.
    pub(super) length: usize,
}

/// Reads the pickle at the start of a buffer.
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
    /// Heights of the stack where the open marks are.
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
            // FRAME: where a frame ends does not matter with the whole pickle at hand.
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

    /// A value that an opcode holds by itself.
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

    /// Opcodes that fill tuples, lists, dicts and sets.
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
        if done { Ok(()) } else { Err(self.fault("items for what takes none")) }
    }

    /// Opcodes that name classes, make objects and give them their state.
    fn object(&mut self, opcode: u8) -> Result<(), TorchFileFault> {
        let value = match opcode {
            b'c' => PickleValue::Global(GlobalName { module: self.line()?, name: self.line()? }),
            0x93 => match (self.pop()?, self.pop()?) {
                (PickleValue::Text(name), PickleValue::Text(module)) => {
                    PickleValue::Global(GlobalName { module, name })
                }
                _ => return Err(self.fault("a name that is no text")),
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
                    // An opaque value, such as of `tuple(...)`.
                    _ => PickleValue::Plain,
                }
            }
            // BUILD: the state of an object, such as the `_metadata` of a state dict, is not looked at.
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
        let value = self
            .memo
            .get(&key)
            .copied()
            .ok_or_else(|| self.fault("a value that was never kept"))?;
        self.stack.push(value);
        Ok(())
    }

    fn memo_key(&mut self, short: bool, decimal: bool) -> Result<u64, TorchFileFault> {
        if short {
            Ok(u64::from(self.byte()?))
        } else if decimal {
            self.line()?.parse().map_err(|_| self.fault("a number that is none"))
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

    /// Bytes whose count is before them, itself of `width` bytes.
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

    /// Text up to the end of the line, which is passed over.
    fn line(&mut self) -> Result<&'a str, TorchFileFault> {
        let rest = self.bytes.get(self.at..).ok_or(TorchFileFault::Truncated)?;
        let length =
            rest.iter().position(|byte| *byte == b'\n').ok_or(TorchFileFault::Truncated)?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| self.fault("a name that is no text"))
    }
}

/// An integer in two's complement.
fn long(bytes: &[u8]) -> PickleValue<'_> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut filled = [if negative { 0xff } else { 0 }; 8];
    let Some(low) = filled.get_mut(..bytes.len()) else { return PickleValue::Long(bytes) };
    low.copy_from_slice(bytes);
    PickleValue::Int(i64::from_le_bytes(filled))
}

/// A value whose bytes do not matter.
fn plain(_: &[u8]) -> PickleValue<'_> {
    PickleValue::Plain
}

/// A string; one of Python 2 may be bytes instead.
fn text(bytes: &[u8]) -> PickleValue<'_> {
    std::str::from_utf8(bytes).map_or(PickleValue::Plain, PickleValue::Text)
}
