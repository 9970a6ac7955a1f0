//! The grammar: finds where each token of Python's JSON ends, without building anything.

use super::{Error, MAX_DEPTH, MAX_INTEGER_DIGITS};

/// What a value is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Literal(&'static str),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number | Kind::Literal("NaN" | "Infinity" | "-Infinity") => "a number",
            Kind::Literal("null") => "null",
            Kind::Literal(_) => "a boolean",
        }
    }
}

const LITERALS: [&str; 6] = ["true", "false", "null", "NaN", "Infinity", "-Infinity"];

#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) offset: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, offset: 0 }
    }

    pub(crate) fn expected<T>(&self, expected: &'static str) -> Result<T, Error> {
        Err(Error::Syntax { expected, offset: self.offset })
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.offset).copied()
    }

    pub(crate) fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.offset += 1;
        }
    }

    /// Takes `byte`, with white space before it, if it comes next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        let found = self.peek() == Some(byte);
        self.offset += usize::from(found);
        found
    }

    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.skip_whitespace();
        if self.offset == self.data.len() { Ok(()) } else { self.expected("end of text") }
    }

    /// What comes next, with the white space before it taken.
    pub(crate) fn kind(&mut self) -> Result<Kind, Error> {
        self.skip_whitespace();
        let rest = &self.data[self.offset..];
        match rest.first() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'0'..=b'9') => Ok(Kind::Number),
            _ => match LITERALS.into_iter().find(|literal| rest.starts_with(literal.as_bytes())) {
                Some(literal) => Ok(Kind::Literal(literal)),
                None if rest.first() == Some(&b'-') => Ok(Kind::Number),
                None => self.expected("a value"),
            },
        }
    }

    /// The text between the quotes of the string that comes next.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Error> {
        if !self.take(b'"') {
            return self.expected("a string in double quotes");
        }
        let start = self.offset;
        loop {
            self.offset += plain_len(&self.data[self.offset..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return self.expected("an escape in place of a control character"),
                None => return self.expected("the end of the string"),
            }
        }
        self.offset += 1;
        Ok(&self.data[start..self.offset - 1])
    }

    fn escape(&mut self) -> Result<(), Error> {
        match self.data.get(self.offset + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.offset += 2,
            Some(b'u') => match self.data.get(self.offset + 2..self.offset + 6) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => self.offset += 6,
                _ => return self.expected("four hexadecimal digits after \\u"),
            },
            _ => return self.expected("a known escape"),
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let start = self.offset;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.offset += 1;
        }
        self.offset - start
    }

    /// The text of the number that comes next, and whether it is an integer.
    pub(crate) fn number(&mut self) -> Result<(&'a str, bool), Error> {
        let start = self.offset;
        let is_integer = self.skip_number()?;
        let text =
            str::from_utf8(&self.data[start..self.offset]).expect("digits, signs, points and e are ASCII");
        Ok((text, is_integer))
    }

    fn skip_number(&mut self) -> Result<bool, Error> {
        self.offset += usize::from(self.peek() == Some(b'-'));
        let whole = match self.peek() {
            // A leading zero stands alone; what follows it is then found to be out of place.
            Some(b'0') => {
                self.offset += 1;
                1
            }
            _ => self.digits(),
        };
        if whole == 0 {
            return self.expected("a digit");
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            self.offset += 1;
            is_integer = false;
            if self.digits() == 0 {
                return self.expected("a digit after the point");
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.offset += 1;
            is_integer = false;
            self.offset += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return self.expected("a digit in the exponent");
            }
        }
        if is_integer && whole > MAX_INTEGER_DIGITS {
            return Err(Error::IntegerTooLong);
        }
        Ok(is_integer)
    }

    /// The text of the whole value that comes next. Takes no stack, however deep it nests.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], Error> {
        self.skip_whitespace();
        let start = self.offset;
        // The closing bracket of each array and object that is open.
        let mut open: Vec<u8> = Vec::new();
        loop {
            let opened = match self.kind()? {
                Kind::Object => Some(b'}'),
                Kind::Array => Some(b']'),
                kind => {
                    self.scalar(kind)?;
                    None
                }
            };
            if let Some(close) = opened {
                self.offset += 1;
                if open.len() == MAX_DEPTH {
                    return Err(Error::TooDeep { max_depth: MAX_DEPTH });
                }
                if !self.take(close) {
                    open.push(close);
                    if close == b'}' {
                        self.key()?;
                    }
                    continue;
                }
            }
            if !self.next_item(&mut open)? {
                return Ok(&self.data[start..self.offset]);
            }
        }
    }

    /// After a value: closes what ends here. Whether another value follows.
    fn next_item(&mut self, open: &mut Vec<u8>) -> Result<bool, Error> {
        while let Some(&close) = open.last() {
            if self.take(b',') {
                if close == b'}' {
                    self.key()?;
                }
                return Ok(true);
            }
            if !self.take(close) {
                return self.expected("a comma or a closing bracket");
            }
            open.pop();
        }
        Ok(false)
    }

    fn scalar(&mut self, kind: Kind) -> Result<(), Error> {
        match kind {
            Kind::String => self.string().map(drop),
            Kind::Number => self.skip_number().map(drop),
            Kind::Literal(text) => {
                self.offset += text.len();
                Ok(())
            }
            Kind::Object | Kind::Array => unreachable!("opened by the caller"),
        }
    }

    /// The text between the quotes of a key, with the colon behind it taken.
    pub(crate) fn key(&mut self) -> Result<&'a [u8], Error> {
        let key = self.string()?;
        if self.take(b':') { Ok(key) } else { self.expected("a colon") }
    }
}

