//! What a user of Kafka may not do is told as the grant that is missing.

use super::SecuredStream;
use crate::support::{
    database::Database,
    secured::{
        CREATE, DESCRIBE, DESCRIBE_CONFIGS, GROUP, LITERAL, PASSWORD, PREFIXED, READ, SecuredBroker, TOPIC,
        TRANSACTIONAL_ID, WRITE, broker,
    },
    unique,
};

/// A kind of resource, what follows the topic's name in its own, and an operation.
type Grant = (i8, &'static str, i8);

const ALL: [Grant; 7] = [
    (TOPIC, "", READ),
    (TOPIC, "", DESCRIBE_CONFIGS),
    (GROUP, "", READ),
    (TRANSACTIONAL_ID, ".", WRITE),
    (TOPIC, ".labels", WRITE),
    (TOPIC, ".labels", DESCRIBE_CONFIGS),
    (TOPIC, ".labels", CREATE),
];

struct Case {
    user: &'static str,
    grants: Vec<Grant>,
    live_topic_exists: bool,
    line: &'static str,
    problem: &'static str,
    remedy: &'static str,
}

fn without(missing: &[Grant]) -> Vec<Grant> {
    ALL.iter().filter(|grant| !missing.contains(grant)).copied().collect()
}

/// A stream of this user, with these grants.
fn granted(broker: &SecuredBroker, user: &str, topic: &str, grants: &[Grant], schema: &str) -> SecuredStream {
    for &(kind, suffix, operation) in grants {
        let pattern = if kind == TRANSACTIONAL_ID { PREFIXED } else { LITERAL };
        broker.grant(&format!("User:{user}"), (kind, pattern), &format!("{topic}{suffix}"), operation);
    }
    let ca = broker.file("ca.pem");
    let client = [
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", ca.to_str().unwrap()),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", user),
        ("sasl.password", PASSWORD),
    ];
    SecuredStream::new(broker, "SASL", &client, topic, schema)
}

fn check(broker: &SecuredBroker, case: &Case, schema: &str) -> Option<String> {
    // Names that begin alike would share their grants.
    let topic = unique("limited");
    broker.create_topic(&topic);
    if case.live_topic_exists {
        broker.create_topic(&format!("{topic}.labels"));
    }
    broker.produce_documents(&topic, 0..3);
    let stream = granted(broker, case.user, &topic, &case.grants, schema);
    let answer = stream.run(&["check"]);
    let line = stream.line(&answer, case.line);
    let failures = answer.stdout.lines().filter(|line| line.starts_with("failed ")).count();
    let is_right = line.starts_with("failed ")
        && failures == 1
        && [case.problem, case.remedy].iter().all(|part| line.contains(&part.replace("{topic}", &topic)));
    (!is_right).then(|| format!("{}: {}", case.user, answer.stdout))
}

#[test]
fn each_missing_grant_is_named() {
    let database = Database::new();
    let cases = [
        Case {
            user: "no-topic",
            grants: without(&[(TOPIC, "", READ), (TOPIC, "", DESCRIBE_CONFIGS)]),
            live_topic_exists: false,
            line: "stream `reviews`",
            problem: "this user may not see topic `{topic}`",
            remedy: "grant Describe and Read on the topic",
        },
        Case {
            user: "no-read",
            grants: [without(&[(TOPIC, "", READ)]), vec![(TOPIC, "", DESCRIBE)]].concat(),
            live_topic_exists: false,
            line: "grants of `reviews`",
            problem: "this user may not read topic `{topic}`",
            remedy: "grant Read on the topic",
        },
        Case {
            user: "no-group",
            grants: without(&[(GROUP, "", READ)]),
            live_topic_exists: false,
            line: "grants of `reviews`",
            problem: "this user may not read as group `{topic}`",
            remedy: "grant Read on the group",
        },
        Case {
            user: "no-transactions",
            grants: without(&[(TRANSACTIONAL_ID, ".", WRITE)]),
            live_topic_exists: false,
            line: "transactions of `reviews`",
            problem: "this user may not write with the transactional id `{topic}.check`",
            remedy: "grant Write and Describe on the transactional ids that begin with `{topic}.`",
        },
        Case {
            user: "no-write",
            grants: [without(&[(TOPIC, ".labels", WRITE)]), vec![(TOPIC, ".labels", DESCRIBE)]].concat(),
            live_topic_exists: true,
            line: "live labels of `reviews`",
            problem: "this user may not write to topic `{topic}.labels`",
            remedy: "grant Write on the topic",
        },
        Case {
            user: "no-create",
            grants: without(&[(TOPIC, ".labels", CREATE)]),
            live_topic_exists: false,
            line: "live labels of `reviews`",
            problem: "cannot create topic `{topic}.labels` with 1 partition(s)",
            remedy: "grant Create on the topic (or the cluster) to this user, or let an administrator create it",
        },
        Case {
            user: "no-configs",
            grants: without(&[(TOPIC, ".labels", DESCRIBE_CONFIGS)]),
            live_topic_exists: true,
            line: "live labels of `reviews`",
            problem: "cannot read the settings of topic `{topic}.labels`",
            remedy: "grant Describe and DescribeConfigs on the topic",
        },
    ];
    let broker = broker();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let schema = &database.schema;
        let running: Vec<_> = cases.iter().map(|case| scope.spawn(move || check(broker, case, schema))).collect();
        running.into_iter().filter_map(|case| case.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn with_exactly_the_documented_grants_all_is_in_order() {
    let (broker, database, topic) = (broker(), Database::new(), unique("limited"));
    broker.create_topic(&topic);
    granted(broker, "exact", &topic, &ALL, &database.schema).run(&["check"]).expect(0);
}
