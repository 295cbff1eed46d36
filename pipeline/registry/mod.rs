//! The client of a Confluent-compatible schema registry: schemas by the ids that records carry.
//!
//! A schema never changes under its id, so what was read once is kept. That the registry has no such schema is believed
//! for half a minute only: it may be registered later. Anything else that is no answer is never taken for one: the
//! caller waits and asks again. Calls block, and may be made from any thread; two that miss at once both ask.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use ureq::{
    Agent,
    http::header::{ACCEPT, AUTHORIZATION},
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};
use url::Url;

use crate::decode::schema::{Reference, Schema, SchemaError, SchemaKind, SchemaSource, Schemas};

/// Schemas kept; the one not used for longest makes room. A stream has a few, and each takes some kilobytes; fewer would
/// only be asked for again.
const SCHEMAS_MAX: usize = 1_000;
/// How long it is believed that there is no such schema. Longer, a schema that is registered late costs more rejections;
/// shorter, a topic full of foreign records asks more often.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// The longest answer. The largest schemas people write have some hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Schemas that one schema may refer to, directly or not.
const REFERENCES_MAX: usize = 200;

const MEDIA_TYPES: &str = "application/vnd.schemaregistry.v1+json, application/json";
/// Subject, version and schema not found.
const NOT_FOUND_CODES: [u32; 3] = [40_401, 40_402, 40_403];

/// Where the registry is and how it is reached.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    pub url: Url,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// Certificates that sign the registry's, as PEM; without it those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// This client's own certificate and its key, as PEM.
    pub client_certificate: Option<ClientCertificate>,
    /// For a whole request.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot read `{}` for the schema registry: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("`{}` for the schema registry holds no {expected} in PEM", path.display())]
    Pem { path: PathBuf, expected: &'static str },
}

/// See the module.
pub struct Registry {
    agent: Agent,
    url: Url,
    authorization: Option<SecretString>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<u32, Entry>,
    uses: u64,
}

struct Entry {
    schema: Result<Arc<Schema>, SchemaError>,
    read_at: Instant,
    used: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<AnsweredReference>,
}

#[derive(Deserialize)]
struct AnsweredReference {
    name: String,
    subject: String,
    version: i64,
}

