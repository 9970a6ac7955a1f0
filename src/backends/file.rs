//! Session files as Django's `django.contrib.sessions.backends.file` keeps them: what is done on the disk.
//!
//! A session is a file named `SESSION_COOKIE_NAME` + key, and no reader ever sees half of one: [`create`] makes a whole
//! file if there is none, [`replace`] puts a whole file in the place of another. Where Django leaves an empty
//! placeholder (a session that could not be written), [`claim`] does. What a file holds, and whether it is over, is for
//! the caller to say: nothing here knows a secret key, a clock or a setting.
//!
//! ```
//! use django_sessions::backends::file;
//!
//! # let folder = tempfile::tempdir()?;
//! # let directory = folder.path();
//! let key = "0123456789abcdefghijklmnopqrstuv";
//! let path = directory.join(file::name("sessionid", key).expect("no traversal in this key"));
//!
//! file::create(&path, b"what Codec::encode wrote", false)?;
//! file::claim(&path, false)?; // to be saved, it must still be there
//! file::replace(&path, b"and wrote later", false)?;
//! assert_eq!(file::read(&path)?.contents, b"and wrote later");
//!
//! assert_eq!(file::name("sessionid", "../../etc/passwd"), None);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`FileStore`] (feature `file`) is the engine over these steps.

#[cfg(feature = "file")]
mod manage;
#[cfg(feature = "file")]
mod store;

#[cfg(feature = "file")]
pub use store::FileStore;

use std::fs::{self, File, ReadDir};
use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use crate::session::VALID_KEY_CHARS;
use crate::temporary::{Temporary, private};

/// Django validates keys by their length in characters; a shorter one is no key.
const MIN_KEY_LENGTH: usize = 8;

/// How many names a [`Sweep`] gives to each of its threads, of which it starts one for each core up to [`MAX_THREADS`].
const FILES_A_THREAD: usize = 2048;
const MAX_THREADS: usize = 4;

/// The name of the file of a session, or `None` for a key with other characters than Django's own: such a one could
/// leave the directory. Django raises `InvalidSessionKey`.
///
/// ```
/// use django_sessions::backends::file::name;
/// assert_eq!(name("sessionid", "abcdefgh").as_deref(), Some("sessionidabcdefgh"));
/// assert_eq!(name("sessionid", "a/../../b"), None);
/// ```
pub fn name(prefix: &str, key: &str) -> Option<String> {
    is_valid_key(key.as_bytes()).then(|| format!("{prefix}{key}"))
}

fn is_valid_key(key: &[u8]) -> bool {
    key.iter().all(|byte| VALID_KEY_CHARS.as_bytes().contains(byte))
}

/// A file as it was at one moment: its content belongs to its time.
#[derive(Clone)]
pub struct Stored {
    /// All of it. Empty in a placeholder: a session that was created and never written.
    pub contents: Vec<u8>,
    /// When it was last written. Sessions without an expiry of their own count from here.
    pub modified: SystemTime,
}

/// Reads a session's file.
///
/// ```
/// let missing = django_sessions::backends::file::read("sessionid00000000".as_ref());
/// assert_eq!(missing.err().map(|error| error.kind()), Some(std::io::ErrorKind::NotFound));
/// ```
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no such session, and whatever else the file system says.
pub fn read(path: &Path) -> io::Result<Stored> {
    read_at_most(path, u64::MAX)
}

