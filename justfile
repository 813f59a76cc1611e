# `just ci` is what CI runs and what the README's test command is part of.

# Everything that CI holds.
ci:
    .ci/run

# Formatting and lints.
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings

# The README's test command.
test:
    cargo test --locked

# The budgets of benches/budgets, as ratios of the same run.
bench:
    cargo bench --locked --bench budgets

# The random tests, longer than CI has time for.
soak cases="200":
    TWINLITE_CASES={{cases}} cargo test --locked --test it -- property transparency killed_at_random --nocapture

# The large shop: a gigabyte under a writer that migrates it.
shop size="1GB":
    TWINLITE_SHOP_SIZE={{size}} cargo test --release --locked --test it -- a_sample_shop --nocapture
