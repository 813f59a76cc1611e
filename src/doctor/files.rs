//! Checks of the file, its folder, and whether SQLite can read it at all.

use super::check::{Check, Findings, Scope, Severity};
use super::facts::{Facts, FileFacts, Opening};
use crate::admin::Standing;
use crate::sqlite::BUSY_TIMEOUT;

/// A WAL below this is none to speak of, however small the database is.
const WAL_BYTES_MIN: u64 = 16 << 20;

/// How many times its database a WAL may be: SQLite starts it over at 4 MB where nothing hinders.
const WAL_TIMES_MAX: u64 = 4;

const NOT_A_DATABASE: Check = Check {
    name: "not_a_database",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "Twinlite reads databases with SQLite itself, which cannot read another file, or an encrypted one.",
    fix: "Check the path; an encrypted database cannot be replicated.",
};
const LOCKED: Check = Check {
    name: "locked",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "With `locking_mode=EXCLUSIVE`, or a write in rollback mode that does not end, nobody else can read or write.",
    fix: "End that transaction; let the application use `locking_mode=NORMAL` (the default), then examine it again.",
};
const HOT_JOURNAL: Check = Check {
    name: "hot_journal",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "A writer crashed in rollback mode: until its journal is rolled back, what the file holds is half a transaction.",
    fix: "Start the application, or open the database once with the sqlite3 shell and read from it; never delete the journal.",
};
const UNREADABLE: Check = Check {
    name: "unreadable",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "What cannot be read cannot be replicated, nor examined any further.",
    fix: "Make the file and its folder readable and writable for the user that runs Twinlite.",
};
const INTEGRITY: Check = Check {
    name: "integrity",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "A damaged database gives wrong rows, or none, to its replica too.",
    fix: "Restore it from a backup, or recover it with `.recover` of the sqlite3 shell; then run `PRAGMA integrity_check`.",
};
const NOT_EXAMINED: Check = Check {
    name: "not_examined",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "Rows of large databases are not read unasked: it takes long, and a reader keeps the WAL from being reused.",
    fix: "Run `twinlite doctor --deep` when the database is quiet.",
};
const NOT_WAL: Check = Check {
    name: "not_wal",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "Outside of WAL mode a reader keeps the application from writing, so Twinlite needs WAL mode.",
    fix: "`twinlite setup` switches it on where nobody else has the database open; see that the application does not set `journal_mode` to something else.",
};
const ENCODING: Check = Check {
    name: "encoding",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "UTF-16 orders text differently, so ranges of keys would mean other rows at the other end.",
    fix: "Make a UTF-8 database of it: `PRAGMA encoding='UTF-8'` in an empty one, then `.dump` and `.read` in the sqlite3 shell.",
};
const UNWRITABLE: Check = Check {
    name: "unwritable",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "Even a reader in WAL mode writes to `-shm`, and SQLite and Twinlite make files beside the database.",
    fix: "Run Twinlite as the application's user or group, and give that write access to these; the folder included.",
};
const NETWORK_FILES: Check = Check {
    name: "network_file_system",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "WAL mode shares memory between processes, and locks of network file systems lie: databases get corrupted.",
    fix: "Move the database to a local file system of the host on which application and Twinlite run.",
};
const GUEST_FILES: Check = Check {
    name: "guest_file_system",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "A folder of FUSE, or one mounted into a virtual machine, often shares neither memory nor locks between kernels.",
    fix: "Use a volume of the same kernel (in Docker: a named volume), unless only processes of this kernel use it.",
};
const WAL_LARGE: Check = Check {
    name: "wal_large",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "Something keeps checkpoints from finishing (a reader that never ends, `wal_autocheckpoint=0`): each read is slower, and the disk fills. Twinlite never checkpoints a source.",
    fix: "Find the connection that keeps a read transaction open, end it, and let the application run `PRAGMA wal_checkpoint(TRUNCATE)`.",
};
const OWNED: Check = Check {
    name: "owner_alive",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "A database has one owner: another one is refused, and commands go through the one that runs.",
    fix: "Nothing, unless another process was to own it: then stop this one first.",
};
const STALE_LOCK: Check = Check {
    name: "stale_lock",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "A Twinlite process ended without cleaning up (killed, or the machine went down). Nobody owns the database now.",
    fix: "Nothing: the next owner takes the file over. If a node should be running, start it.",
};

/// The checks of this group.
pub(super) const CHECKS: &[Check] = &[
    NOT_A_DATABASE,
    LOCKED,
    HOT_JOURNAL,
    UNREADABLE,
    INTEGRITY,
    ENCODING,
    UNWRITABLE,
    NETWORK_FILES,
    GUEST_FILES,
    NOT_WAL,
    WAL_LARGE,
    OWNED,
    STALE_LOCK,
    NOT_EXAMINED,
];

