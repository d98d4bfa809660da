//! Messages of protocol buffers, field by field.

use super::WeightsError;

pub(super) fn corrupt(format: &'static str, cause: impl Into<String>) -> WeightsError {
    WeightsError::Corrupt { format, cause: cause.into() }
}

/// A field of a message.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Value<'a>,
}

/// Its value.
pub(super) enum Value<'a> {
    Number(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message in the order of the bytes; nothing after the first error. `format` is for errors.
pub(super) fn fields<'a>(
    format: &'static str,
    mut rest: &'a [u8],
) -> impl Iterator<Item = Result<Field<'a>, WeightsError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(format, &mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(format: &'static str, rest: &mut &'a [u8]) -> Result<Field<'a>, WeightsError> {
    fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
        let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (bytes, after) = split?;
        *rest = after;
        Some(bytes)
    }
    fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
        let (bytes, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(*bytes)
    }
    let early = || corrupt(format, "the file ends early");
    let key = varint(format, rest)?;
    let value = match key & 7 {
        0 => Value::Number(varint(format, rest)?),
        1 => Value::Fixed64(array(rest).ok_or_else(early)?),
        2 => {
            let length = varint(format, rest)?;
            Value::Bytes(take(rest, length).ok_or_else(early)?)
        }
        5 => Value::Fixed32(array(rest).ok_or_else(early)?),
        other => return Err(corrupt(format, format!("field type {other}"))),
    };
    match key >> 3 {
        0 => Err(corrupt(format, "field number 0")),
        number => Ok(Field { number, value }),
    }
}

/// A number of variable length.
pub(super) fn varint(format: &'static str, rest: &mut &[u8]) -> Result<u64, WeightsError> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, after) = rest.split_first().ok_or_else(|| corrupt(format, "the file ends early"))?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(corrupt(format, "a number has more than 64 bits"))
}
