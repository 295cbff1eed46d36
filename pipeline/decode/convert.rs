//! Values of Avro and Protobuf as JSON's kinds of values, in the way the fields are read.
//!
//! What has no such kind becomes one that no mapping takes for something else: an object, or a string that says what it is.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

/// Bytes that are UTF-8 count as their text, others only as so many bytes.
pub fn bytes(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({"bytes": bytes.len()}), Value::from)
}

/// A number, or its name where JSON has none: `NaN`, `inf`, `-inf`.
pub fn double(number: f64) -> Value {
    serde_json::Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

/// The shortest decimal that names the number: 4.1, not the 4.099999904632568 of a wider type.
pub fn float(number: f32) -> Value {
    number.to_string().parse().map_or(Value::Null, double)
}

/// The time as RFC 3339, so that its unit is known. Where no calendar reaches, a string that is no time.
pub fn time(time: Option<DateTime<Utc>>) -> Value {
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    Value::String(time.map_or_else(|| "a time beyond the calendar".into(), text))
}

/// Digits with a decimal point before the last `scale`, from a big-endian two's complement. Beyond 128 bits or 100
/// decimals it is no number that anything here reads.
pub fn decimal(unscaled: &[u8], scale: usize) -> Value {
    if unscaled.len() > 16 || scale > 100 {
        return json!({"decimal_bytes": unscaled.len()});
    }
    let is_negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if is_negative { 0xff } else { 0 }; 16];
    whole[16 - unscaled.len()..].copy_from_slice(unscaled);
    let number = i128::from_be_bytes(whole);
    let digits = format!("{:0width$}", number.unsigned_abs(), width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    let sign = if is_negative { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    Value::String(format!("{sign}{integer}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_out() {
        for (unscaled, scale, expected) in [
            (&[0x01, 0xc2][..], 2, "4.50"),
            (&[0xff], 0, "-1"),
            (&[0xff], 3, "-0.001"),
            (&[], 2, "0.00"),
            (&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(decimal(unscaled, scale), Value::from(expected));
        }
        assert!(decimal(&[1; 17], 2).is_object());
        assert!(decimal(&[1], 101).is_object());
    }

    #[test]
    fn numbers_keep_what_people_wrote_and_bytes_are_no_text_by_accident() {
        assert_eq!(float(4.1), json!(4.1));
        assert_eq!(float(f32::NAN), json!("NaN"));
        assert_eq!(double(f64::INFINITY), json!("inf"));
        assert_eq!(bytes("caf\u{e9}".as_bytes()), json!("caf\u{e9}"));
        assert_eq!(bytes(b"caf\xe9"), json!({"bytes": 4}));
        assert_eq!(time(DateTime::from_timestamp_millis(250)), json!("1970-01-01T00:00:00.250Z"));
        assert_eq!(super::super::fields::time_of_text(time(None).as_str().unwrap()), None);
    }
}
