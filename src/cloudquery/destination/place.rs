//! Which database a `connection_string` names, and whether its client may name it.
//!
//! A path, a `file:` URI or `:memory:`. What a URI says beyond the path is taken apart here and never given to SQLite, so
//! that it cannot choose a VFS, locks or a cache; a parameter that we do not serve is refused by name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::Error;

/// What the process lets its clients name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The folder that all databases must be in, after symbolic links and `..` are resolved; a relative path begins
    /// there. Without one, a client names any file that the process may write.
    pub root: Option<PathBuf>,
    /// Whether to do without a database: nothing is opened, and what would read or write fails.
    pub no_connection: bool,
    /// A node's own database: the only one that may be named, and the one meant where none is.
    pub local: Option<PathBuf>,
}

impl Options {
    /// The file that a connection string names, for who reads it as a source does: it must be there, and a database in
    /// memory has nobody who wrote it.
    ///
    /// # Errors
    /// As [`super::Destination::open`]'s.
    pub fn file(&self, connection_string: &str) -> Result<PathBuf, Error> {
        match Place::of(connection_string, self)? {
            Place::File { path, .. } => Ok(path),
            Place::Memory => {
                Err(Error::Spec("spec: connection_string: a database in memory is no source; name a file".to_owned()))
            }
        }
    }
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory, for as long as the destination is open.
    Memory,
    /// A file, by its path without symbolic links.
    File {
        path: PathBuf,
        /// Whether to make it where it is not there.
        create: bool,
    },
}

impl Place {
    /// The database that a connection string names.
    pub(super) fn of(connection_string: &str, options: &Options) -> Result<Self, Error> {
        if let Some(local) = &options.local {
            return Self::local(connection_string, local, options);
        }
        if connection_string.is_empty() {
            return Err(Error::Spec("spec: connection_string is required".to_owned()));
        }
        Self::named(connection_string, options)
    }

    fn local(connection_string: &str, local: &Path, options: &Options) -> Result<Self, Error> {
        let own = Self::File { path: resolve(local)?, create: false };
        if connection_string.is_empty() {
            return Ok(own);
        }
        let named = Self::named(connection_string, &Options { root: None, ..options.clone() });
        match (named, &own) {
            (Ok(Self::File { path, .. }), Self::File { path: own_path, .. }) if path == *own_path => Ok(own),
            _ => Err(Error::NotPermitted {
                why: "a node takes writes into its own database alone; leave connection_string out, or name that one"
                    .to_owned(),
            }),
        }
    }

    fn named(connection_string: &str, options: &Options) -> Result<Self, Error> {
        let (path, create) = match connection_string.strip_prefix("file:") {
            None if connection_string == ":memory:" => return Ok(Self::Memory),
            None if connection_string.contains('?') => {
                let why = "a path with parameters; write it as a URI, file:PATH?NAME=VALUE";
                return Err(Error::Spec(format!("spec: connection_string: {why}")));
            }
            None => (PathBuf::from(connection_string), true),
            Some(uri) => match Uri::parse(uri).map_err(|why| Error::Spec(format!("spec: connection_string: {why}")))? {
                Uri { memory: true, .. } => return Ok(Self::Memory),
                Uri { path, create, .. } => (path, create),
            },
        };
        let path = match &options.root {
            None => resolve(&path)?,
            Some(root) => resolve_within(root, &path)?,
        };
        Ok(Self::File { path, create })
    }
}

/// A `file:` URI, as SQLite reads it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uri {
    path: PathBuf,
    memory: bool,
    create: bool,
}

impl Uri {
    /// Reads what follows `file:`.
    fn parse(rest: &str) -> Result<Self, String> {
        let rest = rest.split('#').next().unwrap_or_default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match place.strip_prefix("//") {
            None => place,
            Some(with_host) => {
                let (host, _) = with_host.split_once('/').unwrap_or((with_host, ""));
                if !(host.is_empty() || host == "localhost") {
                    return Err(format!("the host {host:?} of a file: URI must be empty or localhost"));
                }
                &with_host[host.len()..]
            }
        };
        let path = decode(path)?;
        let mut uri = Self { memory: path == ":memory:", path: PathBuf::from(path), create: true };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            uri.set(&name.to_string_lossy(), &value.to_string_lossy())?;
        }
        if uri.path.as_os_str().is_empty() && !uri.memory {
            return Err("the file: URI names no file".to_owned());
        }
        Ok(uri)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("mode", "rwc") => self.create = true,
            ("mode", "rw") => self.create = false,
            ("mode", "memory") => self.memory = true,
            ("mode", "ro") => return Err("mode=ro: a destination is written into; use mode=rw or mode=rwc".to_owned()),
            // There is one connection that writes, so there is nothing to share.
            ("cache", "shared" | "private") => {}
            ("mode" | "cache", value) => return Err(format!("{name}={value}: there is no such {name}")),
            (name, _) => return Err(format!("the parameter {name:?} is not supported; leave it out")),
        }
        Ok(())
    }
}

/// Decodes `%41`.
fn decode(text: &str) -> Result<OsString, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let code = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match code {
            Some(0) | None => {
                return Err("a % in a file: URI must be followed by two hexadecimal digits, not 00".to_owned());
            }
            Some(code) => bytes.push(code),
        }
    }
    Ok(OsString::from_vec(bytes))
}

