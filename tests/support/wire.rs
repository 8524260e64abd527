//! A reader of the protobuf wire format, just large enough for strategies and `.ckpt` files.

/// One field of a message.
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(&self) -> Result<&'a [u8], String> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) => Err("a number where bytes belong".to_owned()),
        }
    }

    pub(crate) fn text(&self) -> Result<String, String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|error| error.to_string())
    }

    /// The numbers of a repeated field: one, or a packed run of them.
    pub(crate) fn numbers(&self) -> Result<Vec<i64>, String> {
        match *self {
            Value::Varint(number) => Ok(vec![i64::from_le_bytes(number.to_le_bytes())]),
            Value::Bytes(mut bytes) => {
                let mut numbers = Vec::new();
                while !bytes.is_empty() {
                    numbers.push(i64::from_le_bytes(varint(&mut bytes)?.to_le_bytes()));
                }
                Ok(numbers)
            }
        }
    }
}

/// All fields of `message` with their numbers, in file order.
pub(crate) fn fields(mut message: &[u8]) -> Result<Vec<(u64, Value<'_>)>, String> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|e| e.to_string())?;
                let (bytes, rest) = message.split_at_checked(length).ok_or("cut short")?;
                message = rest;
                Value::Bytes(bytes)
            }
            other => return Err(format!("wire type {other}")),
        };
        fields.push((key >> 3, value));
    }
    Ok(fields)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("cut short")?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than ten bytes".to_owned())
}
