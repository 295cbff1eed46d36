//! `albertine database`: sets up the schema and brings it to the program's state.

use std::io::Write;

use super::{GlobalOptions, runtime};
use crate::storage::postgres::{MIGRATIONS, Postgres, quoted};

#[derive(Debug, clap::Args)]
pub struct DatabaseArgs {
    #[command(subcommand)]
    command: DatabaseCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DatabaseCommand {
    /// Create the schema, or bring it to this program's state; done twice it changes nothing
    Migrate {
        /// Print the statements for a database administrator instead of running them
        #[arg(long, env = "ALBERTINE_DATABASE_MIGRATE_PRINT_SQL")]
        print_sql: bool,
    },
}

pub fn run(global: &GlobalOptions, args: &DatabaseArgs) -> anyhow::Result<()> {
    let config = global.load_config()?;
    let DatabaseCommand::Migrate { print_sql } = args.command;
    let schema = &config.postgres.schema;
    if print_sql {
        return print_migrations(schema);
    }
    runtime()?.block_on(async {
        let store = Postgres::connect(&config.postgres).await?;
        store.migrate(schema).await?;
        store.close().await;
        writeln!(std::io::stdout(), "schema `{schema}` is up to date")?;
        Ok(())
    })
}

/// The table in which sqlx notes what was migrated: without it the program would take the schema for an
/// empty one.
const BOOKKEEPING: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version bigint PRIMARY KEY,
    description text NOT NULL,
    installed_on timestamptz NOT NULL DEFAULT now(),
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);";

fn print_migrations(schema: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "CREATE SCHEMA IF NOT EXISTS {};\nSET search_path TO {};", quoted(schema), quoted(schema))?;
    writeln!(out, "{BOOKKEEPING}")?;
    for migration in MIGRATIONS.iter() {
        writeln!(out, "\n-- migration {}: {}\n{}", migration.version, migration.description, migration.sql.as_str())?;
        writeln!(
            out,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES ({}, '{}', true, '\\x{}', 0);",
            migration.version,
            migration.description.replace('\'', "''"),
            hex::encode(&*migration.checksum),
        )?;
    }
    Ok(())
}