/// How many bytes come before the next quote, backslash or control character. Eight are looked at together, as long as
/// there are eight.
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The lowest byte that is below `n`, and maybe some above it, has its high bit set (n <= 0x80).
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
    let (words, _) = text.as_chunks::<8>();
    let mut len = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let (quotes, backslashes) = (word ^ (ONES * u64::from(b'"')), word ^ (ONES * u64::from(b'\\')));
        let special = (below(word, 0x20) | below(quotes, 1) | below(backslashes, 1)) & HIGH;
        if special != 0 {
            return len + special.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let is_plain = |byte: &&u8| !matches!(**byte, 0..=0x1f | b'"' | b'\\');
    len + text[len..].iter().take_while(is_plain).count()
}

/// What stands between the quotes of a string, in "generalized UTF-8": UTF-8 in which lone surrogates have the three
/// bytes that their code points would have.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let plain = rest.iter().take_while(|byte| byte.is_ascii() && **byte != b'\\').count();
        output.extend(&rest[..plain]);
        rest = &rest[plain..];
        let Some((&byte, after)) = rest.split_first() else { return output };
        rest = after;
        if byte != b'\\' {
            push_code_point(&mut output, u32::from(byte));
            continue;
        }
        let (&escape, after) = rest.split_first().expect("the scanner saw a whole escape");
        rest = after;
        match escape {
            b'b' => output.push(8),
            b'f' => output.push(12),
            b'n' => output.push(b'\n'),
            b'r' => output.push(b'\r'),
            b't' => output.push(b'\t'),
            b'u' => {
                let unit = code_unit(rest);
                rest = &rest[4..];
                let low = match rest {
                    [b'\\', b'u', digits @ ..] if (0xd800..0xdc00).contains(&unit) => code_unit(digits),
                    _ => 0,
                };
                if (0xdc00..0xe000).contains(&low) {
                    rest = &rest[6..];
                    push_code_point(&mut output, 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
                } else {
                    push_code_point(&mut output, unit);
                }
            }
            other => output.push(other),
        }
    }
}

