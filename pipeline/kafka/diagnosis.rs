//! What is wrong with a connection to Kafka, from what its client reported: the cause, and what to do about it.
//!
//! librdkafka tries again for ever and tells of each attempt in a line of text; the request that waits for the
//! connection only times out. The texts here are those of the release that is linked; a report that matches none is
//! passed on as it is. Whether a server's certificate is too old, of a foreign authority or for another name is not in
//! them: `kafka/certificate.rs` looks at it.

use std::fmt;

use crate::config::secret::ClientSettings;

/// How far the connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It was not made, or not secured.
    Connection,
    /// It was, and the broker does not take this user.
    Authentication,
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Somebody has to change something.
    Final,
    /// It may be a broker that starts, or one of several.
    MayPass,
}

/// What is wrong, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    pub stage: Stage,
    pub outlook: Outlook,
    pub cause: String,
    pub remedy: String,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; {}", self.cause, self.remedy)
    }
}

/// What is done about brokers that are not there.
pub const START_OR_CORRECT: &str =
    "start them, or correct `kafka.bootstrap_servers`, `KAFKA_BOOTSTRAP_SERVERS` or `kafka.client`";

/// What a report means, by words in it; the first that match any report count, since they say most.
type Reading = fn(&Client<'_>, &str) -> Option<Diagnosis>;
const READINGS: [Reading; 8] =
    [token, mechanism, credentials, client_certificate, server_certificate, protocol, silence, unreachable];

/// The most telling explanation of these reports (the oldest first); `None` where there is none.
pub fn diagnose(client: &ClientSettings, reports: &[String]) -> Option<Diagnosis> {
    let client = Client(client);
    READINGS.iter().find_map(|reading| reports.iter().rev().find_map(|report| reading(&client, report)))
}

/// Whether the reports say that a broker's certificate is not trusted; if so, the broker's `host:port`.
pub fn distrusted_server(reports: &[String]) -> Option<&str> {
    let report = reports.iter().rev().find(|report| report.contains(NOT_TRUSTED))?;
    let (_, address) = report.rsplit_once("ssl://").filter(|(_, address)| address.contains('/'))?;
    address.split('/').next()
}

const NOT_TRUSTED: &str = "certificate verify failed";

/// The settings, as far as messages need them.
struct Client<'a>(&'a ClientSettings);

