//! UNNEST and COPY beside each other: the two tables that every batch writes, upserted three ways.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Statement, types::ToSql};

use crate::{
    Arguments, copy,
    measure::Spread,
    support::{block_on, database::Database},
};

/// Rows of one transaction.
const BATCHES: [usize; 5] = [1, 10, 100, 500, 5000];
/// How long one way is measured at a time.
const ROUND: Duration = Duration::from_secs(2);

/// Like `labels` and `documents`, as they are after the migrations, with what the upsert needs.
const TABLES: &str = "
CREATE TABLE {s}.{way}_documents (LIKE {s}.documents INCLUDING ALL);
CREATE TABLE {s}.{way}_labels (LIKE {s}.labels INCLUDING ALL);";

const STAGING: &str = "
CREATE TEMPORARY TABLE staged_documents (document_id text, item text, rating double precision, version text);
CREATE TEMPORARY TABLE staged_labels (document_id text, label text, confidence real, probabilities text, version text);";

const UPSERT: &str = r"
WITH moved AS (
    INSERT INTO {s}.{way}_documents AS present (stream, document_id, item, rating, version)
    SELECT 'reviews', document_id, item, rating, version::bigint[] FROM {documents} ORDER BY document_id
    ON CONFLICT (stream, document_id) DO UPDATE SET
        item = excluded.item, rating = excluded.rating, version = excluded.version, stored_at = now()
    WHERE present.version < excluded.version
    RETURNING document_id
)
INSERT INTO {s}.{way}_labels AS present
    (stream, document_id, task, model, model_version, label, confidence, probabilities, version, labelled_at)
SELECT 'reviews', document_id, 'sentiment', 'albert-sentiment', '1', label, confidence, probabilities::real[],
       version::bigint[], now()
FROM moved JOIN {labels} USING (document_id)
ORDER BY document_id
ON CONFLICT (stream, document_id, task, model) DO UPDATE SET
    label = excluded.label, confidence = excluded.confidence, probabilities = excluded.probabilities,
    version = excluded.version, labelled_at = excluded.labelled_at
WHERE present.version < excluded.version";

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// One statement with an array a column: one round trip.
    Unnest,
    /// COPY into two temporary tables, then the same upsert from them: six round trips.
    Staging,
    /// COPY into the tables themselves: no row may be there yet. What is least possible.
    Bare,
}

const WAYS: [(Way, &str); 3] = [(Way::Unnest, "unnest"), (Way::Staging, "staging"), (Way::Bare, "bare")];

pub fn measure(arguments: &Arguments) {
    println!("Documents with one label a second into Postgres, one connection, one transaction a batch");
    println!(
        "\n| Rows a batch | UNNEST | COPY into staging tables | UNNEST is faster by | bare COPY, no upsert | UNNEST of it |"
    );
    println!("|---|---|---|---|---|---|");
    for batch in BATCHES {
        let database = Database::named("write");
        let rounds: Vec<[f64; 3]> = block_on(async {
            let mut connection = connect(&database).await;
            let mut writers = Vec::new();
            for way in WAYS {
                writers.push(Writer::new(&connection, &database, way).await);
            }
            let mut next = 0;
            let mut rounds = Vec::new();
            for _ in 0..arguments.rounds {
                let mut speeds = [0.0; 3];
                for (speed, writer) in speeds.iter_mut().zip(&writers) {
                    *speed = rows_a_second(&mut connection, writer, batch, &mut next).await;
                }
                rounds.push(speeds);
            }
            rounds
        });
        let [unnest, staging, bare] = [0, 1, 2].map(|way| Spread::of(rounds.iter().map(|round| round[way])));
        let faster = Spread::of(rounds.iter().map(|round| round[0] / round[1]));
        let share = Spread::of(rounds.iter().map(|round| round[0] / round[2]));
        println!("| {batch} | {unnest:.0} | {staging:.0} | {faster:.2} | {bare:.0} | {share:.2} |");
    }
}

async fn connect(database: &Database) -> Client {
    let client = copy::connect(&database.url).await;
    for (_, name) in WAYS {
        client.batch_execute(&filled(TABLES, database, name)).await.unwrap();
    }
    client.batch_execute(STAGING).await.unwrap();
    client
}

fn filled(statement: &str, database: &Database, way: &str) -> String {
    statement.replace("{s}", &format!("\"{}\"", database.schema)).replace("{way}", way)
}

/// The rows of a batch, a column each.
struct Columns {
    ids: Vec<String>,
    items: Vec<String>,
    ratings: Vec<f64>,
    versions: Vec<String>,
    labels: Vec<&'static str>,
    confidences: Vec<f32>,
    probabilities: Vec<String>,
}

