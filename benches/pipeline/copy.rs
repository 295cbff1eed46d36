//! COPY, by a client that sends every message at once. (`sqlx` leaves Nagle's algorithm on: between the rows of a COPY and
//! its end it waits for an acknowledgement, 40 ms.)

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::{Client, NoTls, Transaction};

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Copies lines into a table, inside a transaction.
pub async fn copy(transaction: &Transaction<'_>, into: &str, lines: &str) {
    let sink = transaction.copy_in(&format!("COPY {into} FROM STDIN")).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::copy_from_slice(lines.as_bytes())).await.unwrap();
    sink.finish().await.unwrap();
}

/// The rows of a query, as lines that can be copied in.
pub async fn lines(client: &Client, query: &str) -> Vec<String> {
    let stream = client.copy_out(&format!("COPY ({query}) TO STDOUT")).await.unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    String::from_utf8(chunks.concat()).unwrap().lines().map(str::to_owned).collect()
}
