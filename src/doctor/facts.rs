//! What is read once about a database, from the file system; what SQLite says of it is in [`super::content`].

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rustix::fs::{Access, access};

use super::content::{Bounds, Content};
use crate::admin::{self, Standing};
use crate::capture::CaptureOptions;
use crate::sqlite::{self, Company};

/// Bytes of a database's header.
const HEADER_BYTES: usize = 100;

/// Times that a database is read as one that nobody has open, and somebody came. More than once is already rare.
const STILL_TRIES_MAX: usize = 3;

/// `SQLITE_READONLY_ROLLBACK`: a journal must be rolled back, and who only reads cannot.
const READONLY_ROLLBACK: i32 = rusqlite::ffi::SQLITE_READONLY_ROLLBACK;

/// What is to be examined.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The file.
    pub database: PathBuf,
    /// How it is, or is to be, captured. `None`: as it says itself, else by default.
    pub options: Option<CaptureOptions>,
    /// Whether it is said only to receive. One that was set up says so itself.
    pub only_receives: bool,
    /// Whether both sides take, or are to take, writes.
    pub two_way: bool,
    /// Whether the user's triggers fire on what a peer sent.
    pub user_triggers: bool,
}

/// Everything that the checks decide over.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What was examined.
    pub subject: Subject,
    /// What the file system says.
    pub files: FileFacts,
    /// Whether SQLite can read it.
    pub opening: Opening,
    /// What SQLite says; `None` where it cannot read it.
    pub content: Option<Content>,
}

/// What the file system says of a database.
#[derive(Clone, Debug, Default)]
pub struct FileFacts {
    /// Bytes of the database.
    pub bytes: u64,
    /// Bytes of its WAL; `None` where there is none.
    pub wal_bytes: Option<u64>,
    /// Whether the header says that it is in WAL mode; `None` where there is no header, or none that can be read.
    pub is_wal: Option<bool>,
    /// Files and folders that this user cannot write.
    pub unwritable: Vec<PathBuf>,
    /// What kind of file system it is on, as Linux numbers them; 0 elsewhere.
    pub file_system: u64,
    /// Who owns it.
    pub owner: Option<Standing>,
}

/// What came of opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It can be read.
    Read,
    /// It is something else, or encrypted.
    NotADatabase,
    /// Somebody keeps everybody else out.
    Locked,
    /// A journal must be rolled back first.
    HotJournal,
    /// It is damaged, in SQLite's words.
    Damaged(String),
    /// It cannot be read, in SQLite's words.
    Refused(String),
}

impl Facts {
    /// Reads everything. What cannot be read is a fact too.
    pub fn read(subject: &Subject, deep: bool) -> Self {
        let mut tries = 0;
        loop {
            tries += 1;
            let before = state_of(&subject.database);
            // The header is read before SQLite opens the file: closing a file drops the process's locks on it.
            let files = FileFacts::read(&subject.database);
            let still = files.is_wal == Some(true) && files.wal_bytes.is_none() && tries <= STILL_TRIES_MAX;
            let company = if still { Company::None } else { Company::Expected };
            let bounds = Bounds::of(&files, deep);
            let read = sqlite::look(&subject.database, company)
                .and_then(|connection| Content::read(connection, subject, bounds))
                .map_err(|error| opening_of(&error));
            if still && before != state_of(&subject.database) {
                continue;
            }
            let (opening, content) = match read {
                Ok(content) => (Opening::Read, Some(content)),
                Err(opening) => (opening, None),
            };
            return Self { subject: subject.clone(), files, opening, content };
        }
    }
}

/// What changes when somebody opens a database that nobody had open, and writes.
fn state_of(database: &Path) -> (bool, Option<(u64, std::time::SystemTime)>) {
    let of = |metadata: fs::Metadata| Some((metadata.len(), metadata.modified().ok()?));
    (beside(database, "-wal").exists(), fs::metadata(database).ok().and_then(of))
}

fn opening_of(error: &rusqlite::Error) -> Opening {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Opening::NotADatabase,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Opening::Locked,
        Some(ErrorCode::ReadOnly) if extended == Some(READONLY_ROLLBACK) => Opening::HotJournal,
        Some(ErrorCode::DatabaseCorrupt) => Opening::Damaged(sqlite::said(error)),
        _ => Opening::Refused(sqlite::said(error)),
    }
}

impl FileFacts {
    fn read(database: &Path) -> Self {
        let size = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.len());
        let (wal, shm) = (beside(database, "-wal"), beside(database, "-shm"));
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (owner, lock) = match admin::standing(database) {
            Ok(standing) => (Some(standing), None),
            Err(admin::Error::File { path, .. }) => (None, Some(path)),
            Err(_) => (None, None),
        };
        let is_refused = |path: &PathBuf| path.exists() && access(path, Access::WRITE_OK).is_err();
        let needed = [database.to_owned(), folder.to_owned(), wal.clone(), shm];
        Self {
            bytes: size(database).unwrap_or(0),
            wal_bytes: size(&wal),
            is_wal: is_wal(database),
            unwritable: needed.into_iter().filter(is_refused).chain(lock).collect(),
            file_system: file_system(folder),
            owner,
        }
    }
}

/// Bytes 18 and 19 of the header are 2 in WAL mode.
fn is_wal(database: &Path) -> Option<bool> {
    let mut header = [0; HEADER_BYTES];
    File::open(database).and_then(|mut file| file.read_exact(&mut header)).ok()?;
    header.starts_with(b"SQLite format 3\0").then(|| header[18..20] == [2, 2])
}

#[cfg(target_os = "linux")]
fn file_system(folder: &Path) -> u64 {
    // The kernel's numbers have 32 bits; how the C library widens them differs from machine to machine.
    rustix::fs::statfs(folder).map_or(0, |found| (found.f_type.cast_unsigned()) & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
fn file_system(_folder: &Path) -> u64 {
    0
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