#[derive(Deserialize)]
struct Problem {
    error_code: u32,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// Sets the client up; nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError`] where a certificate or key cannot be read.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let roots = config.ca_file.as_deref().map_or_else(|| Ok(system_certificates()), certificates)?;
        let client = config.client_certificate.as_ref().map(client_certificate).transpose()?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).client_cert(client).build();
        let agent = Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .http_status_as_error(false)
            // A registry does not redirect; a login page does.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls)
            .build()
            .new_agent();
        let authorization = config.user.as_ref().map(|user| {
            let password = config.password.as_ref().map_or("", |password| password.expose_secret());
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))).into()
        });
        Ok(Self { agent, url: config.url.clone(), authorization, cache: Mutex::default() })
    }

    /// Asks whether it answers as a schema registry; the kinds of schemas it takes.
    ///
    /// # Errors
    /// [`SchemaError`] where it does not.
    pub fn check(&self) -> Result<Vec<String>, SchemaError> {
        self.get(&["schemas", "types"])
    }

    fn read(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        let answer: Answer = self.get(&["schemas", "ids", &id.to_string()]).map_err(|error| match error {
            SchemaError::Unknown(said) => SchemaError::Unknown(format!(
                "the schema registry at `{}` has no schema {id} ({said}); was the record written with another registry?",
                self.url
            )),
            error => error,
        })?;
        let invalid = |problem: String| {
            SchemaError::Invalid(format!(
                "schema {id} of the registry cannot be used: {problem}; register one that can, and produce the record again"
            ))
        };
        let kind = match answer.schema_type.as_deref() {
            None | Some("AVRO") => SchemaKind::Avro,
            Some("PROTOBUF") => SchemaKind::Protobuf,
            Some("JSON") => SchemaKind::Json,
            Some(other) => return Err(invalid(format!("its type is `{other}`"))),
        };
        let mut references = References::default();
        self.follow(answer.references, &mut references).map_err(|error| match error {
            SchemaError::Unknown(problem) => invalid(format!("a schema that it refers to is missing: {problem}")),
            SchemaError::Invalid(problem) => invalid(problem),
            error @ SchemaError::Unavailable(_) => error,
        })?;
        let source = SchemaSource { kind, text: answer.schema, references: references.found };
        let schema = Schema::compile(&source).map_err(invalid)?;
        tracing::info!(id, format = %schema.format(), "read a schema from the registry");
        Ok(Arc::new(schema))
    }

    /// Reads what a schema refers to, and before each what it refers to itself.
    fn follow(&self, answered: Vec<AnsweredReference>, references: &mut References) -> Result<(), SchemaError> {
        for AnsweredReference { name, subject, version } in answered {
            if !references.seen.insert(name.clone()) {
                continue;
            }
            if references.seen.len() > REFERENCES_MAX {
                return Err(SchemaError::Invalid(format!("it refers to more than {REFERENCES_MAX} schemas")));
            }
            let answer: Answer = self.get(&["subjects", &subject, "versions", &version.to_string()])?;
            self.follow(answer.references, references)?;
            references.found.push(Reference { name, text: answer.schema });
        }
        Ok(())
    }

    fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, SchemaError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let unavailable = |problem: String| SchemaError::Unavailable(format!("`{url}`: {problem}"));
        let mut request = self.agent.get(url.as_str()).header(ACCEPT, MEDIA_TYPES);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.expose_secret());
        }
        let mut response = request.call().map_err(|error| unavailable(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| unavailable(error.to_string()))?;
        match status {
            200 => serde_json::from_slice(&body).map_err(|error| {
                unavailable(format!(
                    "it answered something that is no schema: {error}; is `schema_registry.url` right?"
                ))
            }),
            401 | 403 => Err(unavailable(format!(
                "it refuses us (HTTP {status}); are `schema_registry.user` and `schema_registry.password` right, and may this user read schemas?"
            ))),
            404 => match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) if NOT_FOUND_CODES.contains(&problem.error_code) => {
                    Err(SchemaError::Unknown(problem.message))
                }
                _ => Err(unavailable(
                    "there is no registry (HTTP 404); is the path of `schema_registry.url` right?".into(),
                )),
            },
            _ => Err(unavailable(format!("HTTP {status}"))),
        }
    }

    fn cached(&self, id: u32) -> Option<Result<Arc<Schema>, SchemaError>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.uses += 1;
        let uses = cache.uses;
        let entry = cache.entries.get_mut(&id)?;
        entry.used = uses;
        (entry.schema.is_ok() || entry.read_at.elapsed() < UNKNOWN_FOR).then(|| entry.schema.clone())
    }

    fn keep(&self, id: u32, schema: Result<Arc<Schema>, SchemaError>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.entries.len() >= SCHEMAS_MAX && !cache.entries.contains_key(&id) {
            let oldest = cache.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id);
            oldest.and_then(|oldest| cache.entries.remove(&oldest));
        }
        let used = cache.uses;
        cache.entries.insert(id, Entry { schema, read_at: Instant::now(), used });
    }
}

#[derive(Default)]
struct References {
    seen: HashSet<String>,
    found: Vec<Reference>,
}

impl Schemas for Registry {
    fn schema(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        if let Some(cached) = self.cached(id) {
            return cached;
        }
        if i32::try_from(id).is_err() {
            let message = format!(
                "no registry has a schema {id}, since ids have 31 bits; is the value framed by a registry's serializer?"
            );
            return Err(SchemaError::Unknown(message));
        }
        let schema = self.read(id);
        if !matches!(schema, Err(SchemaError::Unavailable(_))) {
            self.keep(id, schema.clone());
        }
        schema
    }
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, RegistryError> {
    let bytes = fs::read(path).map_err(|source| RegistryError::File { path: path.to_owned(), source })?;
    Ok(parse_pem(&bytes).filter_map(Result::ok).collect())
}

/// Those that Kafka's and Postgres' connections trust, too.
fn system_certificates() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let certificates: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(RegistryError::Pem { path: path.to_owned(), expected: "certificate" });
    }
    Ok(certificates)
}

fn client_certificate(files: &ClientCertificate) -> Result<ClientCert, RegistryError> {
    let key: Option<PrivateKey<'static>> = pem(&files.key)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key = key.ok_or_else(|| RegistryError::Pem { path: files.key.clone(), expected: "private key" })?;
    Ok(ClientCert::new_with_certs(&certificates(&files.certificate)?, key))
}
