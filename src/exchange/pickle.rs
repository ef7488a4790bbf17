//! The part of Python's pickle format that files of `torch.save` use. Nothing in a file is run: a call of a
//! Python function becomes a value that names the function and its arguments.
//!
//! Format: `pickletools.py` of the Python project, protocol 2; the opcodes of later protocols that replace
//! those are read, too.

use std::collections::HashMap;

/// The number of a value.
pub type Id = usize;

/// A value. Others are named by their numbers, since a file may name one several times.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None, or something that is of no interest here.
    None,
    /// True or False.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// A tuple or list.
    Sequence(Vec<Id>),
    /// A dict, in its order.
    Dict(Vec<(Id, Id)>),
    /// A class or function, "module name".
    Global(String),
    /// A call of a class or function with a tuple of arguments, which was not made.
    Call(Id, Id),
    /// A reference to something outside of the pickle, as for the storage of a tensor.
    Outside(Id),
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Pickle {
    values: Vec<Value>,
    top: Id,
}

/// Values that a pickle may have at most: those of checkpoints have some thousands.
const MOST_VALUES: usize = 4_000_000;

impl Pickle {
    /// Reads a pickle; the error says what is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let at = reader.at;
            match reader.step() {
                Some(Step::Go) => {}
                Some(Step::Stop(top)) => return Ok(Self { values: reader.values, top }),
                Some(Step::Unknown(code)) => {
                    return Err(format!(
                        "holds the pickle opcode {code:#04x} at byte {at}, which is not read"
                    ));
                }
                None => return Err(format!("its pickle is damaged at byte {at}")),
            }
            if reader.values.len() > MOST_VALUES {
                return Err(format!("its pickle has over {MOST_VALUES} values"));
            }
        }
    }

    /// The value that was pickled.
    pub fn top(&self) -> &Value {
        &self.values[self.top]
    }

    /// The value with that number.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The text with that number.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The members of the sequence with that number.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Sequence(members) => Some(members),
            _ => None,
        }
    }

    /// The whole numbers in the sequence with that number, none negative.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.sequence(id)?.iter().map(|&id| self.size(id)).collect()
    }

    /// The whole number with that number, not negative.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Integer(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The entries of a dict whose keys are text.
    pub fn entries<'a>(&'a self, value: &'a Value) -> Option<Vec<(&'a str, Id)>> {
        let Value::Dict(entries) = value else { return None };
        Some(entries.iter().filter_map(|&(key, value)| Some((self.text(key)?, value))).collect())
    }
}

/// What an opcode leads to.
enum Step {
    Go,
    Stop(Id),
    Unknown(u8),
}

