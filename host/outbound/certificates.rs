//! Which certificates of a server are looked at before it is trusted.
//!
//! Owns how many that are. Who verifies a chain tries every order that the names in it allow: a few
//! dozen certificates of one name are millions of chains, all of them on a worker's thread. So
//! there may be a few, and one of each name. Whether they are good is for webpki to say.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Certificates that a server may send beside its own. A chain has two or three.
const OTHERS_MAX: usize = 8;

/// Verifies servers' certificates.
#[derive(Debug)]
pub struct Verifier {
    /// `None` where there are no roots, so that no certificate is good.
    chains: Option<Arc<WebPkiServerVerifier>>,
    schemes: Vec<SignatureScheme>,
}

impl Verifier {
    pub fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(default_provider());
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Verifier { chains: chains.build().ok(), schemes }
    }

    fn chains(&self) -> Result<&WebPkiServerVerifier, Error> {
        self.chains.as_deref().ok_or(CertificateError::UnknownIssuer.into())
    }
}

/// The first certificate of each name.
fn first_of_each<'a>(others: &'a [CertificateDer<'_>]) -> Result<Vec<CertificateDer<'a>>, Error> {
    if others.len() > OTHERS_MAX {
        return Err(CertificateError::UnknownIssuer.into());
    }
    // It is what reads the name of a certificate; nobody trusts what is in it.
    let mut read = RootCertStore::empty();
    let mut first = Vec::with_capacity(others.len());
    for other in others {
        // One that cannot be read is of no chain.
        if read.add(CertificateDer::from_slice(other)).is_ok()
            && let Some((last, earlier)) = read.roots.split_last()
            && !earlier.iter().any(|it| it.subject == last.subject)
        {
            first.push(CertificateDer::from_slice(other));
        }
    }
    Ok(first)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let others = first_of_each(others)?;
        self.chains()?.verify_server_cert(own, &others, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains()?.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains()?.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests;
