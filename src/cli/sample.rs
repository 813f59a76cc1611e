//! `twinlite sample`: a shop's database, made up from a seed.
//!
//! It holds what replication has to cope with: an INTEGER PRIMARY KEY, a WITHOUT ROWID table with a text key, a composite
//! key, a table without any, unique, partial and NOCASE indexes, text, blobs, reals, NULLs, a view and a trigger. The same
//! seed and size make the same rows; tests and benches use [`generate`] too.

use std::path::Path;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rusqlite::{Connection, Statement};

use super::args::Sample;
use super::{Outcome, Usage, output};
use crate::sqlite::{self, Role};

const SCHEMA: &str = "
CREATE TABLE customers(
  id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL COLLATE NOCASE UNIQUE, name TEXT NOT NULL, address TEXT,
  credit REAL NOT NULL DEFAULT 0, joined_at INTEGER NOT NULL, photo BLOB);
CREATE INDEX customers_name ON customers(name);
CREATE TABLE products(
  sku TEXT PRIMARY KEY, name TEXT NOT NULL, price NUMERIC NOT NULL CHECK(price >= 0), stock INTEGER NOT NULL DEFAULT 0,
  description TEXT, image BLOB) WITHOUT ROWID;
CREATE INDEX products_name ON products(name);
CREATE TABLE orders(
  id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(id), number TEXT NOT NULL,
  placed_at INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'open', total REAL, note TEXT);
CREATE UNIQUE INDEX orders_number ON orders(number);
CREATE INDEX orders_customer ON orders(customer_id, placed_at);
CREATE INDEX orders_open ON orders(placed_at) WHERE status = 'open';
CREATE TABLE lines(
  order_id INTEGER NOT NULL REFERENCES orders(id) ON DELETE CASCADE, line INTEGER NOT NULL,
  sku TEXT NOT NULL REFERENCES products(sku), quantity INTEGER NOT NULL, price NUMERIC NOT NULL,
  PRIMARY KEY(order_id, line));
CREATE INDEX lines_sku ON lines(sku);
CREATE TABLE visits(at INTEGER NOT NULL, customer_id INTEGER, page TEXT, referrer TEXT);
CREATE VIEW open_orders AS
  SELECT o.number, c.email, o.total FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.status = 'open';
CREATE TRIGGER lines_take_stock AFTER INSERT ON lines
  BEGIN UPDATE products SET stock = stock - NEW.quantity WHERE sku = NEW.sku; END;
";

/// What one transaction adds; the file's size is looked at after each.
const CUSTOMERS: i64 = 40;
const PRODUCTS: i64 = 10;
const ORDERS: i64 = 100;
const VISITS: i64 = 100;
const LINES_MAX: i64 = 6;

/// Pages of 4 KiB that the making keeps in memory, so that random inserts into indexes do not read the file again.
const CACHE_PAGES: u32 = 32_768;

/// Any time does, if it is always the same: 2024-01-01, in seconds.
const FIRST_DAY: i64 = 1_704_067_200;

const WORDS: [&str; 24] = [
    "amber", "birch", "copper", "dune", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp", "lantern",
    "maple", "nectar", "ochre", "pebble", "quartz", "river", "saffron", "thistle", "umber", "velvet", "willow",
    "zephyr",
];