fn code_unit(digits: &[u8]) -> u32 {
    digits[..4].iter().fold(0, |unit, digit| unit * 16 + char::from(*digit).to_digit(16).expect("scanned"))
}

fn push_code_point(output: &mut Vec<u8>, code_point: u32) {
    match char::from_u32(code_point) {
        Some(c) => output.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        None => output.extend([
            0xe0 | (code_point >> 12) as u8,
            0x80 | (code_point >> 6 & 0x3f) as u8,
            0x80 | (code_point & 0x3f) as u8,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<&[u8], Error> {
        let mut scanner = Scanner::new(text.as_bytes());
        let value = scanner.value()?;
        scanner.end()?;
        Ok(value)
    }

    #[test]
    fn accepts_what_python_accepts() {
        for text in [
            "{}",
            "[]",
            " [ ] ",
            "{\"a\":1}",
            "[1,[2,{\"b\":[]}],3]",
            "NaN",
            "-Infinity",
            "Infinity",
            "-0",
            "0.0",
            "1e5",
            "1E+5",
            "-1.5e-7",
            "\"\\ud800\"",
            "\"\u{7f}\"",
            "\t{ \"a\" : [ 1 , 2 ] }\n",
            "{\"a\":1,\"a\":2}",
            "\"\"",
        ] {
            assert!(scan(text).is_ok(), "{text}: {:?}", scan(text));
        }
    }

    #[test]
    fn refuses_what_python_refuses() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "]",
            "[1,]",
            "{\"a\":1,}",
            "{,}",
            "[,]",
            "{a:1}",
            "{'a':1}",
            "{\"a\"}",
            "{\"a\":}",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "1e+",
            "--1",
            "nan",
            "infinity",
            "-NaN",
            "True",
            "nul",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "\"\u{1}\"",
            "\"\n\"",
            "1 2",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "[[]",
            "{\"a\" 1}",
            "{1:2}",
            "\u{b}1",
            "1\u{0}",
            "[1],",
            "//",
            "\u{feff}1",
        ] {
            assert!(matches!(scan(text), Err(Error::Syntax { .. })), "{text:?}: {:?}", scan(text));
        }
    }

    #[test]
    fn limits() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(scan(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(scan(&nested(MAX_DEPTH + 1)), Err(Error::TooDeep { max_depth: MAX_DEPTH }));
        assert_eq!(scan(&"{\"a\":".repeat(100_000)), Err(Error::TooDeep { max_depth: MAX_DEPTH }));
        assert!(scan(&"9".repeat(MAX_INTEGER_DIGITS)).is_ok());
        assert_eq!(scan(&"9".repeat(MAX_INTEGER_DIGITS + 1)), Err(Error::IntegerTooLong));
        assert!(scan(&format!("1.{}", "9".repeat(10_000))).is_ok());
    }

    #[test]
    fn every_byte_ends_a_string_or_does_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for len in 0..24 {
                for at in 0..len {
                    let mut text = vec![b'a'; len];
                    text[at] = byte;
                    let is_plain = byte >= 0x20 && byte != b'"' && byte != b'\\';
                    assert_eq!(plain_len(&text), if is_plain { len } else { at }, "{text:?}");
                    text[len - 1] = b'"';
                    let expected = if is_plain || at == len - 1 { len - 1 } else { at };
                    assert_eq!(plain_len(&text), expected, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn unescapes() {
        let pairs = [
            (r"a\u00e9\n\/", "aé\n/".as_bytes()),
            (r"\ud83e\udd80", "🦀".as_bytes()),
            (r"\ud83e", b"\xed\xa0\xbe"),
            (r"\udd80\ud83e", b"\xed\xb6\x80\xed\xa0\xbe"),
            (r"\ud83e\ud83e\udd80", b"\xed\xa0\xbe\xf0\x9f\xa6\x80"),
        ];
        for (text, expected) in pairs {
            assert_eq!(unescape(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(unescape(b"\xe9"), "é".as_bytes(), "latin-1");
    }
}