/// A stack machine: opcodes push values and combine those on top.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(part)
    }

    /// An unsigned number of `length` bytes, the lowest first.
    fn number(&mut self, length: usize) -> Option<u64> {
        Some(self.take(length)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Option<String> {
        let length = self.bytes.get(self.at..)?.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.at += 1;
        Some(line)
    }

    fn text(&mut self, length: u64) -> Option<Value> {
        let bytes = self.take(usize::try_from(length).ok()?)?;
        Some(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn push(&mut self, value: Value) -> Option<Step> {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Some(Step::Go)
    }

    fn pop(&mut self) -> Option<Id> {
        // What lies below a mark belongs to an outer value.
        let floor = self.marks.last().copied().unwrap_or(0);
        (self.stack.len() > floor).then(|| self.stack.pop()).flatten()
    }

    /// What was pushed since the last mark.
    fn since_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Option<Step> {
        let mut members = Vec::with_capacity(length);
        for _ in 0..length {
            members.push(self.pop()?);
        }
        members.reverse();
        self.push(Value::Sequence(members))
    }

    /// Adds pairs to the dict on top of the stack, or to what a call that makes a dict stands for.
    fn set_items(&mut self, items: &[Id]) -> Option<Step> {
        if !items.len().is_multiple_of(2) {
            return None;
        }
        let target = *self.stack.last()?;
        if let Value::Dict(entries) = &mut self.values[target] {
            entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Some(Step::Go)
    }

    fn append(&mut self, items: &[Id]) -> Option<Step> {
        let target = *self.stack.last()?;
        if let Value::Sequence(members) = &mut self.values[target] {
            members.extend(items);
        }
        Some(Step::Go)
    }

    fn call(&mut self) -> Option<Step> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let makes_dict =
            matches!(&self.values[function], Value::Global(name) if name == "collections OrderedDict");
        self.push(if makes_dict { Value::Dict(Vec::new()) } else { Value::Call(function, arguments) })
    }

    fn remember(&mut self, slot: u32) -> Option<Step> {
        self.memo.insert(slot, *self.stack.last()?);
        Some(Step::Go)
    }

    fn recall(&mut self, slot: u32) -> Option<Step> {
        self.stack.push(*self.memo.get(&slot)?);
        Some(Step::Go)
    }

    /// A signed number of `length` bytes, at most eight.
    fn long(&mut self, length: u64) -> Option<Step> {
        if length > 8 {
            return None;
        }
        let value = self.number(length as usize)?;
        let unused = 64 - 8 * length as u32;
        let signed = if unused == 64 { 0 } else { ((value << unused) as i64) >> unused };
        self.push(Value::Integer(signed))
    }

    /// Runs one opcode; `None` where the bytes are no pickle.
    fn step(&mut self) -> Option<Step> {
        let code = self.take(1)?[0];
        match code {
            b'.' => self.pop().map(Step::Stop),
            // PROTO and FRAME say nothing that matters here.
            0x80 => self.take(1).map(|_| Step::Go),
            0x95 => self.take(8).map(|_| Step::Go),
            b'(' => {
                self.marks.push(self.stack.len());
                Some(Step::Go)
            }
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Flag(code == 0x88)),
            b'J' => {
                let value = self.number(4)? as u32;
                self.push(Value::Integer(i64::from(value as i32)))
            }
            b'K' => self.number(1).and_then(|value| self.push(Value::Integer(value as i64))),
            b'M' => self.number(2).and_then(|value| self.push(Value::Integer(value as i64))),
            0x8a => {
                let length = self.number(1)?;
                self.long(length)
            }
            b'G' => {
                let bytes: [u8; 8] = self.take(8)?.try_into().ok()?;
                self.push(Value::Float(f64::from_be_bytes(bytes)))
            }
            b'X' | b'U' | b'T' | b'C' | b'B' | 0x8c | 0x8d => self.text_of(code),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module} {name}")))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(name), Value::Text(module)) = (&self.values[name], &self.values[module])
                else {
                    return None;
                };
                let global = format!("{module} {name}");
                self.push(Value::Global(global))
            }
            _ => self.step_on_values(code),
        }
    }

    /// Text and bytes, with lengths of one, four or eight bytes.
    fn text_of(&mut self, code: u8) -> Option<Step> {
        let width = match code {
            b'U' | b'C' | 0x8c => 1,
            0x8d => 8,
            _ => 4,
        };
        let length = self.number(width)?;
        let text = self.text(length)?;
        self.push(text)
    }

    /// The opcodes that combine values, or keep them.
    fn step_on_values(&mut self, code: u8) -> Option<Step> {
        match code {
            b')' | b']' => self.push(Value::Sequence(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x85..=0x87 => self.tuple(usize::from(code - 0x84)),
            b't' | b'l' => {
                let members = self.since_mark()?;
                self.push(Value::Sequence(members))
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)
            }
            b'R' | 0x81 => self.call(),
            // BUILD sets attributes of the object below: of no interest.
            b'b' | b'0' => self.pop().map(|_| Step::Go),
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Outside(id))
            }
            b'q' => {
                let slot = self.number(1)? as u32;
                self.remember(slot)
            }
            b'r' => {
                let slot = self.number(4)? as u32;
                self.remember(slot)
            }
            0x94 => self.remember(self.memo.len() as u32),
            b'h' => {
                let slot = self.number(1)? as u32;
                self.recall(slot)
            }
            b'j' => {
                let slot = self.number(4)? as u32;
                self.recall(slot)
            }
            _ => Some(Step::Unknown(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `pickle.dumps({"a": (1, -2, 300, 70000, 2**40), "b": [None, True, 1.5]}, protocol=p)` for p 2 and 4.
    #[test]
    fn python_s_own_pickles() {
        let two: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01tq\x02X\x01\x00\x00\x00bq\x03]q\x04(N\x88G?\xf8\x00\x00\x00\x00\x00\x00eu.";
        let four: &[u8] = b"\x80\x04\x956\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01t\x94\x8c\x01b\x94]\x94(N\x88G?\xf8\x00\x00\x00\x00\x00\x00eu.";
        for bytes in [two, four] {
            let pickle = Pickle::read(bytes).unwrap();
            let entries = pickle.entries(pickle.top()).unwrap();
            assert_eq!(entries.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["a", "b"]);
            let members = |id: Id| -> Vec<Value> {
                pickle.sequence(id).unwrap().iter().map(|&id| pickle.get(id).clone()).collect()
            };
            let numbers = [1, -2, 300, 70_000, 1 << 40].map(Value::Integer);
            assert_eq!(members(entries[0].1), numbers);
            assert_eq!(members(entries[1].1), [Value::None, Value::Flag(true), Value::Float(1.5)]);
        }
    }

    #[test]
    fn calls_are_not_made() {
        // What Python would run as os.system("true").
        let pickle = Pickle::read(b"cos\nsystem\n(X\x04\x00\x00\x00truetR.").unwrap();
        let Value::Call(function, _) = pickle.top() else { panic!("{:?}", pickle.top()) };
        assert_eq!(pickle.get(*function), &Value::Global("os system".into()));
        for (bytes, part) in
            [(&b"\x80\x02i"[..], "opcode 0x69 at byte 2"), (b"}", "damaged at byte 1"), (b"u.", "damaged")]
        {
            assert!(Pickle::read(bytes).unwrap_err().contains(part));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![
            any::<u8>(),
            proptest::sample::select(b"}(]tseuaR)Qq\x00h\x00N.KK\x85\x86\x88".to_vec()),
        ], 0..200)) {
            let _ = Pickle::read(&bytes);
        }
    }
}
