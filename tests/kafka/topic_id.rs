//! Topic ids: which topic has which, and what is told where there is none to read.

use std::{
    net::TcpListener,
    sync::mpsc,
    time::{Duration, Instant},
};

use albertine::kafka::topic_id::{Cause, topic_id};
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions},
    client::{Client, DefaultClientContext},
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
};

use super::old_broker::{OldBroker, TOPIC};
use crate::support::{block_on, broker::create_topic, environment, eventually, unique};

/// Far above what an answer takes, and below the deadline of a test.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For calls that nobody answers.
const SHORT: Duration = Duration::from_secs(1);

// Codes of Kafka's protocol.
const NO_ERROR: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

fn consumer(servers: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", servers).create().unwrap()
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS")).create().unwrap()
}

/// The topic's id once the broker tells one.
fn id<C: ClientContext>(client: &Client<C>, topic: &str) -> String {
    eventually("the topic has an id", || topic_id(client, topic, TIMEOUT).unwrap())
}

#[test]
fn a_topic_keeps_its_id_and_one_that_is_made_again_has_another() {
    let (topic, admin) = (unique("id"), admin());
    create_topic(&topic, 1);
    let first = id(admin.inner(), &topic);
    assert_eq!(first.len(), 22, "{first}");
    assert_eq!(id(admin.inner(), &topic), first);
    assert_eq!(id(consumer(&environment("KAFKA_BOOTSTRAP_SERVERS")).client(), &topic), first, "from another client");

    let deleted = block_on(admin.delete_topics(&[&topic], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    eventually("the topic is gone", || topic_id(admin.inner(), &topic, TIMEOUT).unwrap().is_none().then_some(()));
    create_topic(&topic, 1);
    assert_ne!(id(admin.inner(), &topic), first);
}

#[test]
fn a_topic_that_does_not_exist_has_no_id_and_is_not_made() {
    let (topic, admin) = (unique("absent"), admin());
    assert_eq!(topic_id(admin.inner(), &topic, TIMEOUT).unwrap(), None);
    assert_eq!(topic_id(admin.inner(), &topic, TIMEOUT).unwrap(), None);
}

#[test]
fn what_is_no_name_of_a_topic_is_an_error() {
    let admin = admin();
    for name in ["", "two words", "nul\0inside"] {
        let error = topic_id(admin.inner(), name, TIMEOUT).unwrap_err();
        assert!(!matches!(error.cause, Cause::Unanswered(_)), "{error}");
    }
}

/// Asks in the callback of an assignment, in which the consumer is not polled.
struct AskWhenAssigned {
    topic: String,
    answers: mpsc::Sender<Option<String>>,
}

impl ClientContext for AskWhenAssigned {}

impl ConsumerContext for AskWhenAssigned {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.answers.send(topic_id(consumer.client(), &self.topic, TIMEOUT).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_consumer_can_ask_within_its_own_callback() {
    let (topic, (answers, answered)) = (unique("callback"), mpsc::channel());
    create_topic(&topic, 1);
    let consumer: BaseConsumer<AskWhenAssigned> = ClientConfig::new()
        .set("bootstrap.servers", environment("KAFKA_BOOTSTRAP_SERVERS"))
        .set("group.id", &topic)
        .create_with_context(AskWhenAssigned { topic: topic.clone(), answers })
        .unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let answer = eventually("the callback has asked", || {
        drop(consumer.poll(Duration::from_millis(100)));
        answered.try_recv().ok()
    });
    assert_eq!(answer, Some(id(consumer.client(), &topic)));
}

/// Asserts that a call gives up, and in time.
fn assert_unanswered<C: ClientContext>(client: &Client<C>) {
    let started = Instant::now();
    let error = topic_id(client, TOPIC, SHORT).unwrap_err();
    let took = started.elapsed();
    assert!(matches!(error.cause, Cause::Unanswered(_)), "{error}");
    assert_eq!(error.to_string(), "cannot ask about topic `reviews`: no broker answered within 1s");
    // The margin is for a busy machine; librdkafka's own deadlines are a minute.
    assert!(took < SHORT + Duration::from_secs(10), "it took {took:?}");
}

#[test]
fn a_broker_that_cannot_be_reached_is_an_error_in_time() {
    assert_unanswered(consumer("127.0.0.1:1").client());
}

#[test]
fn a_broker_that_never_answers_is_an_error_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_unanswered(consumer(&silent.local_addr().unwrap().to_string()).client());
}

#[test]
fn an_answer_that_comes_too_late_is_dropped() {
    let broker = OldBroker::new(NO_ERROR);
    let client = broker.client();
    let held = broker.answering.write().unwrap();
    assert_unanswered(client.client());
    drop(held);
    // The late answer comes before this one's, on the same connection.
    let error = topic_id(client.client(), TOPIC, TIMEOUT).unwrap_err();
    assert!(matches!(error.cause, Cause::WithoutIds), "{error}");
    let _held = broker.answering.write().unwrap();
    assert_unanswered(client.client());
    // And the client ends without its answer.
    drop(client);
}

#[test]
fn a_user_who_may_not_describe_the_topic_is_told_which_grant_is_missing() {
    let broker = OldBroker::new(TOPIC_AUTHORIZATION_FAILED);
    let error = topic_id(broker.client().client(), TOPIC, TIMEOUT).unwrap_err();
    assert!(matches!(error.cause, Cause::Refused { .. }), "{error}");
    assert!(error.to_string().ends_with("; grant Describe on the topic to this user"), "{error}");
}

#[test]
fn a_broker_that_is_older_than_topic_ids_is_an_error_that_says_so() {
    let error = topic_id(OldBroker::new(NO_ERROR).client().client(), TOPIC, TIMEOUT).unwrap_err();
    assert!(matches!(error.cause, Cause::WithoutIds), "{error}");
    assert!(error.to_string().contains("2.8 or later"), "{error}");
    let unknown = OldBroker::new(UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(topic_id(unknown.client().client(), TOPIC, TIMEOUT).unwrap(), None);
}
