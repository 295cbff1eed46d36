//! Why a broker's certificate is not trusted. librdkafka says only that it is not, so this looks at the certificate
//! itself: one handshake that ends before anything is said.

use std::{
    io::{self, ErrorKind},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error as TlsError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::config::secret::ClientSettings;

/// Deadline of each step: an operator is waiting.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The cause and the remedy, where this look finds the certificate wanting too.
pub fn refusal(client: &ClientSettings, address: &str) -> Option<(String, String)> {
    let error = handshake(client, address).err()?;
    let TlsError::InvalidCertificate(error) = error.get_ref()?.downcast_ref::<TlsError>()? else { return None };
    explained(error, address)
}

fn explained(error: &CertificateError, address: &str) -> Option<(String, String)> {
    let (cause, remedy) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!("the certificate of `{address}` is expired"),
            "have it renewed, and see that the clock of this machine is right",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (format!("the certificate of `{address}` is not valid yet"), "see that the clock of this machine is right")
        }
        CertificateError::NotValidForName => (
            format!("the certificate of `{address}` is for another name"),
            "name the broker in `kafka.bootstrap_servers` as its certificate does, or have the name added to it",
        ),
        CertificateError::NotValidForNameContext { presented, .. } => (
            format!("the certificate of `{address}` is for another name: {}", presented.join(", ")),
            "name the broker in `kafka.bootstrap_servers` as its certificate does, or have the name added to it",
        ),
        CertificateError::UnknownIssuer => (
            format!("the certificate of `{address}` is of an authority that is not known here"),
            "set `ssl.ca.location` in `[kafka.client]` to the certificate of its authority",
        ),
        _ => return None,
    };
    Some((cause, remedy.into()))
}

fn handshake(client: &ClientSettings, address: &str) -> io::Result<()> {
    let (host, _) = address.rsplit_once(':').ok_or(ErrorKind::InvalidInput)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(authorities(client))
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let socket = address.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&socket, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(())
}

/// The authorities that the client trusts.
fn authorities(client: &ClientSettings) -> RootCertStore {
    let certificates: Vec<CertificateDer<'_>> = if let Some(pem) = client.0.get("ssl.ca.pem") {
        CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect()
    } else if let Some(location) = client.0.get("ssl.ca.location").filter(|location| *location != "probe") {
        in_files(Path::new(location))
    } else {
        rustls_native_certs::load_native_certs().certs
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    store
}

/// Those of a file, or of the files of a folder.
fn in_files(location: &Path) -> Vec<CertificateDer<'static>> {
    let files = match std::fs::read_dir(location) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![location.to_owned()],
    };
    files.iter().filter_map(|file| CertificateDer::pem_file_iter(file).ok()).flatten().flatten().collect()
}
