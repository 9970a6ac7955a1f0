use std::io;
use std::path::PathBuf;

/// Why settings could not be read, or the store that they name not be opened.
///
/// Each sentence names the file or environment, the key, and what to do. None holds a secret.
///
/// ```
/// use django_sessions::settings::{FileFormat, Settings};
///
/// let text = r#"{"version": 1, "secret_key": "x", "session_engin": "db"}"#;
/// let error = Settings::from_str(text, FileFormat::Json).unwrap_err();
/// assert!(error.to_string().ends_with("do you mean \"session_engine\"?"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: the settings file cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The text is not TOML, or not JSON.
    #[error("{origin}: {message}")]
    Syntax {
        /// The file, or `settings`.
        origin: String,
        /// What is wrong, and where.
        message: String,
    },
    /// A value is missing, unknown or wrong.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// The file, `environment` or `settings`.
        origin: String,
        /// The setting, such as `caches.default.location`.
        key: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// This build of the crate lacks what the settings ask for.
    #[error("{what} needs this crate's feature `{feature}`: switch it on in Cargo.toml")]
    Feature {
        /// What the settings ask for.
        what: String,
        /// The feature, or features of which one is needed.
        feature: &'static str,
    },
    /// The store could not be opened.
    #[cfg(feature = "_async")]
    #[error("{what} could not be opened")]
    Open {
        /// What was to be opened, such as `the database default`.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