/// The path of a file that may not be there yet, in a folder that is, without symbolic links.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let Some(name) = path.file_name() else {
        let why = format!("{} is a folder, not a database; name the file", path.display());
        return Err(Error::Spec(format!("spec: connection_string: {why}")));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(folder) = folder.canonicalize() else {
        return Err(Error::MissingFolder { folder: folder.to_owned() });
    };
    let file = folder.join(name);
    match file.canonicalize() {
        Ok(file) => Ok(file),
        Err(_) if file.is_symlink() => {
            let why = format!("{} is a symbolic link to nothing", file.display());
            Err(Error::Spec(format!("spec: connection_string: {why}")))
        }
        Err(_) => Ok(file),
    }
}

/// The same, for a file that must be below `root`. Which files are outside is not told.
fn resolve_within(root: &Path, path: &Path) -> Result<PathBuf, Error> {
    let outside = || Error::NotPermitted { why: format!("only files below {} may be named", root.display()) };
    let root = root.canonicalize().map_err(|_| Error::MissingFolder { folder: root.to_owned() })?;
    let path = root.join(path);
    // Whatever is there: a path that says itself that it leaves the root is not looked at.
    if !plain(&path).starts_with(&root) {
        return Err(outside());
    }
    match resolve(&path) {
        Ok(resolved) if resolved.starts_with(&root) => Ok(resolved),
        Ok(_) => Err(outside()),
        Err(error) => Err(error),
    }
}

/// A path with `.` and `..` taken as they are written.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: impl Into<PathBuf>, create: bool) -> Place {
        Place::File { path: path.into(), create }
    }

    fn refusal(connection_string: &str, options: &Options) -> String {
        Place::of(connection_string, options).expect_err(connection_string).to_string()
    }

    #[test]
    fn a_path_a_uri_and_memory_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path().canonicalize().expect("there");
        let text = base.display().to_string();
        let options = Options::default();
        let is = |named: String, place: Place| assert_eq!(Place::of(&named, &options).expect(&named), place, "{named}");
        is(format!("{text}/a.db"), file(base.join("a.db"), true));
        is(format!("file:{text}/a.db"), file(base.join("a.db"), true));
        is(format!("file://{text}/a.db?mode=rw#x"), file(base.join("a.db"), false));
        is(format!("file://localhost{text}/a%20b%3f.db?cache=shared&mode=rwc"), file(base.join("a b?.db"), true));
        is(":memory:".into(), Place::Memory);
        is("file::memory:?cache=shared".into(), Place::Memory);
        is("file:x?mode=memory&cache=private".into(), Place::Memory);
    }

    #[test]
    fn what_we_do_not_serve_is_refused_by_name() {
        let options = Options::default();
        for (named, word) in [
            ("", "required"),
            ("file:", "no file"),
            ("file:a.db?vfs=unix-none", "vfs"),
            ("file:a.db?nolock=1", "nolock"),
            ("file:a.db?_busy_timeout=1", "_busy_timeout"),
            ("file:a.db?mode=ro", "mode=ro"),
            ("file:a.db?mode=x", "mode=x"),
            ("file://host/a.db", "host"),
            ("file:a%0", "hexadecimal"),
            ("file:a%00.db", "hexadecimal"),
            ("a.db?_fk=1", "URI"),
            ("/", "folder"),
            ("/no/such/folder/a.db", "/no/such/folder does not exist; create it"),
        ] {
            let why = refusal(named, &options);
            assert!(why.contains(word) && why.contains("connection_string"), "{named}: {why}");
        }
    }

    #[test]
    fn a_root_is_not_left_by_any_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path().canonicalize().expect("there");
        let root = base.join("root");
        std::fs::create_dir_all(root.join("in")).expect("made");
        std::fs::create_dir(base.join("rooted")).expect("made");
        std::fs::write(base.join("secret.db"), "").expect("made");
        std::os::unix::fs::symlink(&base, root.join("link")).expect("made");
        std::os::unix::fs::symlink(base.join("secret.db"), root.join("link.db")).expect("made");
        std::os::unix::fs::symlink(base.join("nothing.db"), root.join("dangling.db")).expect("made");
        let options = Options { root: Some(root.clone()), ..Options::default() };
        for named in ["in/a.db", "./in/../in/a.db", &format!("{}/in/a.db", root.display())] {
            assert_eq!(Place::of(named, &options).expect(named), file(root.join("in/a.db"), true));
        }
        assert_eq!(Place::of(":memory:", &options).expect("memory"), Place::Memory);
        let outside = format!("{}/secret.db", base.display());
        let beside = format!("{}/rooted/a.db", base.display());
        for named in [
            "../secret.db",
            "in/../../secret.db",
            "link/secret.db",
            "link.db",
            "dangling.db",
            &outside,
            &beside,
            "/no/such/a.db",
            "file:%2e%2e/secret.db",
        ] {
            let why = refusal(named, &options);
            assert!(named == "dangling.db" || why.contains("may be named"), "{named}: {why}");
        }
    }

    #[test]
    fn a_node_offers_its_own_database_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().canonicalize().expect("there").join("own.db");
        std::fs::write(&own, "").expect("made");
        std::os::unix::fs::symlink(&own, folder.path().join("same.db")).expect("made");
        let options = Options { local: Some(own.clone()), ..Options::default() };
        let same = folder.path().join("same.db").display().to_string();
        for named in ["", &same, &format!("file:{}", own.display())] {
            assert_eq!(Place::of(named, &options).expect(named), file(&own, false));
        }
        for named in [":memory:", &format!("{}/other.db", folder.path().display()), "/no/such/a.db"] {
            assert!(refusal(named, &options).contains("its own database"), "{named}");
        }
    }
}
