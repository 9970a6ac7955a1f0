//! Session files: what readers, other writers and a failing file system see.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use django_sessions::backends::file::{self, Stored, Sweep, Verdict};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessionidabcdefgh");
    (folder, path)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn whatever_is_written_is_read() {
    let (folder, path) = folder();
    for size in [0, 1, 100, 4095, 4096, 65_536, 1_000_000] {
        let contents: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
        file::replace(&path, &contents, false).unwrap();
        assert_eq!(file::read(&path).unwrap().contents, contents);
        assert_eq!(names(folder.path()), ["sessionidabcdefgh"], "no temporary file is left");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn files_that_do_not_know_their_size_are_read_whole() {
    let path = Path::new("/proc/self/maps");
    assert_eq!(fs::metadata(path).unwrap().len(), 0);
    let read = file::read(path).unwrap().contents;
    assert!(read.len() > 1000 && read.ends_with(b"\n"), "{} bytes", read.len());
}

#[test]
#[cfg(unix)]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = folder();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    file::claim(&path, true).unwrap();
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    file::replace(&path, b"x", true).unwrap();
    assert_eq!(mode(), 0o600);
    file::delete(&path).unwrap();
    file::create(&path, b"x", true).unwrap();
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_key_cannot_leave_the_directory() {
    for key in
        ["../abcdefgh", "abc/defgh", "a\\bcdefgh", "abcdefg\0", "ABCDEFGH", "é1234567", "abcdefgh_out_x"]
    {
        assert_eq!(file::name("sessionid", key), None, "{key}");
    }
}

#[test]
fn of_many_creators_one_wins() {
    for _ in 0..50 {
        let (folder, path) = folder();
        let won: usize = thread::scope(|scope| {
            let create = |n: u8| match file::create(&path, &[n], false) {
                Ok(()) => 1,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => 0,
                Err(error) => panic!("{error}"),
            };
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || create(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
        assert_eq!(names(folder.path()), ["sessionidabcdefgh"]);
    }
}

#[test]
fn a_reader_sees_one_whole_file() {
    let (folder, path) = folder();
    file::create(&path, &[0; 50_000], false).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = |own: u8| {
            for size in 0..200 {
                file::replace(&path, &vec![own; 1 + size * 337], false).unwrap();
            }
        };
        let writers: Vec<_> = (1..4).map(|own| scope.spawn(move || writer(own))).collect();
        let reader = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                let read = file::read(&path).unwrap().contents;
                assert!(!read.is_empty() && read.iter().all(|byte| *byte == read[0]));
                assert!(read[0] == 0 || (read.len() - 1).is_multiple_of(337), "{} bytes", read.len());
                count += 1;
            }
            count
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(names(folder.path()), ["sessionidabcdefgh"]);
}

#[test]
fn errors_are_the_file_systems() {
    let (folder, _) = folder();
    let kind = |result: std::io::Result<()>| result.map_err(|error| error.kind());
    let nowhere = folder.path().join("missing/sessionidabcdefgh");
    assert_eq!(kind(file::create(&nowhere, b"x", false)), Err(ErrorKind::NotFound));
    assert_eq!(kind(file::replace(&nowhere, b"x", false)), Err(ErrorKind::NotFound));
    assert_eq!(kind(file::claim(&nowhere, true)), Err(ErrorKind::NotFound));
    assert!(!file::delete(&nowhere).unwrap());
    // A directory has the session's name: the new file cannot take its place, and goes.
    let taken = folder.path().join("sessionidtaken000");
    fs::create_dir(&taken).unwrap();
    assert!(file::replace(&taken, b"x", false).is_err());
    assert!(file::read(&taken).is_err());
    assert_eq!(names(folder.path()), ["sessionidtaken000"]);
}

fn sweep(directory: &Path, judge: impl Fn(&Stored) -> Verdict + Sync) -> (u64, Vec<String>) {
    let mut sweep = Sweep::new(directory, "sessionid").unwrap();
    let (mut deleted, mut reported) = (0, Vec::new());
    while let Some(part) = sweep.part(&judge).unwrap() {
        deleted += part.deleted;
        reported.extend(part.reported);
    }
    reported.sort();
    (deleted, reported)
}

#[test]
fn a_sweep_touches_sessions_only() {
    let (folder, _) = folder();
    let others = [
        "sessionid",
        "sessionid1234567",
        "sessionidshort00_out_abc",
        "sessionidUPPERCASE",
        "other0123456789",
        "sessionid12345678.bak",
    ];
    for name in others {
        fs::write(folder.path().join(name), b"over").unwrap();
    }
    fs::create_dir(folder.path().join("sessioniddirectory")).unwrap();
    let (deleted, reported) = sweep(folder.path(), |_| Verdict::Delete);
    assert_eq!((deleted, reported.len()), (0, 0));
    assert_eq!(names(folder.path()).len(), others.len() + 1);
}

#[test]
fn a_sweep_of_many() {
    let (folder, _) = folder();
    for n in 0..10_000 {
        let verdict = ["keep", "delete", "report"][n % 3];
        fs::write(folder.path().join(format!("sessionid{n:08}")), verdict).unwrap();
    }
    let (deleted, reported) = sweep(folder.path(), |stored| match stored.contents.as_slice() {
        b"keep" => Verdict::Keep,
        b"delete" => Verdict::Delete,
        _ => Verdict::Report,
    });
    assert_eq!(deleted, 3333);
    assert_eq!(reported, (0..10_000).skip(2).step_by(3).map(|n| format!("{n:08}")).collect::<Vec<_>>());
    assert_eq!(names(folder.path()).len(), 6667);
    assert!(Sweep::new(&folder.path().join("missing"), "sessionid").is_err());
}
