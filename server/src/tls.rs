//! Certificates, in the files that MinIO's server takes them from: `public.crt` and `private.key` in
//! one directory, and such a pair in each of its subdirectories for further names. A client gets the
//! first pair that covers the name it asks for, otherwise the one of the directory itself.
//!
//! Every core loads the files for itself and looks at them again when they change; what cannot be used
//! then is reported, and the former certificates stay.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

/// What peers ask for by ALPN.
pub const PEERS: &[u8] = b"basalt-peer";

const CERTIFICATE: &str = "public.crt";
const KEY: &str = "private.key";
/// MinIO's directory of certificates of authorities to trust, which is no pair.
const AUTHORITIES: &str = "CAs";

/// A directory with a certificate in it.
#[derive(Clone, Debug)]
pub struct Certificates {
    directory: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", file.display())]
pub struct Unusable {
    pub file: PathBuf,
    pub cause: String,
}

impl Unusable {
    fn new(file: &Path, cause: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), cause: cause.to_string() }
    }
}

/// The files as they are now; another value means that they were changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stamp(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Certificates {
    /// Those of `directory`; `None` where it has neither of the two files. What this user may not look
    /// at counts as there, and fails when it is loaded.
    pub fn find(directory: &Path) -> Option<Self> {
        let here = |name: &&str| directory.join(name).try_exists().unwrap_or(true);
        let found = [CERTIFICATE, KEY].iter().any(here);
        found.then(|| Self { directory: directory.to_owned() })
    }

    pub fn load(&self) -> Result<Arc<ServerConfig>, Unusable> {
        let provider = Arc::new(default_provider());
        let mut pairs = vec![Pair::load(&self.directory, &provider)?];
        for directory in self.subdirectories()? {
            pairs.push(Pair::load(&directory, &provider)?);
        }
        let versions = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Unusable::new(&self.directory, error))?;
        let mut config =
            versions.with_no_client_auth().with_cert_resolver(Arc::new(ByName { pairs }));
        config.alpn_protocols = vec![b"http/1.1".to_vec(), PEERS.to_vec()];
        Ok(Arc::new(config))
    }

    /// For connections to other nodes. They are trusted if an authority of `CAs`, of this machine, or
    /// this node's own certificate vouches for them.
    pub fn load_for_peers(&self) -> Result<Arc<ClientConfig>, Unusable> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        let mut known = Vec::new();
        // What cannot be read of the machine's own is for the other sources to make up for.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for file in self.authorities() {
            let bytes = fs::read(&file).map_err(|error| Unusable::new(&file, error))?;
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let certificate = certificate.map_err(|error| Unusable::new(&file, error))?;
                known.push(certificate.clone().into_owned());
                roots.add(certificate).map_err(|error| Unusable::new(&file, error))?;
            }
        }
        let unusable = |error: &dyn fmt::Display| Unusable::new(&self.directory, error);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(&error))?;
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let mut config = versions
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Peers { known, verifier }))
            .with_no_client_auth();
        config.alpn_protocols = vec![PEERS.to_vec()];
        Ok(Arc::new(config))
    }

    /// The files of certificates to trust: this node's own, and those of `CAs`.
    fn authorities(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.join(AUTHORITIES)).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut found: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
        found.push(self.directory.join(CERTIFICATE));
        found.sort_unstable();
        found
    }

    pub fn stamp(&self) -> Stamp {
        let mut directories = self.subdirectories().unwrap_or_default();
        directories.push(self.directory.clone());
        let files =
            directories.iter().flat_map(|directory| [CERTIFICATE, KEY].map(|f| directory.join(f)));
        let stamps = files.chain(self.authorities()).map(|file| {
            let found = fs::metadata(&file).ok();
            let length = found.as_ref().map_or(0, fs::Metadata::len);
            (file, length, found.and_then(|found| found.modified().ok()))
        });
        Stamp(stamps.collect())
    }

    /// The subdirectories that hold a pair, in the order of their names.
    fn subdirectories(&self) -> Result<Vec<PathBuf>, Unusable> {
        let entries =
            fs::read_dir(&self.directory).map_err(|error| Unusable::new(&self.directory, error))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| !path.ends_with(AUTHORITIES) && path.join(CERTIFICATE).is_file())
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

