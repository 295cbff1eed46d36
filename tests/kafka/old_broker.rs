//! A broker as Apache Kafka 0.10 had them, before topic ids, that answers about one topic: for answers that
//! the real broker of the tests never gives.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, RwLock},
    thread,
};

use rdkafka::{ClientConfig, consumer::BaseConsumer};

pub const TOPIC: &str = "reviews";

/// `ApiVersionsResponse` of version 0: there are versions 0 to 1 of `Metadata` and 0 of `ApiVersions`.
const API_VERSIONS: [u8; 18] = [0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 1, 0, 18, 0, 0, 0, 0];
/// The same, to a version of the request that the broker does not know.
const UNSUPPORTED_VERSION: [u8; 6] = [0, 35, 0, 0, 0, 0];

/// The broker, which answers until the tests end.
pub struct OldBroker {
    port: u16,
    /// Whoever holds it for writing holds back the answers about the topic.
    pub answering: Arc<RwLock<()>>,
}

impl OldBroker {
    /// A broker that answers with this code of Kafka's protocol where it is asked about the topic.
    pub fn new(code: i16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = Self { port: listener.local_addr().unwrap().port(), answering: Arc::default() };
        let (port, answering) = (broker.port, Arc::clone(&broker.answering));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, answering) = (connection.unwrap(), Arc::clone(&answering));
                // It ends with an error when the client hangs up.
                thread::spawn(move || answer(connection, port, code, &answering));
            }
        });
        broker
    }

    pub fn client(&self) -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", self.port)).create().unwrap()
    }
}

fn answer(mut connection: TcpStream, port: u16, code: i16, answering: &RwLock<()>) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        connection.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        connection.read_exact(&mut request)?;
        let answer = match request[..4] {
            [0, 18, 0, 0] => API_VERSIONS.to_vec(),
            [0, 18, _, _] => UNSUPPORTED_VERSION.to_vec(),
            [0, 3, 0, 1] => {
                if request.windows(TOPIC.len()).any(|bytes| bytes == TOPIC.as_bytes()) {
                    drop(answering.read());
                }
                metadata(port, code)
            }
            ref other => panic!("there is no answer to a request that begins with {other:?}"),
        };
        let correlation = &request[4..8];
        let answer = [correlation, &answer].concat();
        connection.write_all(&[&u32::try_from(answer.len()).unwrap().to_be_bytes(), &*answer].concat())?;
    }
}

/// `MetadataResponse` of version 1.
fn metadata(port: u16, code: i16) -> Vec<u8> {
    let string = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let (one, node, none) = (1_i32.to_be_bytes(), 1_i32.to_be_bytes(), (-1_i16).to_be_bytes());
    let broker = [&node[..], &string("127.0.0.1"), &i32::from(port).to_be_bytes(), &none].concat();
    let (is_internal, partitions) = ([0], 0_i32.to_be_bytes());
    let topic = [&code.to_be_bytes()[..], &string(TOPIC), &is_internal, &partitions].concat();
    let controller = node;
    [&one[..], &broker, &controller, &one, &topic].concat()
}
