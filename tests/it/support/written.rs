//! An application whose schema and statements a seed chooses.
//!
//! `TWINLITE_CASES=N` runs more of them, `TWINLITE_SEED=S` exactly one. One whose test fails says its seed, and where its
//! statements are.

use rusqlite::Connection;

use super::{
    Place, env_number, open,
    process::setup,
    random::Random,
    schema::Schema,
    statements::{Generator, finish, run},
    table::Table,
};

/// The seeds to run: one from the environment, or as many as asked for.
pub fn seeds(default: u64) -> Vec<u64> {
    match env_number("TWINLITE_SEED", 0) {
        0 => (1..=env_number("TWINLITE_CASES", default)).collect(),
        seed => vec![seed],
    }
}

/// A database at [`Place::source`], the application's connection to it, and what it has written so far.
pub struct Written {
    pub place: Place,
    pub random: Random,
    pub conn: Connection,
    pub schema: Schema,
    /// How many of the user's triggers are made before ours.
    older: usize,
    seed: u64,
    log: Vec<String>,
}

impl Drop for Written {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("twinlite-case-{}.sql", self.seed));
            let _ = std::fs::write(&path, self.log.join(";\n"));
            eprintln!("failed with TWINLITE_SEED={}; its statements are in {}", self.seed, path.display());
        }
    }
}

impl Written {
    /// Its tables, empty, and some of its triggers: one that is older than ours fires after it, a younger one before.
    /// `offset` keeps the tests' histories apart.
    pub fn new(seed: u64, offset: u64) -> Self {
        let (place, mut random) = (Place::new(), Random::new(seed + offset));
        let schema = Schema::random(&mut random);
        let conn = open(&place.source());
        conn.pragma_update(None, "recursive_triggers", random.chance(50)).unwrap();
        conn.pragma_update(None, "foreign_keys", random.chance(60)).unwrap();
        let older = random.below(schema.triggers.len() + 1);
        let mut written = Self { place, random, conn, schema, older, seed, log: Vec::new() };
        let first = [&written.schema.ddl[..], &written.schema.triggers[..older]].concat();
        first.iter().for_each(|sql| written.run(sql));
        written
    }

    fn run(&mut self, sql: &str) {
        self.log.push(match run(&self.conn, sql).error {
            None => sql.to_owned(),
            Some(error) => format!("-- {}\n{sql}", error.replace('\n', " ")),
        });
    }

    /// The rest of the user's triggers. No transaction is open.
    pub fn make_younger_triggers(&mut self) {
        let younger = self.schema.triggers[self.older..].to_vec();
        younger.iter().for_each(|sql| self.run(sql));
    }

    /// Runs random statements; a transaction may be open afterwards.
    pub fn write(&mut self, statements: usize) {
        let tables = Table::read_all(&self.conn);
        for _ in 0..statements {
            let sql = Generator::new(&mut self.random, &tables).next().sql;
            self.run(&sql);
        }
    }

    /// Ends the transaction that may be open.
    pub fn finish(&mut self) {
        self.log.push("-- at rest".to_owned());
        finish(&self.conn);
    }

    /// Captures it in that image mode, which whoever replicates it then keeps.
    pub fn setup(&self, images: &str) {
        setup(&self.place.source(), images);
    }
}
