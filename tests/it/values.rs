//! Every storage class and every extreme value, in a column of every declared type, arrives as it was: by copy, by insert,
//! by update, and as a key.

use crate::support::{Place, open, oracle::assert_equal, process::replicate_once};

const TYPES: &[&str] = &[
    "",
    "INTEGER",
    "INT",
    "BIGINT",
    "UNSIGNED BIG INT",
    "INT8",
    "TEXT",
    "VARCHAR(10)",
    "CLOB",
    "CHARINT",
    "BLOB",
    "REAL",
    "DOUBLE PRECISION",
    "FLOAT",
    "NUMERIC",
    "DECIMAL(10,5)",
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "TIMESTAMP",
    "JSON",
    "UUID",
    "STRING",
    "FLOATING POINT",
    "ANY",
];

const VALUES: &[&str] = &[
    "NULL",
    "0",
    "1",
    "-1",
    "127",
    "128",
    "-129",
    "32768",
    "2147483648",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "1.0",
    "0.1",
    "1e15",
    "9e999",
    "-9e999",
    "1.7976931348623157e308",
    "5e-324",
    "2.2250738585072014e-308",
    "''",
    "'text'",
    "'1'",
    "'1.0'",
    "' 1'",
    "'0x10'",
    "'ä€👍'",
    "'a' || char(0) || 'b'",
    "CAST(x'ff00fe' AS TEXT)",
    "CAST(x'00' AS TEXT)",
    "x''",
    "x'00'",
    "x'ff'",
    "zeroblob(100000)",
    "'2024-02-30'",
    "'9223372036854775808'",
    "'NaN'",
    "TRUE",
];

#[test]
fn every_value_arrives_as_it_was_in_a_column_of_every_type() {
    let place = Place::new();
    let conn = open(&place.source());
    let columns: Vec<String> = TYPES.iter().enumerate().map(|(at, declared)| format!("c{at} {declared}")).collect();
    let all = |value: &str| vec![value; TYPES.len()].join(", ");
    conn.execute_batch(&format!("CREATE TABLE copied(id INTEGER PRIMARY KEY, {})", columns.join(", "))).unwrap();
    conn.execute_batch(&format!("CREATE TABLE written(id INTEGER PRIMARY KEY, {})", columns.join(", "))).unwrap();
    for value in VALUES {
        conn.execute_batch(&format!("INSERT INTO copied VALUES (NULL, {})", all(value))).unwrap();
    }
    replicate_once(&place.source(), &place.replica());
    for value in VALUES {
        conn.execute_batch(&format!("INSERT INTO written VALUES (NULL, {})", all(value))).unwrap();
    }
    replicate_once(&place.source(), &place.replica());
    for (at, _) in TYPES.iter().enumerate() {
        conn.execute_batch(&format!(
            "UPDATE written SET c{at} = (SELECT c{at} FROM copied WHERE id = (written.id * 7) % 41)"
        ))
        .unwrap();
    }
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

#[test]
fn every_value_arrives_as_a_key_of_every_type() {
    let place = Place::new();
    let conn = open(&place.source());
    for (at, declared) in TYPES.iter().enumerate() {
        conn.execute_batch(&format!(
            "CREATE TABLE r{at}(k {declared} PRIMARY KEY, v); CREATE TABLE w{at}(k {declared} PRIMARY KEY, v) WITHOUT ROWID;
             CREATE TABLE c{at}(a {declared} COLLATE NOCASE, b {declared}, v, PRIMARY KEY(a, b DESC));"
        ))
        .unwrap();
    }
    let write = |values: &[&str], v: usize| {
        for value in values {
            for at in 0..TYPES.len() {
                // `INTEGER PRIMARY KEY` takes nothing but integers, and a key WITHOUT ROWID no NULL.
                let _ = conn.execute_batch(&format!("INSERT OR REPLACE INTO r{at} VALUES ({value}, {v})"));
                let _ = conn.execute_batch(&format!("INSERT OR REPLACE INTO w{at} VALUES ({value}, {v})"));
                let _ = conn.execute_batch(&format!(
                    "INSERT OR REPLACE INTO c{at} VALUES ({value}, 'x', {v}), (1, {value}, {v})"
                ));
            }
        }
    };
    write(&VALUES[..VALUES.len() / 2], 1);
    replicate_once(&place.source(), &place.replica());
    write(VALUES, 2);
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
    for at in 0..TYPES.len() {
        conn.execute_batch(&format!("DELETE FROM r{at} WHERE rowid % 2; DELETE FROM w{at} WHERE length(k) < 4; DELETE FROM c{at} WHERE a IS NULL;")).unwrap();
    }
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}

#[test]
fn a_blob_of_a_hundred_mebibytes_arrives() {
    let place = Place::new();
    let conn = open(&place.source());
    conn.execute_batch("CREATE TABLE a(k TEXT PRIMARY KEY, v); INSERT INTO a VALUES ('copied', zeroblob(20000000))")
        .unwrap();
    replicate_once(&place.source(), &place.replica());
    conn.execute_batch("INSERT INTO a VALUES ('written', zeroblob(104857600)), ('small', 'x')").unwrap();
    replicate_once(&place.source(), &place.replica());
    assert_equal(&place.source(), &place.replica());
}
