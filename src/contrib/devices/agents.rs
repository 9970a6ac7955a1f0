//! What a user sees of a `User-Agent` header.

/// The first that is in the header: Edge says that it is Chrome, and Chrome that it is Safari.
const BROWSERS: [(&str, &str); 12] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("python-requests/", "python-requests"),
];

const SYSTEMS: [(&str, &str); 8] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
];

/// Browser and system of a `User-Agent` header, or what is known of the two; the same words as Django's, in English.
///
/// ```
/// use django_sessions::contrib::devices::summarise;
///
/// let agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1";
/// assert_eq!(summarise(agent), "Safari on iPhone");
/// assert_eq!(summarise("curl/8.5.0"), "curl");
/// assert_eq!(summarise(""), "Unknown device");
/// ```
pub fn summarise(agent: &str) -> String {
    let first = |known: &[(&str, &'static str)]| {
        known.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name)
    };
    match (first(&BROWSERS), first(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => "Unknown device".to_owned(),
    }
}

/// Without control characters, and no longer than the column. Django reads headers as latin-1.
pub(super) fn clean(header: &[u8], size: usize) -> String {
    // Of latin-1, Python's `isprintable` refuses controls, the space that does not break, and the soft hyphen.
    let printable = |byte: &u8| match byte {
        0x20..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(*byte),
        _ => ' ',
    };
    let text: String = header.iter().take(4 * size).map(printable).collect();
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(size).collect()
}
