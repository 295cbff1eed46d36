//! Questions to Kafka outside the pipeline: on Apache Kafka, and on a broker of our own for what Apache Kafka
//! does not answer here.

mod old_broker;
mod topic_id;
