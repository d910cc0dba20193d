//! Protocol buffers without a schema, to change or to forge ONNX and SentencePiece files.

/// A field: its number and its value.
pub type Field = (u32, Value);

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number of variable length.
    Number(u64),
    /// Four bytes, such as a float.
    Fixed32([u8; 4]),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Text, bytes, or a message.
    Bytes(Vec<u8>),
}

/// The fields of a message.
///
/// # Panics
/// If `bytes` are not a message.
pub fn read(mut bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = number(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(number(&mut bytes)),
            1 => Value::Fixed64(take(&mut bytes, 8).try_into().expect("eight bytes")),
            2 => {
                let length = number(&mut bytes) as usize;
                Value::Bytes(take(&mut bytes, length).to_vec())
            }
            5 => Value::Fixed32(take(&mut bytes, 4).try_into().expect("four bytes")),
            kind => panic!("a field of the kind {kind}"),
        };
        fields.push(((key >> 3) as u32, value));
    }
    fields
}

/// A message of `fields`.
pub fn write(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, value) in fields {
        let key = |kind: u64| u64::from(*number) << 3 | kind;
        match value {
            Value::Number(value) => [key(0), *value].iter().for_each(|n| put(&mut bytes, *n)),
            Value::Fixed64(value) => {
                put(&mut bytes, key(1));
                bytes.extend(value);
            }
            Value::Bytes(value) => {
                put(&mut bytes, key(2));
                put(&mut bytes, value.len() as u64);
                bytes.extend(value);
            }
            Value::Fixed32(value) => {
                put(&mut bytes, key(5));
                bytes.extend(value);
            }
        }
    }
    bytes
}

/// `message` with a change of the messages in its field `number`.
pub fn edit(message: &[u8], number: u32, change: impl Fn(&mut Vec<Field>)) -> Vec<u8> {
    let mut fields = read(message);
    for (_, value) in fields.iter_mut().filter(|(other, _)| *other == number) {
        if let Value::Bytes(bytes) = value {
            let mut inner = read(bytes);
            change(&mut inner);
            *bytes = write(&inner);
        }
    }
    write(&fields)
}

fn number(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return number;
        }
    }
    panic!("a number of more than ten bytes")
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}
