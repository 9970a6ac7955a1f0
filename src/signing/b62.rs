//! Timestamps in base 62 (`django.core.signing.b62_encode` and `b62_decode`).

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `value` in base 62, with a leading `-` when it is negative.
pub(crate) fn encode(value: i64) -> String {
    let mut digits = Vec::with_capacity(12);
    let mut rest = value.unsigned_abs();
    loop {
        digits.push(ALPHABET[(rest % 62) as usize]);
        rest /= 62;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        digits.push(b'-');
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// The number that `text` stands for, however large. `None` where Django fails.
pub(crate) fn decode(text: &str) -> Option<f64> {
    let (digits, sign) = match text.strip_prefix('-') {
        Some(digits) => (digits, -1.0),
        None if text.is_empty() => return None,
        None => (text, 1.0),
    };
    let mut value = 0.0;
    for digit in digits.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == digit)?;
        value = value * 62.0 + digit as f64;
    }
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn round_trip() {
        for value in [0, 1, 61, 62, -1, -62, 1_700_000_000, 1 << 53, i64::MIN] {
            assert_eq!(decode(&encode(value)), Some(value as f64));
        }
    }

    #[test]
    fn as_django() {
        assert_eq!(encode(1_700_000_000), "1r31eq");
        assert_eq!((decode("-"), decode(""), decode("1r2!"), decode("é")), (Some(-0.0), None, None, None));
        assert_eq!(decode(&"z".repeat(200)), Some(f64::INFINITY));
    }
}
