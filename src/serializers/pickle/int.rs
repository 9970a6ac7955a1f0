//! Integers of any size: as a pickle holds them (two's complement, the least significant byte first) and as text.

use super::Error;
use crate::serializers::json::MAX_INTEGER_DIGITS;

/// An integer, in the machine's size if it fits.
#[derive(Debug, PartialEq)]
pub(super) enum Int {
    Small(i64),
    /// The shortest two's complement, the least significant byte first.
    Big(Vec<u8>),
}

/// Reads two's complement of any length.
pub(super) fn from_twos_complement(bytes: &[u8]) -> Int {
    let bytes = shortest(bytes);
    match to_i128(bytes).and_then(|value| i64::try_from(value).ok()) {
        Some(small) => Int::Small(small),
        None => Int::Big(bytes.to_vec()),
    }
}

/// The same number without the bytes that only repeat its sign.
pub(super) fn shortest(bytes: &[u8]) -> &[u8] {
    let mut bytes = bytes;
    while let [rest @ .., last] = bytes {
        let sign = rest.last().map_or(0, |byte| if byte & 0x80 == 0 { 0 } else { 0xff });
        if *last != sign {
            break;
        }
        bytes = rest;
    }
    bytes
}

fn is_negative(bytes: &[u8]) -> bool {
    bytes.last().is_some_and(|byte| byte & 0x80 != 0)
}

/// The number, if it fits.
pub(super) fn to_i128(bytes: &[u8]) -> Option<i128> {
    if bytes.len() > 16 {
        return None;
    }
    let mut whole = [if is_negative(bytes) { 0xff } else { 0 }; 16];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i128::from_le_bytes(whole))
}

/// The number, if it fits.
pub(super) fn to_u128(bytes: &[u8]) -> Option<u128> {
    match bytes {
        [low @ .., 0] if low.len() <= 16 => {
            let mut whole = [0; 16];
            whole[..low.len()].copy_from_slice(low);
            Some(u128::from_le_bytes(whole))
        }
        _ => to_i128(bytes).and_then(|value| u128::try_from(value).ok()),
    }
}

/// The shortest two's complement of `value`.
pub(super) fn from_i128(value: i128) -> Vec<u8> {
    shortest(&value.to_le_bytes()).to_vec()
}

/// The shortest two's complement of `value`.
pub(super) fn from_u128(value: u128) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.push(0);
    shortest(&bytes).to_vec()
}

