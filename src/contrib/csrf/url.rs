//! As much of Python's `urllib.parse.urlsplit` as the check of origins needs, with its leniency.

use std::fmt;
use std::net::Ipv6Addr;

/// A URL in parts. `Display` puts one that has a scheme and a host together again, as `geturl()` does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SplitUrl {
    pub(crate) scheme: String,
    pub(crate) netloc: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) fragment: String,
}

impl SplitUrl {
    /// `None` where Python raises `ValueError`.
    pub(crate) fn new(url: &str) -> Option<Self> {
        let url = url.trim_start_matches(|char: char| char <= ' ');
        let url: String = url.chars().filter(|char| !matches!(char, '\t' | '\r' | '\n')).collect();
        let (scheme, rest) = split_scheme(&url);
        let (netloc, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        if !is_netloc_good(netloc) {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let [netloc, path, query, fragment] = [netloc, path, query, fragment].map(str::to_owned);
        Some(Self { scheme, netloc, path, query, fragment })
    }
}

impl fmt::Display for SplitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.netloc)?;
        if !self.path.is_empty() && !self.path.starts_with('/') {
            f.write_str("/")?;
        }
        f.write_str(&self.path)?;
        if !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        if !self.fragment.is_empty() {
            write!(f, "#{}", self.fragment)?;
        }
        Ok(())
    }
}

fn split_scheme(url: &str) -> (String, &str) {
    match url.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            (scheme.to_ascii_lowercase(), rest)
        }
        _ => (String::new(), url),
    }
}

/// Brackets are in pairs around an IP address, and nothing but a port follows, as Python sees it since 3.12.9 and 3.13.2.
fn is_netloc_good(netloc: &str) -> bool {
    if netloc.contains('[') != netloc.contains(']') {
        return false;
    }
    let host_and_port = netloc.rsplit_once('@').map_or(netloc, |(_, host)| host);
    let Some((before, rest)) = host_and_port.split_once('[') else { return true };
    let Some((address, port)) = rest.split_once(']') else { return false };
    let is_future = address.starts_with(['v', 'V']) && address.contains('.');
    let address = address.split_once('%').map_or(address, |(address, _)| address);
    before.is_empty()
        && (port.is_empty() || port.starts_with(':'))
        && (is_future || address.parse::<Ipv6Addr>().is_ok())
}

/// `django.utils.http.is_same_domain`: a pattern that begins with a dot stands for subdomains as well.
pub(super) fn is_same_domain(host: &str, pattern: &str) -> bool {
    let pattern = pattern.to_lowercase();
    match pattern.strip_prefix('.') {
        _ if pattern.is_empty() => false,
        Some(domain) if host == domain || host.ends_with(&pattern) => true,
        _ => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_hold_an_address_and_stand_alone() {
        for good in
            ["https://[::1]", "https://[::1]:8000/a", "https://user@[fe80::1%25eth0]", "https://[v1.a]"]
        {
            assert!(SplitUrl::new(good).is_some(), "{good}");
        }
        for wrong in ["https://a[::1]", "https://[::1]a", "https://[a]", "https://[::1", "https://]["] {
            assert!(SplitUrl::new(wrong).is_none(), "{wrong}");
        }
    }
}