/// Decides.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let name = facts.subject.database.display().to_string();
    let itself = || vec![name.clone()];
    match &facts.opening {
        Opening::Read => {}
        Opening::NotADatabase => {
            findings.note(&NOT_A_DATABASE, "{} is no SQLite database, or an encrypted one", itself());
        }
        Opening::Locked => {
            let seconds = BUSY_TIMEOUT.as_secs();
            findings.note(
                &LOCKED,
                &format!("{{}} is kept locked by another process for {seconds} s and longer"),
                itself(),
            );
        }
        Opening::HotJournal => {
            findings.note(&HOT_JOURNAL, "{} has a journal beside it that must be rolled back", itself());
        }
        Opening::Damaged(said) => findings.note(&INTEGRITY, &format!("{{}} is damaged: {said}"), itself()),
        Opening::Refused(said) => findings.note(&UNREADABLE, &format!("{{}} cannot be read: {said}"), itself()),
    }
    if let Some(content) = &facts.content {
        if !content.damage.is_empty() {
            findings.note(&INTEGRITY, &format!("{{}} is damaged: {}", content.damage.join("; ")), itself());
        }
        if !content.encoding.eq_ignore_ascii_case("UTF-8") {
            findings.note(&ENCODING, &format!("the encoding of {{}} is {}", content.encoding), itself());
        }
        let what = content.unexamined.join(", ");
        if !what.is_empty() {
            findings.note(&NOT_EXAMINED, &format!("not looked for in {{}}: {what}"), itself());
        }
    }
    judge_files(&facts.files, &name, findings);
}

fn judge_files(files: &FileFacts, name: &str, findings: &mut Findings) {
    let itself = || vec![name.to_owned()];
    let unwritable = files.unwritable.iter().map(|path| path.display().to_string()).collect();
    findings.note(&UNWRITABLE, "this user cannot write {}", unwritable);
    match file_system(files.file_system) {
        FileSystem::Local => {}
        FileSystem::Network(kind) => findings.note(&NETWORK_FILES, &format!("{{}} is on {kind}"), itself()),
        FileSystem::Guest(kind) => findings.note(&GUEST_FILES, &format!("{{}} is on {kind}"), itself()),
    }
    if files.is_wal == Some(false) || files.bytes == 0 {
        findings.note(&NOT_WAL, "{} is not in WAL mode", itself());
    }
    let wal = files.wal_bytes.unwrap_or(0);
    if wal > WAL_BYTES_MIN && wal > files.bytes.saturating_mul(WAL_TIMES_MAX) {
        let (wal, bytes) = (wal >> 20, files.bytes >> 20);
        findings.note(&WAL_LARGE, &format!("the WAL of {{}} has {wal} MiB, the database itself {bytes} MiB"), itself());
    }
    match &files.owner {
        Some(Standing::Owned(owner)) => {
            findings.note(&OWNED, &format!("{{}} is owned by the Twinlite process {}", owner.pid), itself());
        }
        Some(Standing::LeftBehind) => {
            findings.note(&STALE_LOCK, "beside {} lies the lock file of an owner that is gone", itself());
        }
        Some(Standing::Free) | None => {}
    }
}

/// What kind of file system it is, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSystem {
    Local,
    Network(&'static str),
    Guest(&'static str),
}

/// By the numbers in Linux' `magic.h`, and those of the drivers that are not there.
fn file_system(number: u64) -> FileSystem {
    match number {
        0x6969 => FileSystem::Network("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => FileSystem::Network("SMB"),
        0x00c3_6400 => FileSystem::Network("Ceph"),
        0x5346_414f | 0x6b41_4653 => FileSystem::Network("AFS"),
        0x7461_636f | 0x0bd0_0bd0 => FileSystem::Network("a cluster file system"),
        0x6573_5546 => FileSystem::Guest("a FUSE file system"),
        0x0102_1997 => FileSystem::Guest("9p, a folder of the virtual machine's host"),
        0x786f_4256 => FileSystem::Guest("a VirtualBox folder of the host"),
        _ => FileSystem::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &FileFacts) -> Vec<&'static str> {
        let mut findings = Findings::new(false);
        judge_files(files, "a.db", &mut findings);
        findings.sorted().into_iter().map(|finding| finding.check).collect()
    }

    #[test]
    fn file_systems_that_share_neither_memory_nor_locks_are_told_by_their_numbers() {
        let on = |file_system| FileFacts { bytes: 4096, is_wal: Some(true), file_system, ..FileFacts::default() };
        // ext4, xfs, btrfs, tmpfs, overlay.
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0] {
            assert!(found(&on(local)).is_empty(), "{local:x}");
        }
        for network in [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400] {
            assert_eq!(found(&on(network)), ["network_file_system"], "{network:x}");
        }
        assert_eq!(found(&on(0x6573_5546)), ["guest_file_system"]);
        assert_eq!(found(&on(0x0102_1997)), ["guest_file_system"]);
    }

    #[test]
    fn a_wal_counts_as_large_beside_a_small_database_only() {
        let with = |bytes, wal| FileFacts { bytes, wal_bytes: Some(wal), is_wal: Some(true), ..FileFacts::default() };
        assert_eq!(found(&with(1 << 20, 17 << 20)), ["wal_large"]);
        assert!(found(&with(1 << 20, 15 << 20)).is_empty());
        assert!(found(&with(10 << 20, 17 << 20)).is_empty());
    }
}
