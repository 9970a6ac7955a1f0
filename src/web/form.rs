//! The token in a form's body. What is read of the body is kept, for the handler to read it again.

use percent_encoding::percent_decode;

use crate::contrib::csrf::CSRF_FORM_FIELD;

/// The body holds more than is read for a token: Django's `RequestDataTooBig` or `TooManyFieldsSent`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// How much of a form is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) fields: Option<usize>,
}

/// Takes a form's body piece by piece.
#[derive(Debug)]
pub(crate) struct FormReader {
    kind: Kind,
    limits: Limits,
    body: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    UrlEncoded,
    Multipart(Parts),
}

impl FormReader {
    /// `None` for a body that is no form: it is not read then.
    pub(crate) fn new(content_type: &str, limits: Limits) -> Option<Self> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let kind = match kind.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Kind::UrlEncoded,
            "multipart/form-data" => {
                let boundary = parameter(parameters, "boundary").filter(|boundary| is_boundary(boundary))?;
                Kind::Multipart(Parts::new(&boundary))
            }
            _ => return None,
        };
        Some(Self { kind, limits, body: Vec::new() })
    }

    /// Refuses a length that is said in advance.
    pub(crate) fn expect(&self, length: u64) -> Result<(), TooLarge> {
        let is_too_long = !usize::try_from(length).is_ok_and(|length| length <= self.limits.bytes);
        match self.kind {
            Kind::UrlEncoded if is_too_long => Err(TooLarge),
            Kind::UrlEncoded | Kind::Multipart(_) => Ok(()),
        }
    }

    /// Takes a piece, and says whether more are wanted.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<bool, TooLarge> {
        self.body.extend_from_slice(piece);
        let is_full = self.body.len() > self.limits.bytes;
        match &mut self.kind {
            Kind::UrlEncoded if is_full => Err(TooLarge),
            Kind::UrlEncoded => Ok(true),
            // The rest are files, as a rule, of any size: they are left to the handler.
            Kind::Multipart(parts) => {
                parts.search(&self.body);
                Ok(parts.token.is_none() && !is_full)
            }
        }
    }

    /// The token, if any, and what was read.
    pub(crate) fn finish(self) -> Result<(Option<String>, Vec<u8>), TooLarge> {
        let token = match self.kind {
            Kind::UrlEncoded => url_encoded_token(&self.body, self.limits.fields)?,
            Kind::Multipart(parts) => parts.token,
        };
        Ok((token, self.body))
    }
}

/// As Django has it. To look for a long one in a long body would take long.
fn is_boundary(boundary: &str) -> bool {
    matches!(boundary.len(), 1..=201)
        && boundary.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !boundary.ends_with(' ')
}

/// The last field of that name, as `QueryDict.get` finds it.
fn url_encoded_token(body: &[u8], max_fields: Option<usize>) -> Result<Option<String>, TooLarge> {
    let fields = body.split(|byte| *byte == b'&');
    if max_fields.is_some_and(|max| fields.clone().count() > max) {
        return Err(TooLarge);
    }
    let mut pairs = fields.map(|field| {
        let end = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        (&field[..end], field.get(end + 1..).unwrap_or_default())
    });
    let token = pairs.rfind(|(name, _)| form_text(name) == CSRF_FORM_FIELD);
    Ok(token.map(|(_, value)| form_text(value)))
}

fn form_text(bytes: &[u8]) -> String {
    let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// The parts of a `multipart/form-data` body, as far as it is there.
#[derive(Debug)]
struct Parts {
    delimiter: Vec<u8>,
    /// Where the part that is not whole yet begins, once the first delimiter is found.
    start: Option<usize>,
    /// Up to where there is no further delimiter.
    searched: usize,
    token: Option<String>,
}

impl Parts {
    fn new(boundary: &str) -> Self {
        let delimiter = format!("--{boundary}").into_bytes();
        Self { delimiter, start: None, searched: 0, token: None }
    }

    /// Looks at the parts that have become whole.
    fn search(&mut self, body: &[u8]) {
        while self.token.is_none() {
            let Some(found) = find(&body[self.searched..], &self.delimiter) else {
                // The end may be the beginning of one.
                self.searched = self.searched.max((body.len() + 1).saturating_sub(self.delimiter.len()));
                return;
            };
            let end = self.searched + found;
            self.token = self.start.and_then(|start| token_of(&body[start..end]));
            self.searched = end + self.delimiter.len();
            self.start = Some(self.searched);
        }
    }
}

/// The value of a part, if it is the token's.
fn token_of(part: &[u8]) -> Option<String> {
    let end = find(part, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&part[..end]);
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.to_owned())
    })?;
    let (kind, parameters) = disposition.split_once(';')?;
    let is_field =
        kind.trim().eq_ignore_ascii_case("form-data") && parameter(parameters, "filename").is_none();
    if !is_field || parameter(parameters, "name")? != CSRF_FORM_FIELD {
        return None;
    }
    let value = &part[end + 4..];
    Some(String::from_utf8_lossy(value.strip_suffix(b"\r\n").unwrap_or(value)).into_owned())
}

