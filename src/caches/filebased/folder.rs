//! What the file cache does on the disk. All of it blocks.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use super::super::CacheError;
use super::end::End;
use crate::crypto::hex;
use crate::signing::{SigningError, zlib};
use crate::temporary::Temporary;

const SUFFIX: &str = ".djcache";

/// What Python's `tempfile` puts before its names. Django's culling passes such files over.
const TEMPORARY_PREFIX: &str = "tmp";

/// How often an operation that another one crossed is begun anew.
const TRIES: usize = 100;

/// The file name of a key (`FileBasedCache._key_to_file`).
pub(super) fn name(key: &str) -> String {
    hex(&Md5::digest(key)) + SUFFIX
}

/// The folder of a cache.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) max_entries: u64,
    pub(super) cull_frequency: u64,
    /// What a value may inflate to.
    pub(super) max_size: usize,
}

/// What a file holds: the moment of its end, and what follows.
struct Content {
    end: End,
    /// How many bytes that takes.
    end_length: usize,
    bytes: Vec<u8>,
}

impl Content {
    fn read(file: &mut File) -> Result<Self, CacheError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        match End::loads(&bytes) {
            Some((end, end_length)) => Ok(Self { end, end_length, bytes }),
            None => Err(CacheError::Unreadable("the file does not begin with the moment of its end")),
        }
    }

    fn is_over(&self, now: f64) -> bool {
        self.end.0.is_some_and(|end| end < now)
    }

    fn compressed(&self) -> &[u8] {
        &self.bytes[self.end_length..]
    }
}

impl Folder {
    pub(super) fn get(&self, name: &str, now: f64) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.path.join(name);
        let Some(content) = read(&path)? else { return Ok(None) };
        if content.is_over(now) {
            self.take_away_if_over(&path, now)?;
            return Ok(None);
        }
        match zlib::decompress(content.compressed(), self.max_size) {
            Ok(value) => Ok(Some(value)),
            Err(SigningError::TooLarge { .. }) => {
                Err(CacheError::Unreadable("it inflates to more than 16 MiB"))
            }
            Err(_) => Err(CacheError::Unreadable("it does not inflate: the file is damaged or cut off")),
        }
    }

    pub(super) fn set(&self, name: &str, value: &[u8], end: End) -> Result<(), CacheError> {
        self.make_room(name)?;
        self.write(value, end)?.rename(&self.path.join(name))?;
        Ok(())
    }

    pub(super) fn add(&self, name: &str, value: &[u8], end: End, now: f64) -> Result<bool, CacheError> {
        let path = self.path.join(name);
        if read(&path)?.is_some_and(|content| !content.is_over(now)) {
            return Ok(false);
        }
        self.make_room(name)?;
        let temporary = self.write(value, end)?;
        for _ in 0..TRIES {
            match fs::hard_link(&temporary.path, &path) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.take_away_if_over(&path, now)?;
                    // Somebody's live value, or nothing any more.
                    if read(&path)?.is_some_and(|content| !content.is_over(now)) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_many_tries().into())
    }

    pub(super) fn replace(&self, name: &str, value: &[u8], end: End, now: f64) -> Result<bool, CacheError> {
        let path = self.path.join(name);
        if read(&path)?.is_none_or(|content| content.is_over(now)) {
            return Ok(false);
        }
        // No room is made: there are as many files afterwards as before.
        Ok(self.write(value, end)?.exchange(&path)?)
    }

    pub(super) fn delete(&self, name: &str) -> Result<bool, CacheError> {
        Ok(remove(&self.path.join(name))?)
    }

    /// Writes another end before the value. Where it takes as many bytes as the old one, it is written in its place: should
    /// the file have been replaced or deleted meanwhile, that changes nothing. Otherwise (from or to "never") the file is
    /// exchanged for a new one, and a value stored in the microseconds between is lost.
    pub(super) fn touch(&self, name: &str, end: End, now: f64) -> Result<bool, CacheError> {
        let path = self.path.join(name);
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let content = Content::read(&mut file)?;
        if content.is_over(now) {
            return Ok(false);
        }
        let mut bytes = end.dumps();
        if bytes.len() == content.end_length {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&bytes)?;
            return Ok(true);
        }
        bytes.extend_from_slice(content.compressed());
        Ok(self.write_bytes(&bytes)?.exchange(&path)?)
    }

    /// Deletes files if there are `MAX_ENTRIES` (`FileBasedCache._cull`), but not `spared`, which is about to be written.
    fn make_room(&self, spared: &str) -> Result<(), CacheError> {
        let mut names = self.names()?;
        let count = names.len() as u64;
        if count < self.max_entries {
            return Ok(());
        }
        let share = count.checked_div(self.cull_frequency).unwrap_or(count) as usize;
        for name in choose(&mut names, share)?.iter().filter(|name| *name != spared) {
            remove(&self.path.join(name))?;
        }
        Ok(())
    }

    /// The names of all values.
    fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let is_value = name.as_encoded_bytes().ends_with(SUFFIX.as_bytes());
            // Python's `glob` passes hidden files over.
            if is_value && !name.as_encoded_bytes().starts_with(b".") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Deletes the file of a value that is over. Should `set` have stored another one since, that one stays: it is looked
    /// at under a name that nobody else knows, and put back.
    fn take_away_if_over(&self, path: &Path, now: f64) -> Result<(), CacheError> {
        // One at a time: who was late would take away, for a moment, what was added after the first.
        let _alone = self.lock();
        if read(path)?.is_none_or(|content| !content.is_over(now)) {
            return Ok(());
        }
        let (_, taken) = Temporary::new(self.path.join(TEMPORARY_PREFIX))?;
        match fs::rename(path, &taken.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        if read(&taken.path)?.is_some_and(|content| !content.is_over(now)) {
            match fs::hard_link(&taken.path, path) {
                // A third one, which is newer.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => linked?,
            }
        }
        Ok(())
    }

    /// The lock of the folder, until it is dropped; none where the system locks no folders.
    fn lock(&self) -> Option<File> {
        let folder = File::open(&self.path).ok()?;
        folder.lock().ok()?;
        Some(folder)
    }

    fn write(&self, value: &[u8], end: End) -> io::Result<Temporary> {
        let mut bytes = end.dumps();
        bytes.extend(zlib::compress(value));
        self.write_bytes(&bytes)
    }

    fn write_bytes(&self, bytes: &[u8]) -> io::Result<Temporary> {
        self.make()?;
        let (mut file, temporary) = Temporary::new(self.path.join(TEMPORARY_PREFIX))?;
        file.write_all(bytes)?;
        Ok(temporary)
    }

    /// The folder, which may be deleted at any time.
    fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path)
    }
}

/// A whole file, if there is one.
fn read(path: &Path) -> Result<Option<Content>, CacheError> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => Content::read(&mut opened?).map(Some),
    }
}

/// Deletes a file. Returns whether there was one.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// `count` of the names, whichever (`random.sample`).
fn choose(names: &mut [OsString], count: usize) -> io::Result<&[OsString]> {
    let count = count.min(names.len());
    for index in 0..count {
        let random = getrandom::u64().map_err(io::Error::other)?;
        // Slightly more often the first ones, by less than one in 2^40.
        let other = index + (random % (names.len() - index) as u64) as usize;
        names.swap(index, other);
    }
    Ok(&names[..count])
}

fn too_many_tries() -> io::Error {
    io::Error::new(ErrorKind::AlreadyExists, "other processes kept on changing the same file")
}
