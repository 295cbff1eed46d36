//! `albertine database`: sets up the schema and brings it to the program's state.

use std::io::Write;

use super::{GlobalOptions, runtime};
use crate::storage::{postgres::Postgres, script};

#[derive(Debug, clap::Args)]
pub struct DatabaseArgs {
    #[command(subcommand)]
    command: DatabaseCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DatabaseCommand {
    /// Create the schema, or bring it to this program's state; done twice it changes nothing
    #[command(after_help = "\
Where the program's role may not change the schema, an administrator runs the script, now and at each upgrade; it skips
what was run before, and needs no connection to be printed:
  albertine database migrate --print-sql --grant-to albertine > migrations.sql
  psql --set ON_ERROR_STOP=1 --file migrations.sql")]
    Migrate {
        /// Print the statements for a database administrator instead of running them
        #[arg(long, env = "ALBERTINE_DATABASE_MIGRATE_PRINT_SQL")]
        print_sql: bool,
        /// With the grants that the program needs as this role
        #[arg(long, env = "ALBERTINE_DATABASE_MIGRATE_GRANT_TO", value_name = "ROLE", requires = "print_sql")]
        grant_to: Option<String>,
    },
}

pub fn run(global: &GlobalOptions, args: &DatabaseArgs) -> anyhow::Result<()> {
    let config = global.load_config()?;
    let DatabaseCommand::Migrate { print_sql, grant_to } = &args.command;
    let schema = &config.postgres.schema;
    if *print_sql {
        write!(std::io::stdout(), "{}", script::migrations(schema, grant_to.as_deref()))?;
        return Ok(());
    }
    runtime()?.block_on(async {
        let store = Postgres::connect(&config.postgres).await?;
        store.migrate(schema).await?;
        store.close().await;
        writeln!(std::io::stdout(), "schema `{schema}` is up to date")?;
        Ok(())
    })
}
