//! Files that are written whole under a name of their own, and then take the place of another in one step.

#[cfg(any(feature = "file", feature = "filebased"))]
mod exchange;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::crypto::get_random_string;

/// What Python's `tempfile` draws names from.
const CHARS: &str = "abcdefghijklmnopqrstuvwxyz0123456789_";

/// How often a name is drawn anew. Eight characters out of 37 do not collide that often.
const TRIES: usize = 100;

/// For writing. A file that is made so is its owner's alone (mode 0600).
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A file that is removed in the end, unless it was renamed.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    is_renamed: bool,
}

impl Temporary {
    /// An empty one, named as Python's `tempfile` names it: `prefix`, which may be a path, and eight random characters.
    pub(crate) fn new(prefix: impl Into<OsString>) -> io::Result<(File, Self)> {
        let (prefix, mut tries) = (prefix.into(), 0);
        loop {
            let mut path = prefix.clone();
            path.push(get_random_string(8, CHARS).map_err(io::Error::other)?);
            let path = PathBuf::from(path);
            match private().create_new(true).open(&path) {
                Ok(file) => return Ok((file, Self { path, is_renamed: false })),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts it in the place of whatever is at `path`.
    pub(crate) fn rename(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.is_renamed = true;
        Ok(())
    }

    /// Puts it in the place of the file at `path`. Without one nothing happens, and the answer is `false`.
    #[cfg(any(feature = "file", feature = "filebased"))]
    pub(crate) fn exchange(self, path: &Path) -> io::Result<bool> {
        match exchange::exchange(&self.path, path) {
            // What was there is under the temporary name now, and removed with it.
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) if exchange::is_impossible(&error) => match fs::exists(path)? {
                true => self.rename(path).map(|()| true),
                false => Ok(false),
            },
            Err(error) => Err(error),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // If there was an error, that one is to be reported.
            let _ = fs::remove_file(&self.path);
        }
    }
}