/// [`ErrorKind::FileTooLarge`] for a file of more than `max_size` bytes, before it is read.
fn read_at_most(path: &Path, max_size: u64) -> io::Result<Stored> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > max_size {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let size = usize::try_from(metadata.len()).map_err(|_| ErrorKind::FileTooLarge)?;
    // A byte more than needed: the read that does not fill it has seen the end. Of a size of 0 the kernel may know
    // better, as of pipes.
    let mut contents = vec![0; size + 1];
    let mut filled = 0;
    loop {
        match file.read(&mut contents[filled..]) {
            Ok(count) => {
                filled += count;
                if count == 0 || (0 < size && size <= filled && filled < contents.len()) {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == contents.len() {
            contents.resize(2 * filled + 4096, 0);
        }
    }
    contents.truncate(filled);
    Ok(Stored { contents, modified: metadata.modified()? })
}

/// Finds out whether the session may be written at all: before a save it must be there, and before a creation
/// (`must_create`) it must not, and then gets an empty file as placeholder.
///
/// ```
/// use std::io::ErrorKind;
/// use django_sessions::backends::file::claim;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessionidabcdefgh");
/// assert_eq!(claim(&path, false).unwrap_err().kind(), ErrorKind::NotFound);
/// claim(&path, true)?;
/// assert_eq!(claim(&path, true).unwrap_err().kind(), ErrorKind::AlreadyExists);
/// claim(&path, false)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::NotFound`] (Django: `UpdateError`), [`ErrorKind::AlreadyExists`] (Django: `CreateError`), and
/// whatever else the file system says.
pub fn claim(path: &Path, must_create: bool) -> io::Result<()> {
    private().create_new(must_create).open(path).map(drop)
}

/// Makes the file of a new session in one step: a reader sees none, or all of it. For the owner alone (mode 0600).
///
/// It becomes visible as a second name of a finished file, which the file system must support. That is quicker than a
/// placeholder that is replaced: ext4 puts the new content on the disk before it replaces a file.
///
/// `fsync` waits until the file, and then its name, are on the disk. Without it a power failure may lose the session,
/// as it may in Django.
///
/// ```
/// use std::io::ErrorKind;
/// use django_sessions::backends::file::create;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessionidabcdefgh");
/// create(&path, b"signed text", false)?;
/// assert_eq!(create(&path, b"another", false).unwrap_err().kind(), ErrorKind::AlreadyExists);
/// assert_eq!(std::fs::read(&path)?, b"signed text");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] if the key is taken, and whatever else the file system says. There is no new file then.
pub fn create(path: &Path, contents: &[u8], fsync: bool) -> io::Result<()> {
    create_with(path, contents, Options { fsync, modified: None })
}

/// How a file is written.
#[derive(Clone, Copy)]
struct Options {
    /// Wait until it is on the disk.
    fsync: bool,
    /// When it says that it was written; now, if that is not given.
    modified: Option<SystemTime>,
}

fn create_with(path: &Path, contents: &[u8], options: Options) -> io::Result<()> {
    let temporary = write_beside(path, contents, options)?;
    fs::hard_link(&temporary.path, path)?;
    if options.fsync {
        sync_directory(path).inspect_err(|_| drop(fs::remove_file(path)))?;
    }
    Ok(())
}

/// Writes a session in one step: a reader sees the old file or the new one, whole. The new one is the owner's alone
/// (mode 0600). When it cannot be written, the old one stays and nothing else is left behind.
///
/// `fsync` is as in [`create`].
///
/// # Errors
/// Whatever the file system says: no space, no permission, a directory that is gone. With `fsync` there may also be an
/// error after the new file is in place, which then is not known to be on the disk.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessionidabcdefgh");
/// django_sessions::backends::file::replace(&path, b"signed text", true)?;
/// assert_eq!(std::fs::read(&path)?, b"signed text");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn replace(path: &Path, contents: &[u8], fsync: bool) -> io::Result<()> {
    replace_with(path, contents, Options { fsync, modified: None })
}

/// As [`replace`], but where no file is (any more), none is made and the answer is `false`.
#[cfg(feature = "file")]
fn replace_existing_with(path: &Path, contents: &[u8], options: Options) -> io::Result<bool> {
    let replaced = write_beside(path, contents, options)?.exchange(path)?;
    if replaced && options.fsync {
        sync_directory(path)?;
    }
    Ok(replaced)
}

fn replace_with(path: &Path, contents: &[u8], options: Options) -> io::Result<()> {
    write_beside(path, contents, options)?.rename(path)?;
    if options.fsync { sync_directory(path) } else { Ok(()) }
}

/// Deletes the file of a session, if there is one.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessionidabcdefgh");
/// # django_sessions::backends::file::claim(&path, true)?;
/// assert!(django_sessions::backends::file::delete(&path)?);
/// assert!(!django_sessions::backends::file::delete(&path)?, "it is gone");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Whatever the file system says, but for a file that is not there: then the answer is `false`.
pub fn delete(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Only POSIX has directories that can be opened and synced.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// A whole file, named as Django names it: `<path>_out_` and eight random characters.
fn write_beside(path: &Path, contents: &[u8], options: Options) -> io::Result<Temporary> {
    let mut prefix = path.as_os_str().to_owned();
    prefix.push("_out_");
    let (mut file, temporary) = Temporary::new(prefix)?;
    file.write_all(contents)?;
    if let Some(modified) = options.modified {
        file.set_modified(modified)?;
    }
    if options.fsync {
        file.sync_all()?;
    }
    Ok(temporary)
}

/// What is to become of a session's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// The session is over: the file is deleted.
    Delete,
    /// It stays, and its key is reported.
    Report,
}

/// What a part of a [`Sweep`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many files were deleted.
    pub deleted: u64,
    /// The keys that got [`Verdict::Report`].
    pub reported: Vec<String>,
}

/// A walk through all session files of a directory, to delete those that are over (`manage.py clearsessions`).
///
/// It goes in parts, so that the caller can stop between them. What cannot be read or deleted is passed over, as in
/// Django: another process may have been there first.
///
/// ```
/// use django_sessions::backends::file::{self, Sweep, Verdict};
///
/// # let folder = tempfile::tempdir()?;
/// # let directory = folder.path();
/// file::replace(&directory.join("sessionidaaaaaaaa"), b"over", false)?;
/// file::replace(&directory.join("sessionidbbbbbbbb"), b"live", false)?;
///
/// let is_over = |stored: &file::Stored| stored.contents == b"over";
/// let mut sweep = Sweep::new(directory, "sessionid")?;
/// let mut deleted = 0;
/// while let Some(part) = sweep.part(|stored| if is_over(stored) { Verdict::Delete } else { Verdict::Keep })? {
///     deleted += part.deleted;
/// }
/// assert_eq!(deleted, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Sweep {
    directory: PathBuf,
    prefix: String,
    entries: ReadDir,
    max_size: u64,
    part_size: usize,
}