impl Client<'_> {
    fn get(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.0.0.get(*name)).map(String::as_str)
    }

    fn protocol(&self) -> String {
        self.get(&["security.protocol"]).unwrap_or("PLAINTEXT").to_ascii_uppercase()
    }

    fn uses_tls(&self) -> bool {
        self.protocol().ends_with("SSL")
    }

    fn uses_sasl(&self) -> bool {
        self.protocol().starts_with("SASL")
    }

    fn mechanism(&self) -> &str {
        self.get(&["sasl.mechanism", "sasl.mechanisms"]).unwrap_or("GSSAPI")
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a reading returns")]
fn connection(cause: impl Into<String>, remedy: impl Into<String>) -> Option<Diagnosis> {
    let (stage, outlook) = (Stage::Connection, Outlook::Final);
    Some(Diagnosis { stage, outlook, cause: cause.into(), remedy: remedy.into() })
}

fn authentication(cause: impl Into<String>, remedy: impl Into<String>) -> Option<Diagnosis> {
    Some(Diagnosis { stage: Stage::Authentication, ..connection(cause, remedy)? })
}

/// A report without what librdkafka puts around it: the broker's name before, the state of the connection behind.
fn core(report: &str) -> &str {
    let report = report.split_once("bootstrap: ").map_or(report, |(_, rest)| rest);
    report.rsplit_once(" (after ").map_or(report, |(rest, _)| rest)
}

/// An OAUTHBEARER token could not be had, or is not taken.
fn token(client: &Client<'_>, report: &str) -> Option<Diagnosis> {
    if report.contains(r#""status":"invalid_token""#) {
        return authentication(
            "the broker refused the token: it is expired or unsigned, or of an issuer, an audience or a key that the broker does not take",
            "compare the token's claims and its signing key with the broker's `sasl.oauthbearer.expected.issuer`, `sasl.oauthbearer.expected.audience` and `sasl.oauthbearer.jwks.endpoint.url`",
        );
    }
    let (_, reason) = report.split_once("SASL OAUTHBEARER token: ")?;
    if reason.contains("unexpired token") {
        return authentication(
            "the token endpoint gave a token that is expired already",
            "set the clocks of this machine and of the token endpoint right, or lengthen the lifetime of its tokens",
        );
    }
    let url = client.get(&["sasl.oauthbearer.token.endpoint.url"]).unwrap_or_default();
    let place = url::Url::parse(url).ok().and_then(|url| Some(format!("{}{}", url.host_str()?, url.path())));
    let place = place.unwrap_or_default();
    if reason.contains("Failed to connect") || reason.contains("resolve host") || reason.contains("timed out") {
        return authentication(
            format!("the token endpoint at `{place}` cannot be reached: {reason}"),
            "correct `sasl.oauthbearer.token.endpoint.url` in `[kafka.client]`, or let this machine reach it",
        );
    }
    if reason.contains("certificate") || reason.contains("SSL") {
        return authentication(
            format!("the certificate of the token endpoint at `{place}` is not trusted: {reason}"),
            "set `https.ca.location` in `[kafka.client]` to the certificate of its authority",
        );
    }
    authentication(
        format!("the token endpoint at `{place}` gave no token: {reason}"),
        "correct `sasl.oauthbearer.client.id`, `sasl.oauthbearer.client.secret` and `sasl.oauthbearer.scope` in `[kafka.client]`",
    )
}

/// SASL was spoken, and the broker has it in another way or not at all.
fn mechanism(client: &Client<'_>, report: &str) -> Option<Diagnosis> {
    if report.contains("not valid in current SASL state") {
        let without = client.protocol().replace("SASL_", "");
        return authentication(
            "the broker asks for no user on this port: it has no SASL there",
            format!("name the port that has, or set `security.protocol` to `{without}` in `[kafka.client]`"),
        );
    }
    let (_, offered) = report.split_once("Unsupported SASL mechanism: broker's supported mechanisms: ")?;
    authentication(
        format!("the broker does not offer the mechanism `{}`, but {}", client.mechanism(), core(offered)),
        "set `sasl.mechanism` in `[kafka.client]` to one that it offers",
    )
}

/// The broker knows the mechanism, and refuses the user.
fn credentials(client: &Client<'_>, report: &str) -> Option<Diagnosis> {
    let (_, reason) = report.split_once("SASL authentication error: ")?;
    let (user, mechanism) = (client.get(&["sasl.username"]).unwrap_or_default(), client.mechanism());
    authentication(
        format!("the broker refused user `{user}` with {mechanism}: {}", core(reason)),
        format!(
            "correct `sasl.username` and `sasl.password` in `[kafka.client]`, or have the user made for {mechanism}"
        ),
    )
}

/// The broker wants a certificate of the client, or another one.
fn client_certificate(client: &Client<'_>, report: &str) -> Option<Diagnosis> {
    const ALERTS: [&str; 7] = [
        "alert certificate required",
        "alert bad certificate",
        "alert certificate unknown",
        "alert unknown ca",
        "alert unsupported certificate",
        "alert certificate expired",
        "alert handshake failure",
    ];
    let alert = ALERTS.iter().find(|alert| report.contains(**alert))?;
    let given = ["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"];
    match client.get(&given) {
        None => authentication(
            "the broker demands a client certificate, and none is configured",
            "set `ssl.certificate.location` and `ssl.key.location` in `[kafka.client]`",
        ),
        Some(_) => authentication(
            format!("the broker does not take this client's certificate ({})", alert.trim_start_matches("alert ")),
            "have it signed by an authority that the broker trusts (its `ssl.truststore.location`), and see that it is not expired",
        ),
    }
}

/// Which of the three it is, the client does not say.
fn server_certificate(_: &Client<'_>, report: &str) -> Option<Diagnosis> {
    if !report.contains(NOT_TRUSTED) {
        return None;
    }
    connection(
        "the broker's certificate is not trusted: its authority is not known here, it is expired, or it is for another name",
        "set `ssl.ca.location` in `[kafka.client]` to the certificate of its authority, or have the broker's certificate renewed",
    )
}

/// TLS where the broker has none, or none where it has.
fn protocol(client: &Client<'_>, report: &str) -> Option<Diagnosis> {
    let is_plain = ["PLAINTEXT broker listener", "wrong version number", "packet length too long"]
        .iter()
        .any(|sign| report.contains(sign));
    if client.uses_tls() && is_plain {
        let without = if client.uses_sasl() { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
        return connection(
            "the broker does not speak TLS on this port",
            format!("name the port that does, or set `security.protocol` to `{without}` in `[kafka.client]`"),
        );
    }
    let was_closed = report.contains("Disconnected") || report.contains("Connection reset");
    if !client.uses_tls() && was_closed && report.contains("in state APIVERSION_QUERY") {
        let with = if client.uses_sasl() { "SASL_SSL" } else { "SSL" };
        return connection(
            "the broker closed the connection at the first words: it speaks TLS on this port",
            format!("set `security.protocol` to `{with}` in `[kafka.client]`, or name a port without TLS"),
        );
    }
    None
}

/// The broker hangs up on who does not say who he is.
fn silence(client: &Client<'_>, report: &str) -> Option<Diagnosis> {
    let was_closed = ["Disconnected", "Connection reset", "Broken pipe"].iter().any(|sign| report.contains(sign));
    if client.uses_sasl() || !was_closed || !report.contains("in state UP") {
        return None;
    }
    let with = format!("SASL_{}", client.protocol());
    authentication(
        "the broker closed the connection without an answer: it wants to know the user first",
        format!(
            "set `security.protocol` to `{with}`, and `sasl.mechanism`, `sasl.username` and `sasl.password`, in `[kafka.client]`"
        ),
    )
}

fn unreachable(_: &Client<'_>, report: &str) -> Option<Diagnosis> {
    const SIGNS: [&str; 6] =
        ["Connection refused", "Failed to resolve", "unreachable", "No route", "timed out", "Disconnected"];
    if !SIGNS.iter().any(|sign| report.contains(sign)) {
        return None;
    }
    Some(Diagnosis { outlook: Outlook::MayPass, ..connection(core(report), START_OR_CORRECT)? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> ClientSettings {
        ClientSettings(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<BTreeMap<_, _>>())
    }

    fn found(pairs: &[(&str, &str)], reports: &[&str]) -> Option<Diagnosis> {
        let reports: Vec<String> = reports.iter().map(|report| (*report).to_owned()).collect();
        diagnose(&settings(pairs), &reports)
    }

    #[test]
    fn the_most_telling_report_counts_wherever_it_stands() {
        let refused = "sasl_ssl://a:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 304ms in state AUTH_REQ)";
        let diagnosis = found(
            &[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "ann")],
            &[
                refused,
                "1/1 brokers are down",
                "sasl_ssl://b:2/bootstrap: Connect to ipv4#b:2 failed: Connection refused (after 0ms in state CONNECT)",
            ],
        )
        .unwrap();
        assert_eq!((diagnosis.stage, diagnosis.outlook), (Stage::Authentication, Outlook::Final));
        assert_eq!(
            diagnosis.cause,
            "the broker refused user `ann` with PLAIN: Authentication failed: Invalid username or password"
        );
    }

    #[test]
    fn a_broker_that_is_away_may_come_back() {
        let report = "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        let diagnosis = found(&[], &[report, "1/1 brokers are down"]).unwrap();
        assert_eq!(diagnosis.outlook, Outlook::MayPass);
        assert_eq!(
            diagnosis.to_string(),
            format!("Connect to ipv4#127.0.0.1:1 failed: Connection refused; {START_OR_CORRECT}")
        );
        assert_eq!(found(&[], &["1/1 brokers are down"]), None);
    }

    #[test]
    fn the_server_whose_certificate_is_refused_is_found() {
        let reports = ["sasl_ssl://kafka.example:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified (after 54ms in state SSL_HANDSHAKE)".to_owned()];
        assert_eq!(distrusted_server(&reports), Some("kafka.example:9093"));
        assert_eq!(distrusted_server(&["1/1 brokers are down".to_owned()]), None);
    }
}
