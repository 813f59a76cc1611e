//! The fifty sharp edges of CloudQuery's protocol, and what holds each: tests by file and function, or words of a page.
//!
//! | | edge | held by |
//! |---|---|---|
//! | 1 | `:authority` of the CLI on unix sockets | `tests/it/cq_socket.rs::the_cli_s_authority_on_a_unix_socket_is_no_reason_to_refuse_it` `tests/it/cq_python.rs::the_python_sdk_writes_and_reads_over_a_unix_socket` |
//! | 2 | 200 MiB both ways | `tests/it/cq_limits.rs::a_message_of_200_mib_is_held_three_times_at_most_and_a_larger_one_is_refused` `src/cloudquery/server/tests.rs::rows_too_large_for_a_message_are_sent_in_several` |
//! | 3 | every flag of serve; nothing but JSON lines on stdout | `tests/it/cq_socket.rs::log_lines_are_as_the_cli_reads_them` `src/telemetry/plugin_log.rs::a_long_line_is_cut_and_still_json` `src/cli/args.rs::--otel-endpoint-insecure` |
//! | 4 | names of levels | `src/telemetry/plugin_log.rs::lines_are_as_the_cli_reads_them` |
//! | 5 | the socket's path, a stale socket, signals | `tests/it/cq_socket.rs::a_unix_socket_stands_at_its_path_and_is_gone_afterwards` `tests/it/cq_server.rs::a_signal_ends_open_calls_with_what_they_had_committed` |
//! | 6 | discovery lists 3 | `tests/it/cq_server.rs::it_says_who_it_is_before_any_init` |
//! | 7 | a panic fails one call | `src/cloudquery/server/panics.rs::a_panic_is_answered` `src/cloudquery/server/tests.rs::a_source_that_fails_or_panics_fails_its_call_alone` `src/cloudquery/destination/store.rs::a_panic_fails_its_call_and_takes_its_rows_back` |
//! | 8 | Init again, Close or none between | `tests/it/cq_server.rs::init_may_come_again_at_any_time_and_close_ends_what_it_began` |
//! | 9 | a spec of `null`, numbers as floats | `src/cloudquery/destination/spec.rs::nothing_and_null_are_the_defaults` `src/cloudquery/destination/spec.rs::numbers_come_in_every_form` |
//! | 10 | the spec's schema | `src/cloudquery/destination/spec.rs::the_schema_says_the_same` `tests/it/cq_server.rs::it_says_who_it_is_before_any_init` |
//! | 11 | an answer only after the commit | `tests/it/cq_server.rs::each_flush_is_answered_when_everything_before_it_is_committed` `tests/it/cq_limits.rs::a_server_that_is_killed_in_a_write_leaves_no_part_of_a_batch` |
//! | 12 | a failure poisons nothing | `tests/it/cq_server.rs::a_failed_write_says_why_keeps_what_came_before_and_harms_nobody_after_it` `tests/it/cq_destination.rs::a_failed_batch_fails_the_call_leaves_nothing_and_the_next_one_works` |
//! | 13 | a stream that is cut | `tests/it/cq_server.rs::what_a_cut_stream_brought_whole_is_committed` `docs/cloudquery.md::A stream that breaks off` |
//! | 14 | Read and Write within an open Write | `tests/it/cq_server.rs::reads_and_other_writes_go_on_while_a_write_is_open` |
//! | 15 | messages of no known kind | `tests/it/cq_server.rs::unset_messages_empty_records_and_records_of_several_batches_are_taken` `src/cloudquery/proto.rs::newer_fields_have_their_numbers_and_cost_older_clients_nothing` |
//! | 16 | withErrorMessages | `src/cloudquery/proto.rs::newer_fields_have_their_numbers_and_cost_older_clients_nothing` `src/cloudquery/server/tests.rs::a_source_s_tables_and_messages_reach_the_client_in_order` |
//! | 17 | no time to be stale by | `tests/it/cq_destination.rs::stale_is_told_within_one_second_and_by_source` |
//! | 18 | newer fields, WriteStream | `src/cloudquery/proto.rs::newer_fields_have_their_numbers_and_cost_older_clients_nothing` `tests/it/cq_server.rs::a_write_stream_that_ends_with_a_failure_says_so` `docs/cloudquery.md::AssessTables is not` |
//! | 19 | one batch written, any number read | `tests/it/cq_server.rs::unset_messages_empty_records_and_records_of_several_batches_are_taken` `tests/it/cq_suite.rs::clients take one batch of a record` |
//! | 20 | each message's own flags | `tests/it/cq_destination.rs::columns_go_by_name_and_those_not_written_are_reset` |
//! | 21 | flags and nullability | `src/cloudquery/table.rs::a_flag_is_true_where_its_text_is_exactly_true` `src/cloudquery/table.rs::nullability_is_the_field_s_and_only_the_name_must_be_there` |
//! | 22 | extension types by metadata, nested too | `tests/it/cq_suite.rs::insert_all` `tests/it/cloudquery_values.rs::every_fixture_reads_back_as_it_was_sent` |
//! | 23 | their storage; NULL and nothing | `tests/it/cloudquery_values.rs::stored_values_are_those_of_the_official_plugin` `tests/it/cq_destination.rs::null_and_nothing_are_told_apart` |
//! | 24 | columns by name, strangers refused | `tests/it/cq_destination.rs::columns_go_by_name_and_those_not_written_are_reset` `tests/it/cq_destination.rs::a_record_that_does_not_fit_its_table_is_refused_when_it_comes` |
//! | 25 | rows without a migration before them | `tests/it/cq_server.rs::a_failed_write_says_why_keeps_what_came_before_and_harms_nobody_after_it` |
//! | 26 | numbers and times that SQLite has no place for | `tests/it/cloudquery_values.rs::numbers_that_sqlite_has_no_place_for_are_kept` `tests/it/cloudquery_values.rs::values_of_every_type_read_back` `tests/it/cq_destination.rs::a_null_in_a_key_repeats_and_an_integer_key_is_never_made_up` |
//! | 27 | timestamps are not compared as text | `src/cloudquery/destination/instant.rs::fractions_and_zones_count_and_their_spelling_does_not` |
//! | 28 | 64-bit integers in JSON | `tests/it/cloudquery_values.rs::nested_texts_tell_apart_what_go_does_not` `tests/it/cloudquery_values.rs::values_of_every_type_read_back` |
//! | 29 | arrays as they were asked for | `tests/it/cq_suite.rs::insert_all` |
//! | 30 | one table with and without a key | `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` `docs/cloudquery.md::`append` into a table that has a key` |
//! | 31 | changes the right way round | `src/cloudquery/changes.rs::changes_come_in_the_order_and_the_words_of_the_sdk` `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` |
//! | 32 | a removed column stays | `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` `tests/it/cq_server.rs::a_table_may_be_migrated_often_in_one_write` |
//! | 33 | a removed column that was NOT NULL | `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` |
//! | 34 | unique flags | `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` `docs/cloudquery.md::Unique flags make no constraint` |
//! | 35 | the key moved to `_cq_id` | `tests/it/cq_destination.rs::the_key_moves_only_where_rows_fit_it` `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` |
//! | 36 | tables of any declared types | `tests/it/cq_destination.rs::a_table_of_any_declared_types_is_compared_and_never_panics` |
//! | 37 | several migrations of one table | `tests/it/cq_server.rs::a_table_may_be_migrated_often_in_one_write` |
//! | 38 | names in quotes, names in another case | `tests/it/cq_destination.rs::a_table_is_declared_as_the_official_destination_declares_it` `tests/it/cq_destination.rs::where_nothing_differs_nothing_is_touched_forced_or_not` |
//! | 39 | NULL in a key | `tests/it/cq_destination.rs::a_null_in_a_key_repeats_and_an_integer_key_is_never_made_up` `docs/cloudquery.md::equals no other` |
//! | 40 | the rowid as a key | `tests/it/cq_destination.rs::a_null_in_a_key_repeats_and_an_integer_key_is_never_made_up` `tests/it/cq_server.rs::a_table_may_be_migrated_often_in_one_write` |
//! | 41 | stale: strictly before, to the nanosecond, of one source | `tests/it/cq_destination.rs::stale_is_told_within_one_second_and_by_source` |
//! | 42 | a deletion sees the rows before it | `tests/it/cq_destination.rs::a_deletion_sees_the_rows_before_it_and_not_those_after` |
//! | 43 | groups, no groups, empty ones, NULL | `tests/it/cq_destination.rs::groups_are_joined_by_and_and_null_is_is_null` |
//! | 44 | children of deleted rows | `tests/it/cq_destination.rs::children_go_with_their_parents_at_any_depth` |
//! | 45 | messages that overtook others | `docs/cloudquery.md::overtake rows` |
//! | 46 | Read answers what was asked for | `tests/it/cq_suite.rs::insert_all` `tests/it/cq_python.rs::the_python_sdk_writes_and_reads_over_tcp` |
//! | 47 | keys that may be NULL, duplicates | `tests/it/cq_suite.rs::upsert_basic` `tests/it/cq_suite.rs::upsert_duplicate_keys` |
//! | 48 | rows of nothing but NULL | `tests/it/cq_suite.rs::delete_stale_all` `tests/it/cq_suite.rs::upsert_all` |
//! | 49 | forced: exactly the rows written after it | `tests/it/cq_suite.rs::migrate_each_case_safe_and_forced` |
//! | 50 | syncs a second apart | `tests/it/cq_suite.rs::delete_stale_basic` |

