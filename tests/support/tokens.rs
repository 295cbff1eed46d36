//! An identity provider on loopback: a token endpoint for clients, and the keys of its tokens for brokers.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use serde_json::{Value, json};

/// The secret that the token endpoint takes, of every client.
pub const CLIENT_SECRET: &str = "client-secret-6f1c";

/// A running provider, until the tests end.
pub struct IdentityProvider {
    port: u16,
}

/// The keys that sign: the first is the one that brokers are told of.
struct Keys {
    known: KeyPair,
    unknown: KeyPair,
}

impl IdentityProvider {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self { port: listener.local_addr().unwrap().port() };
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let keys = Arc::new(Keys { known: key(), unknown: key() });
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let keys = Arc::clone(&keys);
                std::thread::spawn(move || answer(connection.unwrap(), &keys));
            }
        });
        provider
    }

    /// `jwks`, or the endpoint for a kind of token: `token`, `expired`, `forged`, `unsigned`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

fn answer(mut connection: TcpStream, keys: &Keys) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // A client that hangs up without a word, as those that look whether a port answers do.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    reader.read_exact(&mut vec![0; length]).unwrap();
    let path = lines[0].split(' ').nth(1).unwrap();
    let (status, body) = if path == "/jwks" {
        (200, json!({"keys": [jwk(&keys.known)]}))
    } else if header("authorization").is_some_and(|value| is_client(&value)) {
        (200, json!({"access_token": token(path, keys), "token_type": "bearer", "expires_in": 300}))
    } else {
        (401, json!({"error": "invalid_client", "error_description": "no such client"}))
    };
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

fn is_client(authorization: &str) -> bool {
    let encoded = authorization.strip_prefix("Basic ").unwrap_or_default();
    let text = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    String::from_utf8_lossy(&text).ends_with(&format!(":{CLIENT_SECRET}"))
}

/// RFC 7517, for a key of RFC 7518, section 6.2.
fn jwk(key: &KeyPair) -> Value {
    let point = &key.public_key_raw()[1..];
    let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "EC", "crv": "P-256", "kid": "known", "use": "sig", "alg": "ES256", "x": coordinate(&point[..32]), "y": coordinate(&point[32..])})
}

/// RFC 7519, signed with ES256 unless the path says otherwise.
fn token(path: &str, keys: &Keys) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (issued, expires) = if path == "/expired" { (now - 7200, now - 3600) } else { (now - 10, now + 300) };
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let algorithm = if path == "/unsigned" { "none" } else { "ES256" };
    let head = part(json!({"alg": algorithm, "typ": "JWT", "kid": "known"}));
    let claims = part(json!({"sub": "albertine", "aud": "kafka", "iss": "tests", "iat": issued, "exp": expires}));
    let signed = format!("{head}.{claims}");
    let signature = match path {
        "/unsigned" => Vec::new(),
        "/forged" => jose_signature(&keys.unknown.sign(signed.as_bytes()).unwrap()),
        _ => jose_signature(&keys.known.sign(signed.as_bytes()).unwrap()),
    };
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// The two numbers of a signature, each in 32 bytes, from their DER.
fn jose_signature(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        (&der[at + 2..at + 2 + length], at + 2 + length)
    };
    let (first, next) = number(2);
    let (second, _) = number(next);
    let fixed = |number: &[u8]| {
        let mut fixed = [0; 32];
        let significant = &number[number.len().saturating_sub(32)..];
        fixed[32 - significant.len()..].copy_from_slice(significant);
        fixed
    };
    [fixed(first), fixed(second)].concat()
}