impl Columns {
    /// New rows, in the order of their keys.
    fn new(numbers: std::ops::Range<usize>) -> Self {
        let each = |value: &dyn Fn(usize) -> String| numbers.clone().map(value).collect::<Vec<_>>();
        Self {
            ids: each(&|number| format!("d{number:09}")),
            items: each(&|number| format!("item-{}", number % 1000)),
            ratings: numbers.clone().map(|number| (number % 5) as f64).collect(),
            versions: each(&|number| format!("{{1,1700000000000,0,{number}}}")),
            labels: numbers.clone().map(|number| ["negative", "neutral", "positive"][number % 3]).collect(),
            confidences: numbers.clone().map(|_| 0.8).collect(),
            probabilities: each(&|_| "{0.1,0.1,0.8}".into()),
        }
    }

    /// As COPY takes them, without the stream.
    fn document_lines(&self, prefix: &str) -> String {
        let Self { ids, items, ratings, versions, .. } = self;
        let line = |row: usize| format!("{prefix}{}\t{}\t{}\t{}\n", ids[row], items[row], ratings[row], versions[row]);
        (0..ids.len()).map(line).collect()
    }

    fn label_lines(&self, prefix: &str) -> String {
        let Self { ids, labels, confidences, probabilities, versions, .. } = self;
        let line = |row: usize| {
            let (label, confidence, probabilities) = (labels[row], confidences[row], &probabilities[row]);
            format!("{prefix}{}\t{label}\t{confidence}\t{probabilities}\t{}\n", ids[row], versions[row])
        };
        (0..ids.len()).map(line).collect()
    }
}

/// One way into a schema's tables, with its statements made.
struct Writer {
    way: Way,
    upsert: Option<Statement>,
    /// Where the bare COPY goes.
    tables: [String; 2],
}

impl Writer {
    async fn new(connection: &Client, database: &Database, (way, name): (Way, &str)) -> Self {
        let arrays = [
            (
                "{documents}",
                "unnest($1::text[], $2::text[], $3::double precision[], $4::text[]) \
                 AS document (document_id, item, rating, version)",
            ),
            (
                "{labels}",
                "unnest($1::text[], $5::text[], $6::real[], $7::text[], $4::text[]) \
                 AS label (document_id, label, confidence, probabilities, version)",
            ),
        ];
        let staged = [("{documents}", "staged_documents"), ("{labels}", "staged_labels")];
        let sources = if way == Way::Unnest { arrays } else { staged };
        let upsert = sources
            .iter()
            .fold(filled(UPSERT, database, name), |statement, (place, source)| statement.replace(place, source));
        let upsert = match way {
            Way::Bare => None,
            Way::Unnest | Way::Staging => Some(connection.prepare(&upsert).await.unwrap()),
        };
        let tables = [
            "{s}.{way}_documents (stream, document_id, item, rating, version)",
            "{s}.{way}_labels (stream, task, model, model_version, labelled_at, document_id, label, confidence, \
             probabilities, version)",
        ];
        Self { way, upsert, tables: tables.map(|table| filled(table, database, name)) }
    }

    fn statement(&self) -> &Statement {
        self.upsert.as_ref().unwrap()
    }

    async fn write(&self, connection: &mut Client, columns: Columns) {
        match self.way {
            Way::Unnest => self.unnest(connection, columns).await,
            Way::Staging => self.staged(connection, &columns).await,
            Way::Bare => self.bare(connection, &columns).await,
        }
    }

    async fn unnest(&self, connection: &mut Client, columns: Columns) {
        let Columns { ids, items, ratings, versions, labels, confidences, probabilities } = columns;
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&ids, &items, &ratings, &versions, &labels, &confidences, &probabilities];
        connection.execute(self.statement(), &parameters).await.unwrap();
    }

    async fn staged(&self, connection: &mut Client, columns: &Columns) {
        let transaction = connection.transaction().await.unwrap();
        copy::copy(&transaction, "staged_documents", &columns.document_lines("")).await;
        copy::copy(&transaction, "staged_labels", &columns.label_lines("")).await;
        transaction.execute(self.statement(), &[]).await.unwrap();
        transaction.batch_execute("TRUNCATE staged_documents, staged_labels").await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn bare(&self, connection: &mut Client, columns: &Columns) {
        let [documents, labels] = &self.tables;
        let transaction = connection.transaction().await.unwrap();
        copy::copy(&transaction, documents, &columns.document_lines("reviews\t")).await;
        let constants = "reviews\tsentiment\talbert-sentiment\t1\t2026-01-01\t";
        copy::copy(&transaction, labels, &columns.label_lines(constants)).await;
        transaction.commit().await.unwrap();
    }
}

async fn rows_a_second(connection: &mut Client, writer: &Writer, batch: usize, next: &mut usize) -> f64 {
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < ROUND {
        let columns = Columns::new(*next..*next + batch);
        writer.write(connection, columns).await;
        *next += batch;
        rows += batch;
    }
    rows as f64 / began.elapsed().as_secs_f64()
}
