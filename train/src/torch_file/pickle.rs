//! The pickle machine: follows the opcodes of protocols 2 to 5 (and the binary ones of 1) and builds [`Value`]s. It
//! imports nothing and calls nothing; its memory is bounded by a constant number of steps.

use std::collections::HashMap;

use super::error::Fault;
use super::value::{Heap, Name, Value};

/// The first byte of every pickle of protocol 2 or later.
pub(super) const PROTO: u8 = 0x80;

/// More opcodes than the pickle of any checkpoint has.
const MOST_STEPS: usize = 1 << 21;

/// The object of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) object: Value<'a>,
    pub(super) heap: Heap<'a>,
    /// Bytes that it took, where others may follow.
    pub(super) length: usize,
}

/// Reads the pickle at the start of a buffer.
pub(super) fn load(bytes: &[u8]) -> Result<Pickle<'_>, Fault> {
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), heap: Heap::default() };
    for _ in 0..MOST_STEPS {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let object = machine.pop()?;
            return Ok(Pickle { object, heap: machine.heap, length: machine.at });
        }
        machine.step(opcode)?;
    }
    Err(Fault::TooLarge)
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack where the open marks are.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
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
    fn literal(&mut self, opcode: u8) -> Result<Option<Value<'a>>, Fault> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
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
            0x8f => Value::Plain,
            b')' => Value::Tuple(self.heap.sequence(Vec::new())),
            b']' => Value::List(self.heap.sequence(Vec::new())),
            b'}' => Value::Dict(self.heap.dict()),
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    /// Opcodes that fill tuples, lists, dicts and sets.
    fn container(&mut self, opcode: u8) -> Result<(), Fault> {
        let done = match opcode {
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                let tuple = Value::Tuple(self.heap.sequence(items));
                self.stack.push(tuple);
                true
            }
            b't' | b'l' | b'd' | 0x91 => {
                let items = self.pop_mark()?;
                let (value, done) = match opcode {
                    b't' => (Value::Tuple(self.heap.sequence(items)), true),
                    b'l' => (Value::List(self.heap.sequence(items)), true),
                    b'd' => {
                        let dict = Value::Dict(self.heap.dict());
                        (dict, self.heap.set(dict, &items))
                    }
                    // FROZENSET
                    _ => (Value::Plain, true),
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
    fn object(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b'c' => Value::Global(Name { module: self.line()?, name: self.line()? }),
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => Value::Global(Name { module, name }),
                _ => return Err(self.fault("a name that is no text")),
            },
            b'i' => {
                let name = Name { module: self.line()?, name: self.line()? };
                self.pop_mark()?;
                Value::Object(name)
            }
            b'o' => match self.pop_mark()?.first() {
                Some(&Value::Global(name)) => Value::Object(name),
                _ => Value::Plain,
            },
            // REDUCE, NEWOBJ, NEWOBJ_EX
            b'R' | 0x81 | 0x92 => {
                if opcode == 0x92 {
                    self.pop()?;
                }
                let arguments = self.pop()?;
                let callable = self.pop()?;
                match arguments {
                    Value::Tuple(arguments) => self.heap.call(callable, arguments)?,
                    // An opaque value, such as of `tuple(...)`.
                    _ => Value::Plain,
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

    fn put(&mut self, opcode: u8) -> Result<(), Fault> {
        let key = if opcode == 0x94 { self.memo.len() as u64 } else { self.memo_key(opcode == b'q', opcode == b'p')? };
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), Fault> {
        let key = self.memo_key(opcode == b'h', opcode == b'g')?;
        let value = self.memo.get(&key).copied().ok_or_else(|| self.fault("a value that was never kept"))?;
        self.stack.push(value);
        Ok(())
    }

    fn memo_key(&mut self, short: bool, decimal: bool) -> Result<u64, Fault> {
        if short {
            Ok(u64::from(self.byte()?))
        } else if decimal {
            self.line()?.parse().map_err(|_| self.fault("a number that is none"))
        } else {
            Ok(u64::from(u32::from_le_bytes(self.array()?)))
        }
    }

    fn fault(&self, why: &'static str) -> Fault {
        Fault::Pickle { why, at: self.at }
    }

    fn top(&self) -> Result<Value<'a>, Fault> {
        self.stack.last().copied().ok_or_else(|| self.fault("an empty stack"))
    }

    fn pop(&mut self) -> Result<Value<'a>, Fault> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(self.fault("an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.fault("an empty stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, Fault> {
        let mark = self.marks.pop().ok_or_else(|| self.fault("no mark"))?;
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).ok_or(Fault::CutShort)?;
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or(Fault::CutShort)?;
        self.at += taken.len();
        Ok(taken)
    }

    /// Bytes whose count is before them, itself of `width` bytes.
    fn sized(&mut self, width: u64) -> Result<&'a [u8], Fault> {
        let mut length = [0; 8];
        for (byte, given) in length.iter_mut().zip(self.take(width)?) {
            *byte = *given;
        }
        self.take(u64::from_le_bytes(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N as u64)?.first_chunk().copied().ok_or(Fault::CutShort)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| byte)
    }

    /// Text up to the end of the line, which is passed over.
    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = self.bytes.get(self.at..).ok_or(Fault::CutShort)?;
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::CutShort)?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| self.fault("a name that is no text"))
    }
}

/// An integer in two's complement.
fn long(bytes: &[u8]) -> Value<'_> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut filled = [if negative { 0xff } else { 0 }; 8];
    let Some(low) = filled.get_mut(..bytes.len()) else { return Value::Long(bytes) };
    low.copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(filled))
}

/// A value whose bytes do not matter.
fn plain(_: &[u8]) -> Value<'_> {
    Value::Plain
}

/// A string; one of Python 2 may be bytes instead.
fn text(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Plain, Value::Text)
}
