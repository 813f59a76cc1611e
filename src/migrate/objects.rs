//! The peer's views and triggers: which go, which are made, and the check of what their bodies do.

use std::collections::HashSet;

use rusqlite::Connection;

use super::aside::{Aside, drop_object, firing, why_broken};
use super::check::refused;
use super::error::refusal;
use super::said::{Said, carries, is_same};
use super::{Catalog, Error, Mode, Rules};
use crate::model::{ObjectKind, SchemaObject};
use crate::sqlite::authorizer::{Creation, Kind, Names, Refusal, Scratch};
use crate::sqlite::{catalog, ddl, ident};

/// What the peer's views and triggers are compared with.
pub(super) struct Objects<'a> {
    pub(super) conn: &'a Connection,
    pub(super) rules: &'a Rules<'a>,
    pub(super) said: &'a Said,
    pub(super) catalog: &'a Catalog,
}

impl Objects<'_> {
    /// The peer's that this link carries, views first, triggers on views before those on tables (which may fire them).
    pub(super) fn wanted(&self) -> Vec<SchemaObject> {
        let carried = |object: &&SchemaObject| carries(self.rules.kinds, object.kind);
        let mut wanted: Vec<SchemaObject> = self.catalog.objects.iter().filter(carried).cloned().collect();
        wanted.retain(|object| object.kind != ObjectKind::Index);
        let is_table = |object: &SchemaObject| {
            self.catalog.tables.iter().any(|table| table.name.eq_ignore_ascii_case(&object.table))
        };
        wanted.sort_by_key(|object| (object.kind, object.kind == ObjectKind::Trigger && is_table(object)));
        wanted
    }

    /// Drops what the peer dropped or changed, where it is here as the peer had it. Returns what stays, and why.
    pub(super) fn retire(&self) -> Result<Vec<String>, Error> {
        let mut notes = Vec::new();
        for local in catalog::objects(self.conn)?.iter().filter(|local| local.kind != ObjectKind::Index) {
            if !carries(self.rules.kinds, local.kind) {
                continue;
            }
            let said = self.said.object(local);
            let wanted = self.catalog.objects.iter().find(|wanted| is_same(wanted, local));
            let as_said = said.is_some_and(|said| ddl::same_text(&said.sql, &local.sql));
            let (kind, name) = (local.kind.sql(), &local.name);
            match wanted {
                Some(wanted) if ddl::same_text(&wanted.sql, &local.sql) => {}
                Some(_) if as_said => drop_object(self.conn, local)?,
                Some(_) if self.rules.mode == Mode::Forced && self.rules.mirror => {
                    notes.push(format!("{kind} \"{name}\" was changed here; the source's replaced it"));
                    drop_object(self.conn, local)?;
                }
                Some(_) => notes.push(format!("{kind} \"{name}\" differs from the source's and stays as it is here")),
                None if as_said => drop_object(self.conn, local)?,
                None if said.is_some() => {
                    notes.push(format!("{kind} \"{name}\" was dropped at the source, and changed here: it stays"));
                }
                None => {}
            }
        }
        Ok(notes)
    }

    /// Makes what is not here. Returns what does not work here.
    pub(super) fn make(&self, aside: &Aside) -> Result<Vec<String>, Error> {
        let here = catalog::objects(self.conn)?;
        let mut missing = self.wanted();
        missing.retain(|object| {
            let is_new = self.said.object(object).is_none_or(|said| said.sql != object.sql);
            let obeys = self.rules.mode == Mode::Forced && self.rules.mirror;
            let is_due = is_new || obeys || aside.has(object);
            is_due && !here.iter().any(|local| is_same(local, object))
        });
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        self.check(&missing)?;
        let (views, triggers): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|object| object.kind == ObjectKind::View);
        let mut broken = Vec::new();
        for view in &views {
            broken.push(refusal(self.conn.execute(&view.sql, []))?.map(|error| error.to_string()));
        }
        for (view, why) in views.iter().zip(&mut broken) {
            // One that does not work, for want of a table that is not here, is kept as the source has it.
            *why = why.take().map_or_else(|| why_broken(self.conn, view), |why| Ok(Some(why)))?;
        }
        for trigger in &triggers {
            broken.push(self.create_trigger(trigger)?);
        }
        let told = views.iter().chain(&triggers).zip(broken);
        let note = |(object, why): (&SchemaObject, Option<String>)| {
            why.map(|why| format!("{} \"{}\" does not work here ({why})", object.kind.sql(), object.name))
        };
        Ok(told.filter_map(note).collect())
    }

    /// Tries them in a scratch database, and compiles their bodies there, under the authorizer.
    fn check(&self, missing: &[SchemaObject]) -> Result<(), Error> {
        let (scratch, existing) = Scratch::like(self.conn)?;
        let views = self.catalog.objects.iter().filter(|object| object.kind == ObjectKind::View);
        let tables = self.catalog.tables.iter().map(|table| table.name.to_ascii_lowercase());
        let declared: HashSet<String> = tables.chain(views.map(|view| view.name.to_ascii_lowercase())).collect();
        let names = Names { declared, existing };
        for object in missing {
            let (kind, said) = match object.kind {
                ObjectKind::View => (Kind::View, "view"),
                ObjectKind::Trigger | ObjectKind::Index => (Kind::Trigger, "trigger"),
            };
            let table = object.table.to_ascii_lowercase();
            if kind == Kind::Trigger && names.existing.contains(&table) && !names.declared.contains(&table) {
                let action = format!("fire on \"{}\", which is not the peer's", object.table);
                return Err(Error::Denied { kind: said, name: object.name.clone(), action });
            }
            let creation = Creation { kind, name: &object.name, table: &object.table };
            match scratch.create(&creation, &object.sql) {
                Ok(()) | Err(Refusal::Failed(_)) => {}
                Err(denied @ Refusal::Denied(_)) => return Err(refused(said, &object.name, denied)),
            }
        }
        missing.iter().try_for_each(|object| self.compile(&scratch, &names, object))
    }

    fn compile(&self, scratch: &Scratch, names: &Names, object: &SchemaObject) -> Result<(), Error> {
        let sql = match object.kind {
            ObjectKind::View => Some(format!("SELECT * FROM main.{}", ident(&object.name))),
            // One on a view that does not compile does nothing.
            ObjectKind::Trigger => firing(scratch.connection(), object).unwrap_or(None),
            ObjectKind::Index => None,
        };
        match sql.map_or(Ok(()), |sql| scratch.compile(names, &sql)) {
            Err(denied @ Refusal::Denied(_)) => Err(refused(object.kind.sql(), &object.name, denied)),
            // Broken at the source too, or in need of what only the real database has.
            Ok(()) | Err(Refusal::Failed(_)) => Ok(()),
        }
    }

    /// Makes a trigger in the real database; returns why it does not work there. It is left out then, for it would fail
    /// every write of whoever takes this database over.
    fn create_trigger(&self, trigger: &SchemaObject) -> Result<Option<String>, Error> {
        self.conn.execute_batch("SAVEPOINT __cdc_object")?;
        let why = match refusal(self.conn.execute(&trigger.sql, []))? {
            Some(error) => Some(error.to_string()),
            None => why_broken(self.conn, trigger)?,
        };
        let undo = if why.is_some() { "ROLLBACK TO __cdc_object; " } else { "" };
        self.conn.execute_batch(&format!("{undo}RELEASE __cdc_object"))?;
        Ok(why)
    }
}
