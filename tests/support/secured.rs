//! A real broker that lets nobody in without proof and nobody do what was not granted: a listener for each way to
//! connect, users, and access control lists. Started once for all tests that need it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tempfile::TempDir;

use super::{
    block_on,
    broker::{document, request_options},
    certificates::{Authority, Validity},
    pipeline::write,
    server::{Server, free_port, server_folder},
    tokens::IdentityProvider,
};

/// The password of every user.
pub const PASSWORD: &str = "correct-horse-91b7";

/// Listeners, each with its protocol. Who comes through the first two is the administrator.
const LISTENERS: [(&str, &str); 9] = [
    ("ADMIN", "PLAINTEXT"),
    ("TLS", "SSL"),
    ("CONTROLLER", "PLAINTEXT"),
    ("MTLS", "SSL"),
    ("EXPIRED", "SSL"),
    ("OTHERNAME", "SSL"),
    ("SASL", "SASL_SSL"),
    ("SCRAM", "SASL_PLAINTEXT"),
    ("OAUTH", "SASL_SSL"),
];

/// Users of PLAIN, who are granted what their test says.
const LIMITED_USERS: [&str; 8] =
    ["exact", "no-topic", "no-read", "no-group", "no-transactions", "no-write", "no-create", "no-configs"];

/// See the module.
pub struct SecuredBroker {
    ports: Vec<(&'static str, u16)>,
    pub tokens: IdentityProvider,
    folder: TempDir,
    admin: AdminClient<DefaultClientContext>,
    _server: Server,
}

/// The broker.
pub fn broker() -> &'static SecuredBroker {
    static BROKER: OnceLock<SecuredBroker> = OnceLock::new();
    BROKER.get_or_init(SecuredBroker::start)
}