/// Trusts what an authority vouches for, and the very certificates that stand in this node's files: one
/// that was signed by itself often says that it is an authority, which none that serves may say otherwise.
#[derive(Debug)]
struct Peers {
    known: Vec<CertificateDer<'static>>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.iter().any(|known| known == end_entity) {
            let certificate = webpki::EndEntityCert::try_from(end_entity);
            let named = certificate.and_then(|of| of.verify_is_valid_for_subject_name(server_name));
            if named.is_ok() {
                return Ok(ServerCertVerified::assertion());
            }
        }
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// A certificate with its chain and its key.
#[derive(Debug)]
struct Pair(Arc<CertifiedKey>);

impl Pair {
    fn load(directory: &Path, provider: &CryptoProvider) -> Result<Self, Unusable> {
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        let read = |file: &Path| fs::read(file).map_err(|error| Unusable::new(file, error));
        let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(&read(&certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| Unusable::new(&certificate, error))?;
        if chain.is_empty() {
            return Err(Unusable::new(&certificate, "it holds no certificate in PEM"));
        }
        let bytes = read(&key)?;
        let encrypted = bytes.windows(9).any(|nine| nine == b"ENCRYPTED");
        let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match encrypted {
            true => Unusable::new(
                &key,
                "the key is encrypted; keep it in the open, readable by \
                                         the server's user alone",
            ),
            false => Unusable::new(&key, error),
        })?;
        CertifiedKey::from_der(chain, private, provider)
            .map(|certified| Self(Arc::new(certified)))
            .map_err(|error| Unusable::new(&certificate, error))
    }

    fn covers(&self, name: &ServerName<'_>) -> bool {
        let certificate = self.0.end_entity_cert().ok();
        let parsed = certificate.and_then(|der| webpki::EndEntityCert::try_from(der).ok());
        parsed.is_some_and(|parsed| parsed.verify_is_valid_for_subject_name(name).is_ok())
    }
}

/// Chooses among pairs; the first is for names that none covers.
#[derive(Debug)]
struct ByName {
    pairs: Vec<Pair>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let covering = name.and_then(|name| self.pairs.iter().find(|pair| pair.covers(&name)));
        Some(covering.unwrap_or(&self.pairs[0]).0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(directory: &Path, name: &str) {
        fs::create_dir_all(directory).expect("made");
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        fs::write(directory.join(CERTIFICATE), made.cert.pem()).expect("written");
        fs::write(directory.join(KEY), made.signing_key.serialize_pem()).expect("written");
    }

    fn certificates() -> (tempfile::TempDir, Certificates) {
        let place = tempfile::tempdir().expect("a directory");
        write_pair(place.path(), "localhost");
        let found = Certificates::find(place.path()).expect("there is one");
        (place, found)
    }

    #[test]
    fn no_files_are_no_certificates() {
        let place = tempfile::tempdir().expect("a directory");
        assert!(Certificates::find(place.path()).is_none());
    }

    #[test]
    fn further_names_have_directories_of_their_own() {
        let (place, certificates) = certificates();
        write_pair(&place.path().join("s3.example.com"), "*.example.com");
        fs::create_dir(place.path().join(AUTHORITIES)).expect("made");
        certificates.load().expect("both are good");
        let provider = default_provider();
        let pair = Pair::load(&place.path().join("s3.example.com"), &provider).expect("good");
        let covers = |name| pair.covers(&ServerName::try_from(name).expect("a name"));
        assert!(covers("data.example.com") && !covers("localhost"));
    }

    #[test]
    fn what_cannot_be_used_names_its_file() {
        let (place, certificates) = certificates();
        let stamp = certificates.stamp();
        fs::write(place.path().join(KEY), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").expect("ok");
        assert_ne!(certificates.stamp(), stamp, "a change is noticed");
        let error = certificates.load().expect_err("it is encrypted");
        assert!(error.file.ends_with(KEY) && error.cause.contains("encrypted"), "{error}");
        fs::write(place.path().join(CERTIFICATE), "nothing").expect("written");
        let error = certificates.load().expect_err("there is no certificate");
        assert!(error.file.ends_with(CERTIFICATE), "{error}");
        let (other, _) = self::certificates();
        write_pair(place.path(), "localhost");
        fs::copy(other.path().join(KEY), place.path().join(KEY)).expect("copied");
        certificates.load().expect_err("the key is of another certificate");
    }
}
