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

fn print_migrations(schema: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "CREATE SCHEMA IF NOT EXISTS {};\nSET search_path TO {};", quoted(schema), quoted(schema))?;
    for migration in MIGRATIONS.iter() {
        writeln!(out, "\n-- migration {}: {}\n{}", migration.version, migration.description, migration.sql.as_str())?;
    }
    Ok(())
}
