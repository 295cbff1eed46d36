//! Zigzag variable-length integers, as Avro writes its numbers and Protobuf's framing its message indexes.

/// Takes one from the front; `None` where it is cut off or longer than 64 bits.
pub fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut zigzag = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        zigzag |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_read_and_none_beyond_64_bits() {
        let read = |mut bytes: &[u8]| take(&mut bytes).map(|number| (number, bytes.len()));
        assert_eq!(read(&[0, 9]), Some((0, 1)));
        assert_eq!(read(&[1]), Some((-1, 0)));
        assert_eq!(read(&[0xac, 0x02]), Some((150, 0)));
        let most = [0xff; 9];
        assert_eq!(read(&[&most[..], &[1]].concat()), Some((i64::MIN, 0)));
        assert_eq!(read(&[&most[..], &[2]].concat()), None);
        assert_eq!(read(&[0x80; 11]), None);
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[]), None);
    }
}
