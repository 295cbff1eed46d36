//! The framing of a schema registry's serializers: the byte 0, four bytes of the schema's id, then the data.

/// The id of the schema and the data; `None` where the bytes are not framed.
pub fn split(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (0, rest) = bytes.split_first().map(|(magic, rest)| (*magic, rest))? else { return None };
    let (id, data) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*id), data))
}
