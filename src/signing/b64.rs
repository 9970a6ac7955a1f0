//! URL-safe base64 without padding (`django.core.signing.b64_encode` and `b64_decode`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Base64Error;

pub(crate) fn encode(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(data)
}

/// Decodes what Django decodes: text that a strict decoder refuses is read again by CPython's tolerant rules.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    URL_SAFE_NO_PAD.decode(text).or_else(|_| decode_tolerant(text))
}

/// `base64.urlsafe_b64decode(text + padding)`: both alphabets are known, other characters are skipped, and `=` that
/// completes a group ends the text (`binascii.a2b_base64`, not strict).
fn decode_tolerant(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    let padding = b"===".iter().take((4 - text.len() % 4) % 4);
    let mut data = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut group, mut characters, mut pads) = (0u32, 0, 0);
    for byte in text.iter().chain(padding) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                if characters >= 2 {
                    pads += 1;
                    if characters + pads >= 4 {
                        return Ok(data);
                    }
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
            assert_eq!(decode_tolerant(encode(&data).as_bytes()).unwrap(), data);
        }
    }

    #[test]
    fn tolerant_as_cpython() {
        assert_eq!(decode(b"YQ==YQ").unwrap(), b"a");
        assert_eq!(decode(b"YQ=!=").unwrap(), b"a");
        assert_eq!(decode(b"!YWJj!!!").unwrap(), b"abc");
        assert!(matches!(decode(b"Y=Q="), Err(Base64Error::Padding)));
        assert_eq!(decode(b"+/+/").unwrap(), decode(b"-_-_").unwrap());
        assert!(matches!(decode(b"Y"), Err(Base64Error::DataLength)));
        assert!(matches!(decode(b"YQ!!"), Err(Base64Error::Padding)));
        assert_eq!(decode(b"====").unwrap(), b"");
    }
}
