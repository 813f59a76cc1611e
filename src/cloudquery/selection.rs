//! Which tables a client asks a source for.
//!
//! In a pattern `*` is any run of characters and everything else is itself; case counts. A pattern that no table
//! matches is an error, for it is mostly a slip. A skipped table takes those below it along; a table below a wanted one
//! is wanted too, unless the client says otherwise; and a table that stands above a wanted one comes with it.

use std::collections::HashSet;

use super::{Error, Table};

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Patterns of tables that are wanted; none means no table.
    pub tables: Vec<String>,
    /// Patterns of tables that are not.
    pub skip_tables: Vec<String>,
    /// Whether a table below a wanted one must be wanted itself.
    pub skip_dependent_tables: bool,
}

impl Wanted {
    /// Every table.
    pub fn everything() -> Self {
        Self { tables: vec!["*".to_owned()], ..Self::default() }
    }

    /// The tables of `all` that are wanted, each once and after its parent.
    ///
    /// # Errors
    /// [`Error::NoMatch`], with the first pattern that matches nothing.
    pub fn select(&self, all: Vec<Table>) -> Result<Vec<Table>, Error> {
        for (key, patterns) in [("tables", &self.tables), ("skip_tables", &self.skip_tables)] {
            let unmatched = patterns.iter().find(|pattern| !all.iter().any(|table| matches(pattern, &table.name)));
            if let Some(pattern) = unmatched {
                return Err(Error::NoMatch { key, pattern: pattern.clone() });
            }
        }
        let order = parents_first(&all);
        let kept = self.kept(&all, &order);
        let mut all: Vec<Option<Table>> = all.into_iter().map(Some).collect();
        let chosen = order.into_iter().filter(|visit| kept.contains(&visit.table));
        Ok(chosen.filter_map(|visit| all[visit.table].take()).collect())
    }

    fn kept(&self, all: &[Table], order: &[Visit]) -> HashSet<usize> {
        let (mut skipped, mut kept) = (HashSet::new(), HashSet::new());
        for visit in order {
            let name = &all[visit.table].name;
            let below_skipped = visit.parent.is_some_and(|parent| skipped.contains(&parent));
            if below_skipped || hit(&self.skip_tables, name) {
                skipped.insert(visit.table);
                continue;
            }
            let below_kept = visit.parent.is_some_and(|parent| kept.contains(&parent)) && !self.skip_dependent_tables;
            if below_kept || hit(&self.tables, name) {
                kept.insert(visit.table);
            }
        }
        // Children stand after their parents: backwards, what a child keeps reaches the top.
        for visit in order.iter().rev() {
            if let (true, Some(parent)) = (kept.contains(&visit.table), visit.parent) {
                kept.insert(parent);
            }
        }
        kept
    }
}

/// A table in the order of a walk: where it is, and where its parent is.
struct Visit {
    table: usize,
    parent: Option<usize>,
}

/// Every table once, each followed by those below it. Of tables with the same name only the first is there.
fn parents_first(all: &[Table]) -> Vec<Visit> {
    let mut named = HashSet::new();
    let unique: Vec<usize> = (0..all.len()).filter(|at| named.insert(all[*at].name.as_str())).collect();
    let parent = |at: usize| unique.iter().copied().find(|other| Some(all[*other].name.as_str()) == all[at].parent());
    let parents: Vec<(usize, Option<usize>)> =
        unique.iter().map(|at| (*at, parent(*at).filter(|parent| parent != at))).collect();
    let (mut order, mut seen) = (Vec::new(), HashSet::new());
    let roots = parents.iter().filter(|(_, parent)| parent.is_none());
    // Tables that are their own ancestors hang below no root: each then begins a walk itself.
    for (root, _) in roots.chain(parents.iter()) {
        let mut waiting = vec![Visit { table: *root, parent: None }];
        while let Some(visit) = waiting.pop() {
            if !seen.insert(visit.table) {
                continue;
            }
            let children = parents.iter().rev().filter(|(_, parent)| *parent == Some(visit.table));
            waiting.extend(children.map(|(child, parent)| Visit { table: *child, parent: *parent }));
            order.push(visit);
        }
    }
    order
}

fn hit(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether a name as a whole matches a pattern, in time proportional to the product of their lengths at worst.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::super::table::schema_keys;
    use super::*;

    fn table(name: &str, parent: &str) -> Table {
        let mut table = Table::new(name, Vec::new());
        table.metadata.insert(schema_keys::DEPENDS_ON, parent);
        table
    }

    fn select(tables: &[&str], skip: &[&str], skip_dependent_tables: bool) -> Result<String, String> {
        let all =
            [("orders", ""), ("lines", "orders"), ("notes", "lines"), ("users", ""), ("a*b", ""), ("lines", "users")];
        let all = all.iter().map(|(name, parent)| table(name, parent)).collect();
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let wanted = Wanted { tables: owned(tables), skip_tables: owned(skip), skip_dependent_tables };
        let chosen = wanted.select(all).map_err(|error| error.to_string())?;
        Ok(chosen.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn tables_are_selected_as_the_sdk_selects_them() {
        for (tables, skip, only, expected) in [
            (&["*"][..], &[][..], false, "orders lines notes users a*b"),
            (&["orders"], &[], false, "orders lines notes"),
            (&["orders"], &[], true, "orders"),
            (&["notes"], &[], true, "orders lines notes"),
            (&["*"], &["lines"], false, "orders users a*b"),
            (&["notes"], &["orders"], false, ""),
            (&["*s"], &["not*"], true, "orders lines users"),
            (&[], &[], false, ""),
        ] {
            assert_eq!(select(tables, skip, only).as_deref(), Ok(expected), "{tables:?} {skip:?} {only}");
        }
    }

    #[test]
    fn a_pattern_without_a_match_is_named() {
        let failed = |tables, skip| select(tables, skip, false).expect_err("no match");
        assert_eq!(failed(&["*", "Users"], &[]), "tables include a pattern Users with no matches");
        assert_eq!(failed(&["*"], &["x*"]), "skip_tables include a pattern x* with no matches");
    }

    #[test]
    fn a_star_is_any_run_of_characters_and_nothing_else_is_special() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("a*a", "aba", true),
            ("*b*", "abc", true),
            ("a*b*c", "a1b2b3c", true),
            ("a**c", "ac", true),
            ("a?c", "abc", false),
            ("[a]", "a", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn tables_that_are_their_own_ancestors_are_still_there_once() {
        let all = vec![table("a", "b"), table("b", "a"), table("c", "c"), table("d", "nobody")];
        let chosen = Wanted::everything().select(all).expect("every table");
        assert_eq!(chosen.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["c", "d", "a", "b"]);
    }
}
