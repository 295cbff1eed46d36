//! The delivery contract: every record once, whoever dies and whenever. On Apache Kafka and Postgres, with
//! the program as processes.

mod crashes;
mod deletion;
mod duplicates;
mod languages;
mod newest;
mod pairs;
mod publishing;
mod records;
mod starts;
mod streams;
mod takeover;
