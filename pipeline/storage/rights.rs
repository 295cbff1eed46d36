//! What the program's role may do in the schema: everything where it made it, and the grants of an administrator
//! elsewhere.

use super::postgres::{Postgres, PostgresError, quoted};

impl Postgres {
    /// Whether this role may look into the schema, if there is one.
    pub(super) async fn check_usage(&self, schema: &str) -> Result<(), PostgresError> {
        let (role, is_refused): (String, bool) = sqlx::query_as(
            "SELECT current_user::text, coalesce(NOT has_schema_privilege(to_regnamespace($1), 'USAGE'), false)",
        )
        .bind(quoted(schema))
        .fetch_one(&self.pool)
        .await
        .map_err(PostgresError::ReadSettings)?;
        if is_refused { Err(lacking(role, schema, "USAGE on the schema".into())) } else { Ok(()) }
    }

    /// Whether this role has every right that a run needs. Returns how partitions are kept, for people.
    ///
    /// # Errors
    /// [`PostgresError::Rights`] with what is missing and the statements that grant it.
    pub async fn check_rights(&self, schema: &str) -> Result<String, PostgresError> {
        const QUERY: &str = "SELECT current_user::text,
                    array_agg(DISTINCT privilege || ' on ' || relname) FILTER (WHERE NOT has_table_privilege(pg_class.oid, privilege))
             FROM pg_class
             CROSS JOIN unnest(CASE
                 WHEN relname = '_sqlx_migrations' OR relkind = 'v' THEN ARRAY['SELECT']
                 ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS privilege
             WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p', 'v') AND NOT relispartition";
        let (role, missing): (String, Option<Vec<String>>) = sqlx::query_as(QUERY)
            .bind(quoted(schema))
            .fetch_one(&self.pool)
            .await
            .map_err(PostgresError::ReadSettings)?;
        if let Some(missing) = missing {
            return Err(lacking(role, schema, missing.join(", ")));
        }
        Ok(if self.owns_tables().await? {
            format!("`{role}` reads, writes and keeps the monthly partitions")
        } else {
            format!(
                "`{role}` reads and writes; it does not own the tables, so rejections are kept without monthly partitions, and `database migrate` is the owner's"
            )
        })
    }
}

fn lacking(role: String, schema: &str, missing: String) -> PostgresError {
    let statements = grants(schema, &role).join(" ");
    PostgresError::Rights { role, schema: schema.into(), missing, statements }
}

/// The statements that let a role run the program in a schema that another role made.
pub fn grants(schema: &str, role: &str) -> Vec<String> {
    let (schema, role) = (quoted(schema), quoted(role));
    vec![
        format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"),
        format!("REVOKE INSERT, UPDATE, DELETE ON {schema}._sqlx_migrations FROM {role};"),
    ]
}
