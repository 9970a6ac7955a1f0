//! The way to the login page, as `login_required` and `redirect_to_login` make it.

use crate::contrib::csrf::url::SplitUrl;

/// Name of the parameter that tells the login page where to go on.
pub const REDIRECT_FIELD_NAME: &str = "next";

/// The address of the login page that then leads to `next` (`django.contrib.auth.views.redirect_to_login`), for the header
/// `Location`.
///
/// ```
/// use django_sessions::contrib::auth::redirect_to_login;
///
/// assert_eq!(redirect_to_login("/cart/?a=b c", "/login/"), "/login/?next=/cart/%3Fa%3Db%20c");
/// let url = redirect_to_login("/cart/", "https://id.example/login?tenant=shop&next=/#form");
/// assert_eq!(url, "https://id.example/login?tenant=shop&next=/cart/#form");
/// ```
pub fn redirect_to_login(next: &str, login_url: &str) -> String {
    // Django fails on an address that none of Python's is; here it stays as it is.
    let Some(mut url) = SplitUrl::new(login_url) else { return iri_to_uri(login_url) };
    let mut fields = parse_query(&url.query);
    match fields.iter().position(|(name, _)| name == REDIRECT_FIELD_NAME) {
        Some(first) => {
            fields[first].1 = next.to_owned();
            let mut number = 0;
            fields.retain(|(name, _)| {
                number += 1;
                name != REDIRECT_FIELD_NAME || number == first + 1
            });
        }
        None => fields.push((REDIRECT_FIELD_NAME.to_owned(), next.to_owned())),
    }
    url.query = encode_query(&fields);
    iri_to_uri(&unsplit(&url))
}

/// What `login_required` hands to the login page as `next`: the path, or the whole address if that page is on another site.
#[cfg(all(feature = "_sql", any(feature = "axum", feature = "actix")))]
pub(crate) fn login_redirect(scheme: &str, host: &str, path_and_query: &str, login_url: &str) -> String {
    let path = full_path(path_and_query);
    let is_same = SplitUrl::new(login_url).is_none_or(|login| {
        (login.scheme.is_empty() || login.scheme == scheme)
            && (login.netloc.is_empty() || login.netloc == host)
    });
    match is_same {
        true => redirect_to_login(&path, login_url),
        false => redirect_to_login(&format!("{scheme}://{host}{path}"), login_url),
    }
}

/// `HttpRequest.get_full_path`, which unquotes the path and quotes it again.
#[cfg(all(feature = "_sql", any(feature = "axum", feature = "actix")))]
fn full_path(path_and_query: &str) -> String {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let mut full = String::new();
    for chunk in unquote(path.as_bytes()).utf8_chunks() {
        full.push_str(&quote(chunk.valid().as_bytes(), b"/:@&+$,-_.!~*'()"));
        // What is no UTF-8, Django keeps quoted (`repercent_broken_unicode`), and quotes that again.
        chunk.invalid().iter().for_each(|byte| full.push_str(&format!("%25{byte:02X}")));
    }
    if !query.is_empty() {
        full.push('?');
        full.push_str(&iri_to_uri(query));
    }
    full
}

/// `QueryDict`: names and values in the order in which each name came first.
fn parse_query(query: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let [name, value] = [name, value]
            .map(|text| String::from_utf8_lossy(&unquote(text.replace('+', " ").as_bytes())).into_owned());
        let place =
            fields.iter().rposition(|(present, _)| *present == name).map_or(fields.len(), |last| last + 1);
        fields.insert(place, (name, value));
    }
    fields
}

/// `QueryDict.urlencode(safe="/")`.
fn encode_query(fields: &[(String, String)]) -> String {
    let encode = |text: &str| quote(text.as_bytes(), b"/");
    let fields = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// Python's `urlunsplit`.
fn unsplit(url: &SplitUrl) -> String {
    let mut whole = String::new();
    if !url.scheme.is_empty() {
        whole = format!("{}:", url.scheme);
    }
    let is_of_web =
        matches!(&*url.scheme, "http" | "https") && (url.path.is_empty() || url.path.starts_with('/'));
    if !url.netloc.is_empty() || url.path.starts_with("//") || is_of_web {
        whole.push_str("//");
        whole.push_str(&url.netloc);
        if !url.path.is_empty() && !url.path.starts_with('/') {
            whole.push('/');
        }
    }
    whole.push_str(&url.path);
    for (separator, part) in [('?', &url.query), ('#', &url.fragment)] {
        if !part.is_empty() {
            whole.push(separator);
            whole.push_str(part);
        }
    }
    whole
}

/// `django.utils.encoding.iri_to_uri`: what is quoted already stays.
fn iri_to_uri(iri: &str) -> String {
    quote(iri.as_bytes(), b"/#%[]=:;$&()+,!?*@'~")
}

/// Python's `urllib.parse.quote`.
fn quote(bytes: &[u8], safe: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

/// Python's `urllib.parse.unquote_to_bytes`: a `%` without two digits stays.
fn unquote(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, after @ ..] = rest {
        match (first, digit(after.first()), digit(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