/// Runs the command.
///
/// # Errors
/// A file that exists, or cannot be written.
pub fn run(args: &Sample) -> anyhow::Result<Outcome> {
    if args.file.exists() {
        return Err(Usage(format!("{}: exists already; name a new file, or remove it", args.file.display())).into());
    }
    let made = generate(&args.file, args.size, args.seed)?;
    let rows: Vec<String> =
        made.tables.iter().map(|(name, rows)| format!("{name} {}", output::thousands(*rows))).collect();
    output::print(&format!("{}: {}, {}", args.file.display(), output::bytes(made.size_bytes), rows.join(", ")))?;
    Ok(Outcome::Done)
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The file's size.
    pub size_bytes: u64,
    /// Tables with their rows.
    pub tables: Vec<(&'static str, u64)>,
}

/// Makes a shop of about that size (never much larger, at least one transaction's rows) in a new file.
///
/// # Errors
/// SQLite's, or a file that is there already.
pub fn generate(path: &Path, size_bytes: u64, seed: u64) -> anyhow::Result<Made> {
    anyhow::ensure!(!path.exists(), "{}: exists already", path.display());
    let doing = || format!("{}: make a sample database", path.display());
    let connection = sqlite::open(path, Role::Maintainer, true).with_context(doing)?;
    fill(&connection, size_bytes, seed).with_context(doing)
}

fn fill(connection: &Connection, size_bytes: u64, seed: u64) -> rusqlite::Result<Made> {
    // A file that nobody reads yet, and that a failure leaves unfinished anyway, needs no journal and no syncs.
    connection.execute_batch(&format!(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = {CACHE_PAGES};"
    ))?;
    connection.execute_batch(SCHEMA)?;
    let mut shop = Shop::new(connection, seed)?;
    loop {
        connection.execute_batch("BEGIN")?;
        shop.round()?;
        connection.execute_batch("COMMIT")?;
        let size = size_of(connection)?;
        // Another round would end farther from what was asked for than this.
        if size + size / shop.rounds / 2 >= size_bytes {
            let tables = shop.made();
            return Ok(Made { size_bytes: size, tables });
        }
    }
}

fn size_of(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    connection.prepare_cached(sql)?.query_row([], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
}

/// The statements, each prepared once, and how far the shop has grown.
struct Shop<'c> {
    random: StdRng,
    rounds: u64,
    orders: i64,
    lines: u64,
    customer: Statement<'c>,
    product: Statement<'c>,
    order: Statement<'c>,
    line: Statement<'c>,
    visit: Statement<'c>,
    bytes: Vec<u8>,
}

impl<'c> Shop<'c> {
    fn new(connection: &'c Connection, seed: u64) -> rusqlite::Result<Self> {
        Ok(Self {
            random: StdRng::seed_from_u64(seed),
            rounds: 0,
            orders: 0,
            lines: 0,
            customer: connection.prepare("INSERT INTO customers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            product: connection.prepare("INSERT INTO products VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
            order: connection.prepare("INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            line: connection.prepare("INSERT INTO lines VALUES (?1, ?2, ?3, ?4, ?5)")?,
            visit: connection.prepare("INSERT INTO visits VALUES (?1, ?2, ?3, ?4)")?,
            bytes: vec![0; 8 << 10],
        })
    }

    fn done(&self) -> i64 {
        self.rounds.cast_signed()
    }

    fn made(&self) -> Vec<(&'static str, u64)> {
        let each = |rows: i64| rows.unsigned_abs() * self.rounds;
        vec![
            ("customers", each(CUSTOMERS)),
            ("products", each(PRODUCTS)),
            ("orders", self.orders.unsigned_abs()),
            ("lines", self.lines),
            ("visits", each(VISITS)),
        ]
    }

    fn round(&mut self) -> rusqlite::Result<()> {
        let first = self.done() * CUSTOMERS;
        (1..=CUSTOMERS).try_for_each(|at| self.add_customer(first + at))?;
        let first = self.done() * PRODUCTS;
        (1..=PRODUCTS).try_for_each(|at| self.add_product(first + at))?;
        self.rounds += 1;
        (0..ORDERS).try_for_each(|_| self.add_order())?;
        (0..VISITS).try_for_each(|_| self.add_visit())
    }

    fn add_customer(&mut self, id: i64) -> rusqlite::Result<()> {
        let (first, last) = (self.word(), self.word());
        let email = format!("{first}.{last}.{id}@Example.org");
        let address = self.random.random_bool(0.8).then(|| format!("{} {} street", id % 200, self.word()));
        let credit = f64::from(self.random.random_range(-10_000..100_000)) / 100.0;
        let photo = if self.random.random_bool(0.2) { Some(self.blob(3_000)) } else { None };
        let joined = self.time();
        self.customer.execute((id, email, format!("{first} {last}"), address, credit, joined, photo))?;
        Ok(())
    }

    fn add_product(&mut self, number: i64) -> rusqlite::Result<()> {
        let (sku, name) = (sku(number), format!("{} {}", self.word(), self.word()));
        let price = self.cents();
        let stock = self.random.random_range(0..500);
        let description = self.text(80);
        let image = if self.random.random_bool(0.5) { Some(self.blob(6_000)) } else { None };
        self.product.execute((sku, name, price, stock, description, image))?;
        Ok(())
    }

    fn add_order(&mut self) -> rusqlite::Result<()> {
        self.orders += 1;
        let id = self.orders;
        let customer = self.random.random_range(1..=self.done() * CUSTOMERS);
        // Numbers of a real shop do not ascend with its keys: this order is scattered over its index.
        let number = format!("{:08x}-{id}", (id.cast_unsigned().wrapping_mul(0x9e37_79b9)) & 0xffff_ffff);
        let status = ["open", "paid", "sent", "closed", "closed", "closed"][self.random.random_range(0..6)];
        let note = if self.random.random_bool(0.3) { Some(self.text(12)) } else { None };
        let placed = self.time();
        let count = self.random.random_range(1..=LINES_MAX);
        let mut total = 0.0;
        for line in 1..=count {
            let product = self.random.random_range(1..=self.done() * PRODUCTS);
            let (quantity, price) = (self.random.random_range(1..=9), self.cents());
            total += f64::from(quantity) * price;
            self.line.execute((id, line, sku(product), quantity, price))?;
            self.lines += 1;
        }
        self.order.execute((id, customer, number, placed, status, total, note))?;
        Ok(())
    }

    fn add_visit(&mut self) -> rusqlite::Result<()> {
        let known = self.random.random_bool(0.5);
        let customer = known.then(|| self.random.random_range(1..=self.done() * CUSTOMERS));
        let (page, referrer) = (format!("/{}/{}", self.word(), self.word()), self.word());
        let at = self.time();
        self.visit.execute((at, customer, page, known.then_some(referrer)))?;
        Ok(())
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.random.random_range(0..WORDS.len())]
    }

    fn text(&mut self, words_max: usize) -> String {
        let count = self.random.random_range(1..=words_max);
        (0..count).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }

    fn blob(&mut self, bytes_max: usize) -> Vec<u8> {
        let size = self.random.random_range(0..=bytes_max.min(self.bytes.len()));
        self.random.fill_bytes(&mut self.bytes[..size]);
        self.bytes[..size].to_vec()
    }

    fn cents(&mut self) -> f64 {
        f64::from(self.random.random_range(100..50_000)) / 100.0
    }

    fn time(&mut self) -> i64 {
        FIRST_DAY + self.random.random_range(0..365 * 86_400)
    }
}

fn sku(number: i64) -> String {
    format!("SKU-{number:07}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(path: &Path) -> Vec<(String, i64)> {
        let connection = sqlite::open(path, Role::Reader, false).expect("opens");
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
        assert_eq!(check, "ok");
        let broken = connection.prepare("PRAGMA foreign_key_check").expect("prepares").exists([]).expect("runs");
        assert!(!broken, "a foreign key points nowhere");
        let count = |table: &str| {
            let sql = format!(
                "SELECT count(*), total(length(CAST({table} AS TEXT))) FROM (SELECT rowid AS {table} FROM {table})"
            );
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("counts")
        };
        ["customers", "orders", "lines", "visits"].map(|table| (table.to_owned(), count(table))).to_vec()
    }

    #[test]
    fn a_sample_has_the_size_that_was_asked_for_and_its_seeds_rows() {
        let folder = tempfile::tempdir().expect("folder");
        let [a, b, c] = ["a.db", "b.db", "c.db"].map(|name| folder.path().join(name));
        let size = 2_000_000;
        let made = generate(&a, size, 7).expect("makes");
        assert_eq!(made.size_bytes, std::fs::metadata(&a).expect("file").len());
        assert!(made.size_bytes.abs_diff(size) < size / 5, "{made:?}");
        assert_eq!(generate(&b, size, 7).expect("makes"), made);
        generate(&c, size, 8).expect("makes");
        let [a, b, c] = [&a, &b, &c].map(|path| std::fs::read(path).expect("file"));
        assert!(a == b && a != c);
        let said: Vec<_> = made.tables.iter().filter(|(name, _)| *name != "products").collect();
        let held = rows(&folder.path().join("a.db"));
        for ((name, rows), (table, count)) in said.into_iter().zip(held) {
            assert_eq!((*name, rows.cast_signed()), (table.as_str(), count));
        }
    }

    #[test]
    fn a_file_that_exists_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("a.db");
        std::fs::write(&file, "precious").expect("write");
        let error = run(&Sample { file: file.clone(), size: 1, seed: 1 }).expect_err("refused");
        assert!(error.is::<Usage>() && error.to_string().contains("exists already"), "{error}");
        assert_eq!(std::fs::read(&file).expect("read"), b"precious");
    }
}