use std::path::Path;

/// The lines of the table above, each with the places that it names.
fn lines() -> Vec<(usize, Vec<(String, String)>)> {
    let rows = include_str!("cq_checklist.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let line = |row: &str| {
        let [number, _, held] = row.trim_end_matches(" |").splitn(3, " | ").collect::<Vec<_>>()[..] else {
            panic!("a line of three cells: {row}")
        };
        let places = held.trim_matches('`').split("` `").map(|place| {
            let (file, name) = place.split_once("::").unwrap_or_else(|| panic!("{place:?} has no name in it"));
            (file.to_owned(), name.to_owned())
        });
        (number.parse().unwrap_or_else(|_| panic!("no number: {row}")), places.collect())
    };
    rows.filter(|row| row.starts_with(|c: char| c.is_ascii_digit())).map(line).collect()
}

#[test]
fn every_line_of_the_checklist_is_held_by_something_that_exists() {
    let lines = lines();
    assert_eq!(lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    for (number, places) in lines {
        assert!(!places.is_empty(), "{number}");
        for (file, name) in places {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file));
            let text = text.unwrap_or_else(|error| panic!("{number}: {file}: {error}"));
            let is_function =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            let wanted = if is_function { format!("fn {name}(") } else { name };
            let is_there = text.split_whitespace().collect::<Vec<_>>().join(" ").contains(&wanted);
            assert!(is_there, "{number}: {file} has no {wanted:?}");
        }
    }
}
