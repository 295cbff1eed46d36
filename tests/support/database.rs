//! A schema of one's own on the real database.

use albertine::storage::postgres::{Postgres, PostgresConfig, SessionSettings, quoted};
use sqlx::{
    AssertSqlSafe, PgPool, Row,
    postgres::{PgPoolOptions, PgRow},
};

use super::{block_on, environment, unique};

/// A migrated schema; dropped with the value.
pub struct Database {
    pub schema: String,
    pub url: String,
    pool: PgPool,
}

impl Database {
    pub fn new() -> Self {
        Self::named("test")
    }

    /// The same, under a name that begins so.
    pub fn named(prefix: &str) -> Self {
        let database = Self::empty(prefix);
        block_on(async {
            let store = database.store().await;
            store.migrate(&database.schema).await.unwrap();
            store.close().await;
        });
        database
    }

    /// A name without its schema, which somebody else makes.
    pub fn empty(prefix: &str) -> Self {
        let (schema, url) = (unique(prefix), environment("DATABASE_URL"));
        let pool = block_on(PgPoolOptions::new().max_connections(2).connect(&url)).unwrap();
        Self { schema, url, pool }
    }

    /// The URL for another role, on another port if one is given.
    pub fn url_as(&self, role: &str, password: &str, port: Option<u16>) -> String {
        let mut url = url::Url::parse(&self.url).unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(password)).unwrap();
        if port.is_some() {
            url.set_port(port).unwrap();
        }
        url.into()
    }

    pub fn config(&self) -> PostgresConfig {
        PostgresConfig {
            url: self.url.clone().into(),
            schema: self.schema.clone(),
            session_settings: SessionSettings::Connection,
            connections_max: 3,
            statement_timeout: std::time::Duration::from_secs(30),
            connect_timeout: std::time::Duration::from_secs(30),
        }
    }

    /// The program's own store on this schema.
    pub async fn store(&self) -> Postgres {
        Postgres::connect(&self.config()).await.unwrap()
    }

    /// Runs a query in which `{s}` stands for the schema.
    pub fn rows(&self, query: &str) -> Vec<PgRow> {
        let query = query.replace("{s}", &quoted(&self.schema));
        block_on(sqlx::query(AssertSqlSafe(query.clone())).fetch_all(&self.pool))
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Runs several statements, in which `{s}` stands for the schema.
    pub fn script(&self, statements: &str) {
        let statements = statements.replace("{s}", &quoted(&self.schema));
        block_on(sqlx::raw_sql(AssertSqlSafe(statements.clone())).execute(&self.pool))
            .unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// The first column of the first row, as a number.
    pub fn number(&self, query: &str) -> i64 {
        self.rows(query)[0].get(0)
    }

    /// The first column of all rows, as text.
    pub fn texts(&self, query: &str) -> Vec<String> {
        self.rows(query).iter().map(|row| row.get(0)).collect()
    }

    /// Where the sums of items differ from a recount of what is stored.
    pub fn differences_from_a_recount(&self) -> Vec<String> {
        self.texts(
            "WITH recount AS (
             SELECT documents.stream, documents.item, labels.task, labels.model, class.name AS label,
                    count(*) FILTER (WHERE class.name = labels.label) AS documents,
                    sum(round(class.probability::double precision * 1000000)::bigint)::bigint AS probability_millions
             FROM {s}.documents
             JOIN {s}.labels ON labels.stream = documents.stream AND labels.document_id = documents.document_id
                 AND labels.version = documents.version
             JOIN {s}.models USING (model, model_version)
             CROSS JOIN LATERAL unnest(models.labels, labels.probabilities) AS class (name, probability)
             WHERE documents.item IS NOT NULL AND NOT documents.deleted
             GROUP BY documents.stream, documents.item, labels.task, labels.model, class.name
         )
         SELECT concat_ws(' ', 'sums', item, label, documents, probability_millions)
         FROM (TABLE {s}.item_labels EXCEPT TABLE recount) AS extra
         UNION ALL
         SELECT concat_ws(' ', 'recount', item, label, documents, probability_millions)
         FROM (TABLE recount EXCEPT TABLE {s}.item_labels) AS missing",
        )
    }

    pub fn current_labels(&self) -> i64 {
        self.number("SELECT count(*) FROM {s}.current_labels")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let statement = format!("DROP SCHEMA {} CASCADE", quoted(&self.schema));
            let _ = block_on(sqlx::query(AssertSqlSafe(statement)).execute(&self.pool));
        }
    }
}
