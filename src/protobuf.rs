//! The wire format of protocol buffers, as much as ONNX needs: a message is a sequence of fields, each with a
//! number and either an integer or bytes (text, another message, packed numbers).

/// A message being written.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

/// Wire types.
const INTEGER: u64 = 0;
const BYTES: u64 = 2;
const FIXED64: u64 = 1;
const FIXED32: u64 = 5;

impl Message {
    /// An integer: seven bits a byte, the lowest first.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer field.
    pub fn integer(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | INTEGER);
        self.varint(value);
        self
    }

    /// A field of bytes.
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A field of text.
    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// A message as a field.
    pub fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// A field for each of the messages.
    pub fn messages<'a>(self, field: u64, values: impl IntoIterator<Item = &'a Message>) -> Self {
        values.into_iter().fold(self, |message, value| message.message(field, value))
    }

    /// A number of single precision.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | FIXED32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A number of double precision.
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Integers in one field.
    pub fn packed(self, field: u64, values: &[u64]) -> Self {
        let mut packed = Message::default();
        values.iter().for_each(|&value| packed.varint(value));
        self.message(field, &packed)
    }

    /// What is written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The value of a field that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// Of wire type 0.
    Integer(u64),
    /// Of wire type 2.
    Bytes(&'a [u8]),
    /// Of wire type 1.
    Fixed64([u8; 8]),
    /// Of wire type 5.
    Fixed32([u8; 4]),
}

/// The fields of a message with their numbers, in order; `None` where the bytes are no message.
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = read_varint(&mut bytes)?;
        let value = match tag & 7 {
            INTEGER => Field::Integer(read_varint(&mut bytes)?),
            BYTES => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(value)
            }
            FIXED64 => {
                let (value, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                Field::Fixed64(*value)
            }
            FIXED32 => {
                let (value, rest) = bytes.split_first_chunk::<4>()?;
                bytes = rest;
                Field::Fixed32(*value)
            }
            _ => return None,
        };
        found.push((tag >> 3, value));
    }
    Some(found)
}

/// Takes an integer from the front.
pub fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_format_s_documentation() {
        assert_eq!(Message::default().integer(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").into_bytes(), b"\x12\x07testing");
        assert_eq!(
            Message::default().packed(6, &[3, 270, 86942]).into_bytes(),
            b"2\x06\x03\x8e\x02\x9e\xa7\x05"
        );
        assert_eq!(Message::default().integer(1, u64::MAX).into_bytes()[1..].len(), 10);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a in any::<u64>(), b in any::<Vec<u8>>(), c in any::<f32>(), numbers in 1u64..1000) {
            let bytes = Message::default().integer(numbers, a).bytes(2, &b).float(3, c).into_bytes();
            let expected =
                vec![(numbers, Field::Integer(a)), (2, Field::Bytes(&b)), (3, Field::Fixed32(c.to_le_bytes()))];
            prop_assert_eq!(fields(&bytes), Some(expected));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let _ = fields(&bytes);
        }
    }
}
