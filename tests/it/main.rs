//! The integration tests: one binary, so that it links once.
//!
//! Each module says what it holds. They drive the built program and look at the databases with SQLite itself, never with
//! code of ours where the comparison is what matters (see [`support::oracle`]).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests open databases as an application would, and a panic is how a test fails"
)]

mod bad_input;
mod bad_peer;
mod both_schema;
mod both_ways;
mod cdc;
mod cdc_compare;
mod cdc_crash;
mod cdc_input;
mod cloudquery_values;
mod commands;
mod conflicts;
mod cq_checklist;
mod cq_client;
mod cq_destination;
mod cq_limits;
mod cq_link;
mod cq_node;
mod cq_old;
mod cq_python;
mod cq_server;
mod cq_socket;
mod cq_source;
mod cq_suite;
mod cq_sync;
mod crash;
mod docker;
mod docs;
mod docs_events;
mod doctor;
mod drift;
mod emptied;
mod events;
mod first_contact;
mod hub_links;
mod hub_schema;
mod link_faults;
mod made_again;
mod meeting;
mod old_sqlite;
mod one_sender;
mod orm;
mod promises;
mod property;
mod replay;
mod replay_keys;
mod replication;
mod scripts;
mod seams;
mod support;
mod tidy;
mod transparency;
mod values;
