"""Runs Alembic's operations on a live database, one at each line on stdin, as a batch migration does on SQLite.

Use: alembic_migrations.py DATABASE
Says `applied NAME` after each, `done` at the end.
"""

import sys

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

engine = sa.create_engine(f"sqlite:///{sys.argv[1]}", connect_args={"timeout": 30})


def create(op):
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("score", sa.Float),
    )
    op.create_table("entry", sa.Column("account_id", sa.Integer), sa.Column("text", sa.Text))


def fill(op):
    for number in range(200):
        op.execute(f"INSERT INTO account(name, score) VALUES ('name {number}', {number}.5)")
        op.execute(f"INSERT INTO entry VALUES ({number}, 'text {number}')")


def add(op):
    op.add_column("account", sa.Column("active", sa.Boolean, server_default=sa.text("1"), nullable=False))


def alter(op):
    with op.batch_alter_table("account") as batch:
        batch.alter_column("name", type_=sa.Text, existing_type=sa.String(50), existing_nullable=False)
        batch.add_column(sa.Column("made", sa.DateTime, server_default=sa.func.current_timestamp()))


def rename(op):
    with op.batch_alter_table("account") as batch:
        batch.alter_column("score", new_column_name="points", existing_type=sa.Float)


def index(op):
    op.create_index("entry_account", "entry", ["account_id"])


def constraint(op):
    with op.batch_alter_table("account") as batch:
        batch.create_unique_constraint("name_is_unique", ["name"])
        batch.create_check_constraint("points_positive", "points >= 0")


def key(op):
    with op.batch_alter_table("entry", recreate="always") as batch:
        batch.create_foreign_key("entry_of", "account", ["account_id"], ["id"])


def write(op):
    op.execute("UPDATE account SET points = points + 1 WHERE id % 3 = 0")
    op.execute("INSERT OR REPLACE INTO account(name, points) VALUES ('name 7', 7)")


def remove(op):
    with op.batch_alter_table("account") as batch:
        batch.drop_column("active")


def rename_table(op):
    op.rename_table("entry", "line")


def drop_index(op):
    op.drop_index("entry_account", table_name="line")


def drop(op):
    op.drop_table("line")


for step in (create, fill, add, alter, rename, index, constraint, key, write, remove, rename_table, drop_index, drop):
    if not sys.stdin.readline():
        sys.exit("stdin ended")
    with engine.begin() as connection:
        step(Operations(MigrationContext.configure(connection)))
    print(f"applied {step.__name__}", flush=True)
print("done", flush=True)
