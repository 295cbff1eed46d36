//! Schemas in the real registry, records framed with their ids, and a registry that answers what a test tells it.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use apache_avro::{Schema, types::Value as Avro, writer::datum::GenericDatumWriter};
use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer,
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{environment, pipeline::write, unique};

pub fn url() -> String {
    environment("SCHEMA_REGISTRY_URL")
}

/// A registered schema.
pub struct Registered {
    pub id: u32,
    pub subject: String,
}

/// Registers an Avro schema under a subject of its own; `references` are names and what they stand for.
pub fn register_avro(schema: &Value, references: &[(&str, &Registered)]) -> Registered {
    register("AVRO", &schema.to_string(), references)
}

/// The same for a `.proto` file.
pub fn register_protobuf(schema: &str, references: &[(&str, &Registered)]) -> Registered {
    register("PROTOBUF", schema, references)
}

/// The same for a JSON Schema.
pub fn register_json(schema: &Value) -> Registered {
    register("JSON", &schema.to_string(), &[])
}

fn register(kind: &str, schema: &str, references: &[(&str, &Registered)]) -> Registered {
    let subject = unique("subject");
    let references: Vec<Value> = references
        .iter()
        .map(|(name, referred)| json!({"name": name, "subject": referred.subject, "version": 1}))
        .collect();
    let body = json!({"schema": schema, "schemaType": kind, "references": references});
    let mut answer = ureq::post(format!("{}/subjects/{subject}/versions", url())).send_json(body).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    Registered { id: u32::try_from(answer["id"].as_u64().unwrap()).unwrap(), subject }
}

/// Data behind the id of their schema.
pub fn framed(id: u32, data: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], data].concat()
}

/// A record as Avro's own writer writes it.
pub fn avro(schema: &Value, fields: &[(&str, Avro)]) -> Vec<u8> {
    let schema = Schema::parse(schema).unwrap();
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(Avro::Record(fields)).unwrap()
}

/// A message of a file that imports nothing but Google's own, from its JSON form.
pub fn protobuf(schema: &str, message: &str, fields: &Value) -> Vec<u8> {
    let file = protox::file::File::from_source("record.proto", schema).unwrap();
    let mut pool = DescriptorPool::global();
    pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).unwrap();
    let message = pool.get_message_by_name(message).unwrap();
    DynamicMessage::deserialize(message, fields).unwrap().encode_to_vec()
}

/// A registry that gives one answer to everything, until it is told another.
pub struct FakeRegistry {
    port: u16,
    answer: Arc<Mutex<(u16, String)>>,
    requests: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

/// The files that a client needs to be trusted and to trust, in PEM.
pub struct ClientFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// They go with it.
    _folder: TempDir,
}

impl FakeRegistry {
    pub fn answering(status: u16, body: &str) -> Self {
        Self::serving(status, body, give)
    }

    /// The same over TLS, for clients that have a certificate of its own authority.
    pub fn answering_over_tls(status: u16, body: &str) -> (Self, ClientFiles) {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = signed("127.0.0.1");
        let (client, client_key) = signed("albertine");

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let key = PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![server.der().clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let fake = Self::serving(status, body, move |connection, answer| {
            let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            give(StreamOwned::new(session, connection), answer)
        });

        let folder = TempDir::new().unwrap();
        let file = |name: &str, pem: String| write(folder.path(), name, &pem);
        let files = ClientFiles {
            ca: file("ca.pem", ca_certificate.pem()),
            certificate: file("client.pem", client.pem()),
            key: file("client-key.pem", client_key.serialize_pem()),
            _folder: folder,
        };
        (fake, files)
    }

    fn serving(
        status: u16,
        body: &str,
        serve: impl Fn(TcpStream, &(u16, String)) -> io::Result<String> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            port: listener.local_addr().unwrap().port(),
            answer: Arc::new(Mutex::new((status, body.to_owned()))),
            requests: Arc::default(),
            last: Arc::default(),
        };
        let (answer, requests, last) = (Arc::clone(&fake.answer), Arc::clone(&fake.requests), Arc::clone(&fake.last));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                requests.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().unwrap().clone();
                // It ends with an error when the client hangs up.
                if let Ok(request) = serve(connection.unwrap(), &answer) {
                    *last.lock().unwrap() = request;
                }
            }
        });
        fake
    }

    pub fn answer(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// The head of the last request.
    pub fn last_request(&self) -> String {
        self.last.lock().unwrap().clone()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn give(mut connection: impl Read + Write, (status, body): &(u16, String)) -> io::Result<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let length = body.len();
    write!(connection, "HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    Ok(String::from_utf8_lossy(&request).into_owned())
}