/// Changes the sign.
fn negate(bytes: &mut Vec<u8>) {
    bytes.push(if is_negative(bytes) { 0xff } else { 0 });
    let mut carry = true;
    for byte in bytes.iter_mut() {
        (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
    }
    bytes.truncate(shortest(bytes).len());
}

/// The decimal digits, as Python's `repr`.
///
/// # Errors
/// [`Error::IntegerTooLong`], as Python raises `ValueError`.
pub(super) fn to_decimal(bytes: &[u8]) -> Result<String, Error> {
    if let Some(small) = to_i128(bytes) {
        return Ok(small.to_string());
    }
    // 4300 digits take 1786 bytes, and 9 digits a group of less than 4 bytes.
    if bytes.len() > MAX_INTEGER_DIGITS * 5 / 12 + 2 {
        return Err(Error::IntegerTooLong);
    }
    let mut magnitude = bytes.to_vec();
    if is_negative(bytes) {
        negate(&mut magnitude);
    }
    let mut groups: Vec<u32> = Vec::new();
    for byte in magnitude.iter().rev() {
        multiply_add(&mut groups, 1_000_000_000, 256, u32::from(*byte));
    }
    let mut text = String::from(if is_negative(bytes) { "-" } else { "" });
    let sign = text.len();
    text.push_str(&groups.pop().unwrap_or(0).to_string());
    groups.iter().rev().for_each(|group| text.push_str(&format!("{group:09}")));
    if text.len() - sign > MAX_INTEGER_DIGITS { Err(Error::IntegerTooLong) } else { Ok(text) }
}

/// `number * factor + add` in place; a number is its digits to `base`, the least significant first.
fn multiply_add(number: &mut Vec<u32>, base: u64, factor: u32, add: u32) {
    let mut carry = u64::from(add);
    for digit in number.iter_mut() {
        carry += u64::from(*digit) * u64::from(factor);
        *digit = (carry % base) as u32;
        carry /= base;
    }
    if carry > 0 {
        number.push(carry as u32);
    }
}

/// Reads decimal digits with an optional minus, which JSON has.
///
/// # Errors
/// [`Error::IntegerTooLong`], as Python raises `ValueError`.
pub(super) fn from_decimal(text: &str) -> Result<Int, Error> {
    if let Ok(small) = text.parse() {
        return Ok(Int::Small(small));
    }
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.len() > MAX_INTEGER_DIGITS {
        return Err(Error::IntegerTooLong);
    }
    Ok(from_digits(digits.bytes().map(|digit| u32::from(digit - b'0')), 10, is_negative))
}

fn from_digits(digits: impl Iterator<Item = u32>, base: u32, is_negative: bool) -> Int {
    let mut words: Vec<u32> = Vec::new();
    for digit in digits {
        multiply_add(&mut words, 1 << 32, base, digit);
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.push(0);
    if is_negative {
        negate(&mut bytes);
    }
    from_twos_complement(&bytes)
}

/// Reads what Python's `int(text, 0)` reads: a base by prefix, underscores between digits, white space around.
///
/// # Errors
/// `None` where Python raises `ValueError`, as it does beyond 4,300 decimal digits. In other bases Python knows no limit;
/// here it is the same.
pub(super) fn from_python(text: &[u8]) -> Option<Int> {
    let text = str::from_utf8(text).ok()?.trim_matches(is_space);
    let (is_negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        _ => (10, text),
    };
    // An underscore may follow a prefix, but not begin the digits.
    let digits = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    if digits.is_empty() || digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let values: Option<Vec<u32>> = digits.chars().filter(|c| *c != '_').map(|c| c.to_digit(base)).collect();
    let values = values.filter(|values| values.len() <= MAX_INTEGER_DIGITS)?;
    // "010" is octal in C and nothing in Python.
    if base == 10 && values.len() > 1 && values[0] == 0 && values.iter().any(|value| *value != 0) {
        return None;
    }
    Some(from_digits(values.into_iter(), base, is_negative))
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Reads what C's `strtol(text, &end, 0)` reads in whole.
pub(super) fn from_c(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?.trim_start_matches(is_space);
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// The nearest float, if it is finite: Python's `float(int)`.
pub(super) fn to_f64(bytes: &[u8]) -> Result<f64, Error> {
    // 309 digits are beyond any float.
    let text = to_decimal(bytes).map_err(|_| Error::IntegerOutOfRange)?;
    let value: f64 = text.parse().expect("decimal digits are a number");
    if value.is_finite() { Ok(value) } else { Err(Error::IntegerOutOfRange) }
}

/// The shortest two's complement of a float without a fraction.
pub(super) fn from_whole_f64(value: f64) -> Option<Vec<u8>> {
    if !value.is_finite() || value.fract() != 0.0 {
        return None;
    }
    let exponent = (value.to_bits() >> 52 & 0x7ff) as usize;
    if exponent < 1023 + 64 {
        return Some(from_i128(value as i128));
    }
    // 53 bits, shifted by what the exponent is beyond them.
    let shift = exponent - 1023 - 52;
    let mantissa = u128::from(value.to_bits() & ((1 << 52) - 1) | 1 << 52) << (shift % 8);
    let mut bytes = vec![0; shift / 8];
    bytes.extend(mantissa.to_le_bytes());
    bytes.push(0);
    if value < 0.0 {
        negate(&mut bytes);
    }
    bytes.truncate(shortest(&bytes).len());
    Some(bytes)
}

/// Reads the decimal index of a memo's place.
pub(super) fn from_c_decimal(text: &[u8]) -> Option<usize> {
    str::from_utf8(text).ok()?.trim_matches(is_space).parse().ok()
}
