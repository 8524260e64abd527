//! The form of control messages on the wire: bincode, and nowhere else.

use crate::fault::{Fault, Kind, Result};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// No control message is longer; a decoder claims no more memory than this.
const LENGTH_BYTES_MAX: usize = 1 << 31;

fn configuration() -> Configuration<LittleEndian, Varint, Limit<LENGTH_BYTES_MAX>> {
    bincode::config::standard().with_limit::<LENGTH_BYTES_MAX>()
}

/// *Local.* `message` as bytes.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(message, configuration())
        .map_err(|error| Fault::new(Kind::Internal, format!("encode a control message: {error}")))
}

/// *Local.* The message that [`encode`] has made `bytes` of; all of them must be used.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let (message, used) =
        bincode::serde::decode_from_slice(bytes, configuration()).map_err(|error| {
            Fault::new(Kind::Internal, format!("decode a control message: {error}"))
        })?;
    if used == bytes.len() {
        Ok(message)
    } else {
        Err(Fault::new(
            Kind::Internal,
            format!(
                "a control message is {used} bytes long, {} came",
                bytes.len()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_field_of_a_fault() {
        let fault = Fault::new(Kind::MissingShard, "no shard")
            .file("rank_3/net.safetensors")
            .tensor("w")
            .rank(3)
            .hint("look elsewhere");
        let bytes = encode(&fault).unwrap();
        assert_eq!(decode::<Fault>(&bytes).unwrap(), fault);
    }

    #[test]
    fn refuses_cut_long_and_absurd_messages() {
        let bytes = encode(&vec![7_u64, 8, 9]).unwrap();
        assert!(decode::<Vec<u64>>(&bytes[..bytes.len() - 1]).is_err());
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(decode::<Vec<u64>>(&longer).is_err());
        let absurd = encode(&u64::MAX).unwrap();
        assert!(decode::<Vec<u8>>(&absurd).is_err());
        assert!(decode::<String>(&absurd).is_err());
    }
}
