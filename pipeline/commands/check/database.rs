//! Postgres: the connection, the schema, what the role may do in it, and whether commits last.

use super::CONNECT_TIMEOUT;
use crate::{
    commands::report::Report,
    config::resolved::Config,
    storage::postgres::{Postgres, PostgresConfig},
};

pub async fn check(config: &Config, report: &mut Report) -> std::io::Result<()> {
    let name = &config.postgres.schema;
    let (schema, rights) = (format!("schema `{name}`"), format!("rights in schema `{name}`"));
    let postgres = PostgresConfig { connect_timeout: CONNECT_TIMEOUT, ..config.postgres.clone() };
    let store = match Postgres::connect(&postgres).await {
        Ok(store) => store,
        Err(error) => {
            report.line("Postgres", Err(error.into()))?;
            for what in [&*schema, &rights, "commits"] {
                report.skipped(what, "there is no connection to Postgres")?;
            }
            return Ok(());
        }
    };
    report.line("Postgres", Ok("reachable".into()))?;
    let migrated = store.check_migrated(name).await.map(|()| "up to date".to_owned()).map_err(Into::into);
    if report.line(schema, migrated)? {
        report.line(rights, store.check_rights(name).await.map_err(Into::into))?;
    } else {
        report.skipped(rights, "the schema is not as it should be")?;
    }
    let durable = store.check_durability().await.map_err(Into::into);
    store.close().await;
    report.line("commits", durable)?;
    Ok(())
}
