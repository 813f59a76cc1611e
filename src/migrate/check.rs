//! The check of a table that a peer sent: its DDL is tried in a scratch database, and read back from there.

use super::Error;
use crate::model::{TableDef, TableSchema};
use crate::sqlite::authorizer::{Creation, Kind, Refusal, Scratch};
use crate::sqlite::catalog;

/// A peer's table whose DDL is known to create it and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The table as SQLite understands it: it defines what travels.
    pub schema: TableSchema,
    /// What the peer sent.
    pub def: TableDef,
}

/// Tries a table's DDL and its indexes' in a scratch database, under an authorizer that permits creating exactly them.
///
/// # Errors
/// [`Error::Denied`] where it would do anything else, [`Error::Unusable`] where SQLite refuses it.
pub fn check(def: &TableDef) -> Result<Wanted, Error> {
    let scratch = Scratch::new()?;
    let table = Creation { kind: Kind::Table, name: &def.name, table: &def.name };
    scratch.create(&table, &def.ddl).map_err(|refusal| refused("table", &def.name, refusal))?;
    for index in &def.indexes {
        if !index.table.eq_ignore_ascii_case(&def.name) {
            let action = format!("be on table \"{}\", with which it was not sent", index.table);
            return Err(Error::Denied { kind: "index", name: index.name.clone(), action });
        }
        let creation = Creation { kind: Kind::Index, name: &index.name, table: &def.name };
        scratch.create(&creation, &index.sql).map_err(|refusal| refused("index", &index.name, refusal))?;
    }
    let schema =
        catalog::table(scratch.connection(), &def.name)?.expect("the authorizer let this table alone be created");
    Ok(Wanted { schema, def: def.clone() })
}

/// A refusal of the scratch database as our error.
pub(super) fn refused(kind: &'static str, name: &str, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Denied(action) => Error::Denied { kind, name: name.to_owned(), action },
        Refusal::Failed(source) => Error::Unusable { what: format!("{kind} \"{name}\""), source },
    }
}
