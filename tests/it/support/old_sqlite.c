/* Runs statements on whatever SQLite it is linked with, as an application would: from stdin, each ended by a NUL byte.
   For each it writes one line: result code and message, changes, last_insert_rowid, autocommit, the rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sqlite3.h"

static void print_value(sqlite3_stmt *statement, int column) {
  const unsigned char *bytes = sqlite3_column_type(statement, column) == SQLITE_NULL ? 0 : sqlite3_column_blob(statement, column);
  int length = sqlite3_column_bytes(statement, column);
  printf("%d:", sqlite3_column_type(statement, column));
  for (int i = 0; bytes && i < length; i++) printf("%02x", bytes[i]);
}

static void run(sqlite3 *db, const char *sql) {
  int code = SQLITE_OK;
  printf("rows");
  while (code == SQLITE_OK && *sql) {
    sqlite3_stmt *statement = 0;
    code = sqlite3_prepare_v2(db, sql, -1, &statement, &sql);
    if (code != SQLITE_OK || !statement) break;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      printf(" [");
      for (int column = 0; column < sqlite3_column_count(statement); column++) {
        printf(column ? " " : "");
        print_value(statement, column);
      }
      printf("]");
    }
    code = sqlite3_finalize(statement);
  }
  printf("; error %d %s", code, code == SQLITE_OK ? "" : sqlite3_errmsg(db));
  printf("; changes %d; rowid %lld; autocommit %d\n", sqlite3_changes(db),
         (long long)sqlite3_last_insert_rowid(db), sqlite3_get_autocommit(db));
  fflush(stdout);
}

int main(int count, char **arguments) {
  sqlite3 *db = 0;
  char *sql = 0;
  size_t room = 0;
  if (count != 2 || sqlite3_open(arguments[1], &db) != SQLITE_OK) return 1;
  sqlite3_busy_timeout(db, 20000);
  printf("%s\n", sqlite3_libversion());
  fflush(stdout);
  while (getdelim(&sql, &room, 0, stdin) > 0) run(db, sql);
  sqlite3_close(db);
  free(sql);
  return 0;
}
