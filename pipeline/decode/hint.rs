//! What bytes that are not of the expected format probably are, so that a rejection can name the remedy.

/// The likely cause by the first bytes, as the end of a message.
pub fn likely_cause(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "; it is empty: to delete a document, produce a record with a null value",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "; it looks like UTF-16: write it as UTF-8",
        [0x1f, 0x8b, ..] => "; it looks like gzip: leave compression to Kafka (`compression.type` of the producer)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "; it looks like Zstandard: leave compression to Kafka (`compression.type` of the producer)"
        }
        [0, _, _, _, _, ..] => {
            "; it begins with 0, as what a schema registry's serializers write: set `format` of the stream to `avro` or `protobuf`"
        }
        [b'O', b'b', b'j', 1, ..] => {
            "; it looks like an Avro file: write single records with a schema registry's serializer"
        }
        [3, ..] if bytes.len() > 18 => "; it may be framed by the serializer of AWS Glue, which is not read",
        _ => "; correct what produces it",
    }
}
