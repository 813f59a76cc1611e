//! Which tables, and which kinds of schema objects, somebody wants.

use globset::{GlobBuilder, GlobMatcher};

/// Tables chosen by globs: those that match `tables` and do not match `skip_tables`. Case does not count, as in SQLite.
#[derive(Clone, Debug)]
pub struct Selection {
    tables: Vec<String>,
    skip: Vec<String>,
    wanted: Vec<GlobMatcher>,
    unwanted: Vec<GlobMatcher>,
    within: Option<Box<Selection>>,
}

impl Selection {
    /// A selection by globs; no `tables` at all means every table.
    ///
    /// # Errors
    /// The glob that does not parse, with why.
    pub fn new(tables: &[String], skip_tables: &[String]) -> Result<Self, globset::Error> {
        let every = ["*".to_owned()];
        let tables = if tables.is_empty() { &every[..] } else { tables };
        Ok(Self {
            tables: tables.to_vec(),
            skip: skip_tables.to_vec(),
            wanted: matchers(tables)?,
            unwanted: matchers(skip_tables)?,
            within: None,
        })
    }

    /// Every table.
    pub fn all() -> Self {
        Self::new(&[], &[]).expect("`*` is a glob")
    }

    /// The tables that this selection and the other one both have.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self { within: Some(Box::new(other)), ..self }
    }

    /// Whether it has the table of that name.
    pub fn has(&self, table: &str) -> bool {
        let hit = |globs: &[GlobMatcher]| globs.iter().any(|glob| glob.is_match(table));
        hit(&self.wanted) && !hit(&self.unwanted) && self.within.as_ref().is_none_or(|other| other.has(table))
    }

    /// The globs it was made of: wanted, unwanted.
    pub fn globs(&self) -> (&[String], &[String]) {
        (&self.tables, &self.skip)
    }
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.globs() == other.globs() && self.within == other.within
    }
}

impl Eq for Selection {}

impl std::hash::Hash for Selection {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.globs().hash(state);
        self.within.hash(state);
    }
}

fn matchers(globs: &[String]) -> Result<Vec<GlobMatcher>, globset::Error> {
    globs.iter().map(|glob| Ok(GlobBuilder::new(glob).case_insensitive(true).build()?.compile_matcher())).collect()
}

/// Which kinds of schema objects travel with the tables (which always do).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaKinds {
    /// Indexes made by CREATE INDEX. Unique ones travel in any case, for they decide what REPLACE displaces.
    pub indexes: bool,
    /// Views.
    pub views: bool,
    /// Triggers of the user's.
    pub triggers: bool,
}

impl SchemaKinds {
    /// All of them: the default one way.
    pub const ALL: Self = Self { indexes: true, views: true, triggers: true };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_had_if_wanted_and_not_skipped() {
        let globs = |list: &[&str]| list.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        let selection = Selection::new(&globs(&["order*", "Users"]), &globs(&["*_tmp"])).expect("globs");
        assert!(selection.has("orders") && selection.has("ORDER_LINES") && selection.has("users"));
        assert!(!selection.has("orders_tmp") && !selection.has("user"));
        let both = selection.clone().within(Selection::new(&globs(&["orders"]), &[]).expect("globs"));
        assert!(both.has("orders") && !both.has("users") && both != selection);
        assert!(Selection::all().has("what ever/this.is"));
    }
}
