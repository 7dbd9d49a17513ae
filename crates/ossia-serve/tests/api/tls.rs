//! TLS over real connections: who trusts the certificate gets answers, and whatever else comes to the port gets nothing of
//! HTTP and does the server no harm.

use std::sync::Arc;

use crate::common::TestServer;
use ossia_serve::app::router;
use ossia_serve::{listener, tls};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A certificate for these names and its key, new each time.
fn pair(names: &[&str]) -> (String, String, CertificateDer<'static>) {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    (cert.pem(), signing_key.serialize_pem(), cert.der().clone())
}

/// A server that speaks TLS, where it is, and what a client must trust.
struct Sealed {
    server: TestServer,
    at: std::net::SocketAddr,
    trusted: CertificateDer<'static>,
    _stop: watch::Sender<bool>,
}

async fn sealed() -> Sealed {
    let server = TestServer::start().await;
    let (certificate, key, trusted) = pair(&["localhost", "127.0.0.1"]);
    let files = [("one.pem", &certificate), ("one-key.pem", &key)].map(|(name, text)| {
        let file = server.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    });
    let acceptor = tls::acceptor(&files[0], &files[1]).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = port.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(listener::serve(port, router(server.app.clone()), Some(acceptor), stopping));
    Sealed { server, at, trusted, _stop: stop }
}

impl Sealed {
    /// What a client that trusts this certificate, and speaks these versions, gets from /health; or why it gets nothing.
    async fn health(
        &self,
        trusts: &CertificateDer<'static>,
        name: &'static str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusts.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config =
            config.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.at).await?;
        let mut stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await?;
        let request = format!("GET /health HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.at);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// What comes back for these bytes, up to the end of the connection.
    async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // It may be reset, which is an end too.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    async fn goes_on(&self) {
        let answer = self.health(&self.trusted, "localhost", &[&TLS12, &TLS13]).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn both_versions_of_tls_by_name_and_by_address() {
    let sealed = sealed().await;
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for name in ["localhost", "127.0.0.1"] {
            let answer = sealed.health(&sealed.trusted, name, versions).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_client_that_trusts_another_certificate_or_name_gets_nothing() {
    let sealed = sealed().await;
    let (_, _, other) = pair(&["localhost"]);
    assert!(sealed.health(&other, "localhost", &[&TLS13]).await.is_err());
    assert!(sealed.health(&sealed.trusted, "other.example", &[&TLS13]).await.is_err());
    sealed.goes_on().await;
}

/// A greeting of an older TLS, as OpenSSL would write it: version, 32 random bytes, no session, four suites, no compression.
fn old_greeting(version: [u8; 2]) -> Vec<u8> {
    let suites = [0xc0, 0x13, 0xc0, 0x09, 0x00, 0x2f, 0x00, 0x35];
    let mut hello = vec![version[0], version[1]];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, suites.len() as u8]);
    hello.extend_from_slice(&suites);
    hello.extend_from_slice(&[1, 0]);
    let len = hello.len() as u8;
    [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len], hello.as_slice()].concat()
}

#[tokio::test]
async fn what_is_no_tls_of_today_gets_an_alert_at_most() {
    let sealed = sealed().await;
    let plain = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", sealed.at);
    for (bytes, what) in [
        (old_greeting([3, 2]), "TLS 1.1"),
        (old_greeting([3, 1]), "TLS 1.0"),
        (old_greeting([3, 0]), "SSL 3"),
        (plain.into_bytes(), "plain HTTP"),
        (vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], "SSL 2"),
        (vec![0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff], "an endless greeting"),
        (vec![0; 300], "zeros"),
    ] {
        let answer = if what == "an endless greeting" {
            // It waits for the rest; the client goes away.
            drop(TcpStream::connect(sealed.at).await.unwrap().write_all(&bytes).await);
            Vec::new()
        } else {
            sealed.raw(&bytes).await
        };
        // An alert is a record of type 21; that of two bytes is seven long.
        assert!(answer.is_empty() || answer[0] == 21 && answer.len() == 7, "{what}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{what}");
    }
    sealed.goes_on().await;
    sealed.server.wait_idle().await;
}

#[test]
fn files_that_do_not_serve_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key, _) = pair(&["localhost"]);
    let (other, other_key, _) = pair(&["localhost"]);
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (good, good_key) = (file("good.pem", &certificate), file("good-key.pem", &key));
    let cut = &certificate[..certificate.len() / 2];
    let missing = folder.path().join("missing.pem");
    assert!(tls::acceptor(&good, &good_key).is_ok());
    assert!(tls::acceptor(&file("chain.pem", &format!("{certificate}{other}")), &good_key).is_ok(), "a chain");
    for (certificate, key, part) in [
        (&missing, &good_key, "missing.pem"),
        (&good, &missing, "missing.pem"),
        (&file("empty.pem", ""), &good_key, "empty.pem"),
        (&file("cut.pem", cut), &good_key, "cut.pem"),
        (
            &file("rubbish.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"),
            &good_key,
            "rubbish.pem",
        ),
        (&good_key, &good_key, "good-key.pem"),
        (&good, &good, "good.pem"),
        (&good, &file("no-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "no-key.pem"),
        (&good, &file("other-key.pem", &other_key), "other-key.pem"),
    ] {
        let error = tls::acceptor(certificate, key).err().unwrap_or_else(|| panic!("{part}")).to_string();
        assert!(error.contains(part), "wanted {part} in: {error}");
        assert!(!error.contains('\n') && !error.contains("InvalidCertificate("), "{error}");
    }
}