impl SecuredBroker {
    fn start() -> Self {
        let folder = server_folder();
        let (ours, foreign) = (Authority::new("our authority"), Authority::new("foreign authority"));
        let here = ["127.0.0.1", "localhost"];
        let files = [
            ("good.pem", ours.certificate("broker", &here, Validity::Now).keystore()),
            ("expired.pem", ours.certificate("broker", &here, Validity::Expired).keystore()),
            ("other.pem", ours.certificate("broker", &["kafka.example"], Validity::Now).keystore()),
            ("ca.pem", ours.pem()),
            ("foreign-ca.pem", foreign.pem()),
        ];
        for (name, text) in files {
            write(folder.path(), name, &text);
        }
        for (name, authority) in [("client", &ours), ("foreign-client", &foreign)] {
            let certificate = authority.certificate("albertine", &["albertine"], Validity::Now);
            write(folder.path(), &format!("{name}.crt"), &certificate.certificate);
            write(folder.path(), &format!("{name}.key"), &certificate.key);
        }
        let ports: Vec<_> = LISTENERS.iter().map(|(name, _)| (*name, free_port())).collect();
        let tokens = IdentityProvider::start();
        let scram =
            ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|name| format!("{name}=[name=albertine,password={PASSWORD}]"));
        write(folder.path(), "scram", &format!("{}\n", scram.join("\n")));
        write(folder.path(), "server.properties", &properties(&ports, folder.path().to_str().unwrap(), &tokens));
        let allowed = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}", tokens.url("jwks"));
        let environment = [("JAVA_TOOL_OPTIONS", allowed)];
        let server = Server::start("kafka", folder.path(), ports[0].1, Some("Kafka Server started"), &environment);
        let admin = ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", ports[0].1)).create().unwrap();
        let broker = Self { ports, tokens, folder, admin, _server: server };
        // Whom the matrix lets in may do everything.
        for user in ["User:albertine", "User:CN=albertine"] {
            for (kind, operations) in
                [(TOPIC, &[READ, WRITE, CREATE, DESCRIBE_CONFIGS][..]), (GROUP, &[READ]), (TRANSACTIONAL_ID, &[WRITE])]
            {
                for &operation in operations {
                    broker.grant(user, (kind, PREFIXED), "secured", operation);
                }
            }
        }
        broker
    }

    /// `127.0.0.1:PORT` of a listener.
    pub fn address(&self, listener: &str) -> String {
        let (_, port) = self.ports.iter().find(|(name, _)| *name == listener).unwrap();
        format!("127.0.0.1:{port}")
    }

    /// The path of a file beside the broker.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn create_topic(&self, topic: &str) {
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        block_on(self.admin.create_topics([&new], &request_options())).unwrap()[0].as_ref().unwrap();
    }

    /// Puts the documents of these numbers on the topic.
    pub fn produce_documents(&self, topic: &str, indexes: impl IntoIterator<Item = usize>) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.address("ADMIN")).create().unwrap();
        for index in indexes {
            let value = document(index).to_string();
            producer.send(BaseRecord::<str, str>::to(topic).payload(&value)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Where a topic's only partition ends.
    pub fn end_of(&self, topic: &str) -> i64 {
        self.admin.inner().fetch_watermarks(topic, 0, Duration::from_secs(10)).map_or(0, |(_, end)| end)
    }

    /// Grants an operation on the resource of this kind and name, or on those whose names begin so. `rdkafka` has no
    /// call for it: this is `CreateAcls` of Kafka's protocol, in version 1.
    pub fn grant(&self, user: &str, (kind, pattern): (i8, i8), name: &str, operation: i8) {
        const CREATE_ACLS: i16 = 30;
        const ALLOW: i8 = 3;
        let string = |text: &str| [&i16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
        let head =
            [&CREATE_ACLS.to_be_bytes()[..], &1_i16.to_be_bytes(), &1_i32.to_be_bytes(), &string("tests")].concat();
        let resource = [&kind.to_be_bytes()[..], &string(name), &pattern.to_be_bytes()].concat();
        let entry = [&string(user)[..], &string("*"), &operation.to_be_bytes(), &ALLOW.to_be_bytes()].concat();
        let request = [&head[..], &1_i32.to_be_bytes(), &resource, &entry].concat();
        let mut connection = TcpStream::connect(self.address("ADMIN")).unwrap();
        connection.write_all(&[&u32::try_from(request.len()).unwrap().to_be_bytes(), &*request].concat()).unwrap();
        // Length, correlation, throttling, the number of results, and the first one's code.
        let mut answer = [0; 18];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(answer[16..], [0, 0], "the broker does not take the grant: {answer:?}");
    }
}

/// Kinds of resources, patterns of names, and operations, as the protocol numbers them.
pub const TOPIC: i8 = 2;
pub const GROUP: i8 = 3;
pub const TRANSACTIONAL_ID: i8 = 5;
pub const LITERAL: i8 = 3;
pub const PREFIXED: i8 = 4;
pub const READ: i8 = 3;
pub const WRITE: i8 = 4;
pub const CREATE: i8 = 5;
pub const DESCRIBE: i8 = 8;
pub const DESCRIBE_CONFIGS: i8 = 10;

fn properties(ports: &[(&str, u16)], folder: &str, tokens: &IdentityProvider) -> String {
    let port = |wanted: &str| ports.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let listed = |names: &mut dyn Iterator<Item = (&str, u16)>| {
        names.map(|(name, port)| format!("{name}://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    };
    let protocols: Vec<String> = LISTENERS.iter().map(|(name, protocol)| format!("{name}:{protocol}")).collect();
    let user = |user: &&str| format!("user_{user}=\"{PASSWORD}\"");
    let plain_users = LIMITED_USERS.iter().chain(&["albertine"]).map(user).collect::<Vec<_>>().join(" ");
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    format!(
        "process.roles=broker,controller
node.id=1
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=ADMIN
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
connection.failed.authentication.delay.ms=50
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.truststore.type=PEM
ssl.keystore.location={folder}/good.pem
ssl.truststore.location={folder}/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={folder}/expired.pem
listener.name.othername.ssl.keystore.location={folder}/other.pem
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {plain_users};
listener.name.sasl.scram-sha-256.sasl.jaas.config={scram}
listener.name.sasl.scram-sha-512.sasl.jaas.config={scram}
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.scram.scram-sha-256.sasl.jaas.config={scram}
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.oauth.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
sasl.oauthbearer.jwt.validator.class=org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator
sasl.oauthbearer.jwks.endpoint.url={jwks}
sasl.oauthbearer.expected.audience=kafka
",
        listeners = listed(&mut ports.iter().copied()),
        advertised = listed(&mut ports.iter().copied().filter(|(name, _)| *name != "CONTROLLER")),
        protocols = protocols.join(","),
        controller = port("CONTROLLER"),
        jwks = tokens.url("jwks"),
    )
}
