//! The migrations as a script for a database administrator, for servers where the program's role may not change the
//! schema.
//!
//! Guarantee: the script does what `database migrate` does, each migration whole or not at all, and notes it where the
//! program looks. Migrations that were run already are left out by the script itself, so it may be run again, and on a
//! database that nobody asked about.

use std::fmt::Write;

use super::{
    postgres::{MIGRATIONS, literal, quoted},
    rights::grants,
};

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

/// The script for this schema; with the grants for `role`, where one is named.
pub fn migrations(schema: &str, role: Option<&str>) -> String {
    let mut script = format!(
        "-- The migrations of albertine, for psql with --set ON_ERROR_STOP=1. Each is one transaction.\n\
         CREATE SCHEMA IF NOT EXISTS {name};\nSET search_path TO {name};\n{BOOKKEEPING}\n",
        name = quoted(schema)
    );
    for migration in MIGRATIONS.iter() {
        let version = migration.version;
        let _ = write!(
            script,
            "\n-- migration {version}: {description}\n\
             DO $albertine$ BEGIN\n\
             IF NOT EXISTS (SELECT FROM _sqlx_migrations WHERE version = {version}) THEN\n\
             EXECUTE $migration$\n{sql}$migration$;\n\
             INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)\n\
             VALUES ({version}, {quoted_description}, true, '\\x{checksum}', 0);\n\
             END IF;\nEND $albertine$;\n",
            description = migration.description,
            sql = migration.sql.as_str(),
            quoted_description = literal(&migration.description),
            checksum = hex::encode(&*migration.checksum),
        );
    }
    if let Some(role) = role {
        let _ = write!(
            script,
            "\n-- What the program needs as role {}\n{}\n",
            quoted(role),
            grants(schema, role).join("\n")
        );
    }
    script + "\nRESET search_path;\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_migration_holds_what_ends_its_quotes() {
        for migration in MIGRATIONS.iter() {
            let sql = migration.sql.as_str();
            assert!(!sql.contains("$migration$") && !sql.contains("$albertine$"), "migration {}", migration.version);
        }
    }
}
