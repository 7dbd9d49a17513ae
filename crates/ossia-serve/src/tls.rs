//! TLS from two PEM files: a certificate (with its chain) and its key. TLS 1.2 and 1.3 by rustls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig};

/// What can be wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is not there or holds something else.
    #[error("{path}: wanted {wanted} in PEM, but: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// A certificate or a key.
        wanted: &'static str,
        /// What was found.
        problem: String,
    },
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("{certificate} with the key {key}: {problem}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Reads the files.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let file = |path: &Path, wanted, problem: String| TlsError::File { path: path.to_owned(), wanted, problem };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| file(certificate, "certificates", error.to_string()))?;
    if chain.is_empty() {
        return Err(file(certificate, "certificates", "there is none".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, "a private key", error.to_string()))?;
    let pair =
        |error| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), problem: said(error) };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(pair)?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, secret).map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What is wrong with a pair, in the words of whoever has made it.
fn said(error: Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "the key is not the certificate's; give the one that it was made with".to_owned(),
        Error::InvalidCertificate(_) => "the certificate is not one, or is cut off".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::acceptor;

    #[test]
    fn wrong_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["a.pem", "b.pem"].map(|name| folder.path().join(name));
        let said = || acceptor(&certificate, &key).err().unwrap().to_string();
        assert!(said().contains("a.pem"));
        std::fs::write(&certificate, "no PEM").unwrap();
        assert!(said().contains("there is none"), "{}", said());
    }
}