/// The value of a header's parameter.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(found, _)| found.trim().eq_ignore_ascii_case(name))?;
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(quoted.unwrap_or(value).to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 400, fields: Some(5) };

    fn token(content_type: &str, body: &[u8], piece: usize) -> Result<Option<String>, TooLarge> {
        let Some(mut reader) = FormReader::new(content_type, LIMITS) else { return Ok(None) };
        for piece in body.chunks(piece) {
            if !reader.push(piece)? {
                break;
            }
        }
        let (token, read) = reader.finish()?;
        assert!(body.starts_with(&read), "what was read is what there was");
        Ok(token)
    }

    #[test]
    fn url_encoded() {
        for (body, expected) in [
            ("a=b&csrfmiddlewaretoken=one+%74wo%2&c", Some("one two%2")),
            ("csrfmiddlewaretoken=first&csrfmiddlewaretoken=last", Some("last")),
            ("csrf%6diddlewaretoken", Some("")),
            ("csrfmiddlewaretoken=a=b", Some("a=b")),
            ("xcsrfmiddlewaretoken=a", None),
            ("", None),
        ] {
            for piece in [1, 1000] {
                let kind = "Application/x-www-form-urlencoded; charset=utf-8";
                assert_eq!(token(kind, body.as_bytes(), piece), Ok(expected.map(str::to_owned)), "{body}");
            }
        }
        assert_eq!(token("application/json", b"csrfmiddlewaretoken=a", 9), Ok(None));
        assert_eq!(token("application/x-www-form-urlencoded", b"a&b&c&d&e&f", 9), Err(TooLarge));
        assert_eq!(token("application/x-www-form-urlencoded", &[b'a'; 401], 9), Err(TooLarge));
    }

    /// As Django's `MultiPartParser` has it.
    #[test]
    fn what_is_no_boundary() {
        let is_read = |boundary: &str| {
            FormReader::new(&format!("multipart/form-data; boundary={boundary}"), LIMITS).is_some()
        };
        assert!(is_read("x") && is_read("\"a b\"") && is_read(&"x".repeat(201)));
        for other in ["", "\"x \"", "\u{e9}", "\"a\tb\"", &"x".repeat(202), &"-".repeat(60_000)] {
            assert!(!is_read(other), "{other:.20}");
        }
    }

    #[test]
    fn multipart() {
        let kind = "multipart/form-data; boundary=\"--x\"";
        let field =
            |head: &str, value: &str| format!("----x\r\nContent-Disposition: {head}\r\n\r\n{value}\r\n");
        let file = field("form-data; name=\"a\"; filename=\"b\"", "csrfmiddlewaretoken=no\r\n---x");
        let good = field("form-data; name=\"csrfmiddlewaretoken\"", "yes");
        let as_file = field("form-data; name=\"csrfmiddlewaretoken\"; filename=\"b\"", "no");
        let large = field("form-data; name=\"a\"", &"b".repeat(400));
        for (body, expected) in [
            (format!("{good}{file}----x--\r\n"), Some("yes")),
            (format!("preamble\r\n{file}{good}----x--\r\n"), Some("yes")),
            (format!("{good}{large}----x--\r\n"), Some("yes")),
            (format!("{large}{good}----x--\r\n"), None),
            (format!("{as_file}----x--\r\n"), None),
            (good.clone(), None),
            (String::new(), None),
        ] {
            for piece in [1, 7] {
                assert_eq!(token(kind, body.as_bytes(), piece), Ok(expected.map(str::to_owned)), "{body}");
            }
        }
        assert_eq!(token("multipart/form-data", good.as_bytes(), 9), Ok(None));
    }
}
