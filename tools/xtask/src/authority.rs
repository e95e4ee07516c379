//! A certificate authority made for one run, and the certificate it gives to the server under test.
//! Its key is dropped once that is signed, so nobody can make another one.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::s3::Trust;

#[derive(Clone, Debug)]
pub(crate) struct Authority {
    /// Holds `public.crt` and `private.key`, as `--certs-dir` wants them.
    pub(crate) server_folder: PathBuf,
    /// The authority's own certificate, in PEM, for clients.
    pub(crate) certificate: PathBuf,
    pub(crate) trust: Trust,
}

impl Authority {
    pub(crate) fn create(folder: &Path, server: IpAddr) -> Result<Self> {
        let server_folder = folder.join("server");
        fs::create_dir_all(&server_folder)
            .with_context(|| format!("creating {}", server_folder.display()))?;
        let key = KeyPair::generate()?;
        let params = authority_params()?;
        let own = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let server_key = KeyPair::generate()?;
        let signed = server_params(server)?.signed_by(&server_key, &issuer)?;
        fs::write(server_folder.join("public.crt"), signed.pem())?;
        fs::write(server_folder.join("private.key"), server_key.serialize_pem())?;
        let certificate = folder.join("authority.crt");
        fs::write(&certificate, own.pem())?;
        Ok(Self { server_folder, certificate, trust: Trust::in_authority(own.der())? })
    }
}

fn authority_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Authority of one test run");
    Ok(params)
}

fn server_params(server: IpAddr) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![server.to_string(), "localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "Server of one test run");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Some clients take no certificate that does not name its issuer's key.
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
