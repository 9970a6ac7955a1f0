//! Base64 as CPython's `binascii` and `base64` modules read it, which is what Django relies on.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::{Simd, general_purpose::NO_PAD};

/// Looks at 32 bytes at once where the processor can.
static URL_SAFE_NO_PAD: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(NO_PAD));

/// What is wrong with base64 text, in CPython's two cases. Python: `binascii.Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Base64Error {
    /// One character remains, which holds six bits: less than a byte.
    #[error("the number of data characters cannot be 1 more than a multiple of 4")]
    DataLength,
    /// The last group is not complete.
    #[error("incorrect padding")]
    Padding,
}

/// URL-safe text without padding (`django.core.signing.b64_encode`).
pub(crate) fn urlsafe_encode(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(data)
}

/// The same at the end of `text`.
pub(crate) fn urlsafe_encode_onto(text: &mut String, data: &[u8]) {
    URL_SAFE_NO_PAD.encode_string(data, text);
}

/// Reads what `django.core.signing.b64_decode` reads, which adds the padding that was left out.
pub(crate) fn urlsafe_decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    URL_SAFE_NO_PAD.decode(text).or_else(|_| {
        // Both alphabets are known here: Python translates the URL-safe one into the other first.
        let padding = b"===".iter().take((4 - text.len() % 4) % 4);
        a2b_base64(text.iter().chain(padding).map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        }))
    })
}

/// Padded text in the standard alphabet (`base64.b64encode`).
#[cfg(feature = "legacy")]
pub(crate) fn standard_encode(data: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(data)
}

/// Reads what `base64.b64decode` reads.
#[cfg(feature = "legacy")]
pub(crate) fn standard_decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    base64::engine::general_purpose::STANDARD.decode(text).or_else(|_| a2b_base64(text.iter().copied()))
}

/// `binascii.a2b_base64`, not strict: characters outside the alphabet are skipped, and `=` that completes a group ends
/// the text. Only for text that a strict decoder refused.
fn a2b_base64(text: impl Iterator<Item = u8>) -> Result<Vec<u8>, Base64Error> {
    let mut data = Vec::new();
    let (mut group, mut characters, mut pads) = (0u32, 0, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if characters >= 2 => {
                pads += 1;
                if characters + pads >= 4 {
                    return Ok(data);
                }
                continue;
            }
            _ => continue,
        };
        pads = 0;
        group = group << 6 | u32::from(value);
        characters = (characters + 1) % 4;
        if characters != 1 {
            // Each character after the first of its group completes one more byte.
            let spare_bits = [0, 6, 4, 2][characters];
            data.push((group >> spare_bits) as u8);
        }
    }
    match characters {
        0 => Ok(data),
        1 => Err(Base64Error::DataLength),
        _ => Err(Base64Error::Padding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerant_agrees_with_strict() {
        for length in 0..50u8 {
            let data: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37) ^ 0xa5).collect();
            assert_eq!(
                a2b_base64(base64::engine::general_purpose::STANDARD.encode(&data).bytes()).unwrap(),
                data
            );
        }
    }

    #[test]
    fn tolerant_as_cpython() {
        let decode = |text: &str| urlsafe_decode(text.as_bytes());
        assert_eq!(decode("YQ==YQ").unwrap(), b"a");
        assert_eq!(decode("YQ=!=").unwrap(), b"a");
        assert_eq!(decode("!YWJj!!!").unwrap(), b"abc");
        assert_eq!(decode("====").unwrap(), b"");
        assert_eq!(decode("+/+/"), decode("-_-_"));
        assert_eq!(decode("Y=Q="), Err(Base64Error::Padding));
        assert_eq!(decode("YQ!!"), Err(Base64Error::Padding));
        assert_eq!(decode("Y"), Err(Base64Error::DataLength));
    }
}