impl Sweep {
    /// A walk through the files of `directory` that are named `prefix` + a valid key of at least 8 characters.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn new(directory: &Path, prefix: &str) -> io::Result<Self> {
        Ok(Self {
            directory: directory.into(),
            prefix: prefix.to_owned(),
            entries: fs::read_dir(directory)?,
            max_size: u64::MAX,
            part_size: threads() * FILES_A_THREAD,
        })
    }

    /// Passes over files of more than so many bytes.
    #[cfg(feature = "file")]
    fn set_max_size(&mut self, bytes: u64) {
        self.max_size = bytes;
    }

    /// Looks at so many files in each part.
    #[cfg(feature = "file")]
    fn set_part_size(&mut self, files: usize) {
        self.part_size = files.max(1);
    }

    /// Goes on with the next few thousand files, in several threads if there are cores. `None` at the end.
    ///
    /// # Errors
    /// When the directory cannot be read further.
    pub fn part<F>(&mut self, judge: F) -> io::Result<Option<Swept>>
    where
        F: Fn(&Stored) -> Verdict + Sync,
    {
        let keys = self.keys(self.part_size)?;
        if keys.is_empty() {
            return Ok(None);
        }
        let sweep = |keys: &[String]| self.sweep(keys, &judge);
        let share = keys.len().div_ceil(threads()).max(64);
        let (own, others) = keys.split_at(share.min(keys.len()));
        let mut swept = Swept::default();
        thread::scope(|scope| {
            let others: Vec<_> = others.chunks(share).map(|keys| scope.spawn(move || sweep(keys))).collect();
            swept.add(sweep(own));
            for other in others {
                swept.add(other.join().expect("only the caller's judge can panic"));
            }
        });
        Ok(Some(swept))
    }

    /// Up to `count` keys that have a file.
    fn keys(&mut self, count: usize) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        while keys.len() < count {
            let Some(entry) = self.entries.next().transpose()? else { break };
            // A name that is not Unicode is not one of a session.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(key) = name.strip_prefix(&self.prefix)
                && key.len() >= MIN_KEY_LENGTH
                && is_valid_key(key.as_bytes())
            {
                keys.push(key.to_owned());
            }
        }
        Ok(keys)
    }

    fn sweep<F: Fn(&Stored) -> Verdict>(&self, keys: &[String], judge: &F) -> Swept {
        let mut swept = Swept::default();
        for key in keys {
            let path = self.directory.join(format!("{}{key}", self.prefix));
            let Ok(stored) = read_at_most(&path, self.max_size) else { continue };
            match judge(&stored) {
                Verdict::Keep => {}
                Verdict::Delete => swept.deleted += u64::from(delete(&path).unwrap_or(false)),
                Verdict::Report => swept.reported.push(key.clone()),
            }
        }
        swept
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS)
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.reported.extend(other.reported);
    }
}
