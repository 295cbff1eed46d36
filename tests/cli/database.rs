//! `albertine database`: the schema, by the program's hand or by an administrator's.

use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgPoolOptions};

use super::{Answer, Setup, with_servers};
use crate::support::{block_on, environment, unique};

const MIGRATE: [&str; 2] = ["database", "migrate"];

/// A schema that does not exist yet; dropped with the value.
struct Schema {
    name: String,
    pool: PgPool,
    setup: Setup,
}

impl Schema {
    fn new(prefix: &str) -> Self {
        let pool = block_on(PgPoolOptions::new().max_connections(1).connect(&environment("DATABASE_URL"))).unwrap();
        Self { name: unique(prefix), pool, setup: Setup::new() }
    }

    fn quoted(&self) -> String {
        format!("\"{}\"", self.name)
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        let mut command = self.setup.command(arguments);
        Answer::of(with_servers(&mut command).env("ALBERTINE_POSTGRES__SCHEMA", &self.name), "")
    }

    fn execute(&self, sql: &str) {
        block_on(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool)).unwrap();
    }

    fn exists(&self) -> bool {
        let query = sqlx::query("SELECT to_regnamespace($1) IS NOT NULL").bind(self.quoted());
        block_on(query.fetch_one(&self.pool)).unwrap().get(0)
    }

    /// Every column of every table and view, with its type; partitions are named after a month, so not them.
    fn columns(&self) -> Vec<String> {
        let query = "SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
                 AND a.attnum > 0 AND c.relname <> '_sqlx_migrations'
             ORDER BY 1";
        let rows = block_on(sqlx::query(query).bind(self.quoted()).fetch_all(&self.pool)).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.quoted());
        let _ = block_on(sqlx::query(AssertSqlSafe(statement)).execute(&self.pool));
    }
}

#[test]
fn migrating_makes_the_schema_and_doing_it_again_changes_nothing() {
    let schema = Schema::new("cli");
    let expected = format!("schema `{}` is up to date\n", schema.name);
    assert_eq!(schema.run(&MIGRATE).expect(0).stdout, expected);
    let columns = schema.columns();
    assert!(columns.iter().any(|column| column.starts_with("current_labels.label ")), "{columns:#?}");
    assert_eq!(schema.run(&MIGRATE).expect(0).stdout, expected);
    assert_eq!(schema.columns(), columns);
}

#[test]
fn the_printed_sql_makes_the_same_schema() {
    let (printed, migrated) = (Schema::new("cli"), Schema::new("cli"));
    let sql = printed.run(&["database", "migrate", "--print-sql"]).expect(0).stdout;
    assert!(!printed.exists(), "printing must change nothing");
    printed.execute(&sql);
    migrated.run(&MIGRATE).expect(0);
    assert_eq!(printed.columns(), migrated.columns());
}

#[test]
fn the_program_accepts_a_schema_that_was_made_from_the_printed_sql() {
    let schema = Schema::new("cli");
    schema.execute(&schema.run(&["database", "migrate", "--print-sql"]).expect(0).stdout);
    schema.run(&["check"]).prints(&format!("ok      schema `{}`: up to date", schema.name));
    schema.run(&MIGRATE).expect(0);
}

#[test]
fn printing_needs_no_database() {
    let answer = Setup::new().run(["database", "migrate", "--print-sql"], "").expect(0);
    answer.prints("CREATE SCHEMA IF NOT EXISTS \"albertine\"");
}

#[test]
fn a_schema_with_an_odd_name_is_made_and_found_under_it() {
    let schema = Schema::new("Odd, na'me");
    schema.run(&MIGRATE).expect(0);
    assert!(schema.exists(), "there is no schema {}", schema.quoted());
    schema.run(&["check"]).prints(&format!("ok      schema `{}`: up to date", schema.name));
}
