//! The three ways in which pickles hold text.

/// Whether these bytes are UTF-8 in which lone surrogates may stand: Python's "surrogatepass".
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || is_text_beyond_ascii(bytes)
}

fn is_text_beyond_ascii(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        match str::from_utf8(rest) {
            Ok(_) => return true,
            Err(error) => rest = &rest[error.valid_up_to()..],
        }
        match rest {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] => rest = after,
            _ => return false,
        }
    }
}

/// Appends a code point, which may be a surrogate.
pub(super) fn push_code_point(output: &mut Vec<u8>, code_point: u32) {
    match char::from_u32(code_point) {
        Some(c) => output.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        None => output.extend([
            0xe0 | (code_point >> 12) as u8,
            0x80 | (code_point >> 6 & 0x3f) as u8,
            0x80 | (code_point & 0x3f) as u8,
        ]),
    }
}

/// Latin-1 as UTF-8.
pub(super) fn from_latin1(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(bytes.len());
    bytes.iter().for_each(|byte| push_code_point(&mut output, u32::from(*byte)));
    output
}

/// The bytes that a text is in latin-1, if it has nothing beyond.
pub(super) fn to_latin1(text: &[u8]) -> Option<Vec<u8>> {
    str::from_utf8(text).ok()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// Python's codec "raw-unicode-escape": latin-1 with `\u` and `\U`.
pub(super) fn raw_unicode_escape(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut output = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some((&escape, after)) = rest.split_first().filter(|_| byte == b'\\') else {
            push_code_point(&mut output, u32::from(byte));
            continue;
        };
        rest = after;
        let digits = match escape {
            b'u' => 4,
            b'U' => 8,
            other => {
                output.push(b'\\');
                push_code_point(&mut output, u32::from(other));
                continue;
            }
        };
        let (code_point, after) = rest
            .split_at_checked(digits)
            .and_then(|(digits, after)| Some((hex(digits)?, after)))
            .ok_or("a cut-off escape of a character")?;
        if code_point > 0x10_ffff {
            return Err("an escape beyond Unicode");
        }
        push_code_point(&mut output, code_point);
        rest = after;
    }
    Ok(output)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, digit| Some(n << 4 | char::from(*digit).to_digit(16)?))
}

/// The bytes that the `repr` of a Python 2 string means, without its quotes.
pub(super) fn unescape(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut output = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            output.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first().ok_or("a backslash at the end of a string")?;
        rest = after;
        match escape {
            b'\n' => {}
            b'\\' | b'\'' | b'"' => output.push(escape),
            b'a' => output.push(7),
            b'b' => output.push(8),
            b't' => output.push(b'\t'),
            b'n' => output.push(b'\n'),
            b'v' => output.push(0x0b),
            b'f' => output.push(0x0c),
            b'r' => output.push(b'\r'),
            b'x' => {
                let (digits, after) = rest.split_at_checked(2).ok_or("a cut-off escape of a byte")?;
                output.push(hex(digits).ok_or("a cut-off escape of a byte")? as u8);
                rest = after;
            }
            b'0'..=b'7' => {
                let more = rest.iter().take(2).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
                let value = rest[..more]
                    .iter()
                    .fold(u32::from(escape - b'0'), |n, digit| n << 3 | u32::from(digit - b'0'));
                output.push(value as u8);
                rest = &rest[more..];
            }
            other => output.extend([b'\\', other]),
        }
    }
    Ok(output)
}

/// Tells `visit` each code point of UTF-8 in which surrogates may stand.
pub(super) fn each_code_point(text: &[u8], mut visit: impl FnMut(u32)) {
    let mut rest = text;
    while !rest.is_empty() {
        let valid = str::from_utf8(rest).map_or_else(|error| error.valid_up_to(), str::len);
        let (plain, after) = rest.split_at(valid);
        str::from_utf8(plain).unwrap_or_default().chars().for_each(|c| visit(u32::from(c)));
        rest = after;
        if let Some((surrogate, after)) = rest.split_at_checked(3) {
            visit(0xd000 | u32::from(surrogate[1] & 0x3f) << 6 | u32::from(surrogate[2] & 0x3f));
            rest = after;
        }
    }
}
