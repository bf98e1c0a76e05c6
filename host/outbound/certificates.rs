//! Bounds the work of verifying a server's certificates.
//!
//! Owns how many certificates are looked at. webpki tries every chain that the names allow: a few
//! dozen certificates with one name make millions of chains, all verified on a worker's thread. So
//! a server may send only a few, and only the first of each name counts. webpki decides whether
//! they are valid.

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

/// How many certificates a server may send besides its own. Usual chains have two or three.
const OTHERS_MAX: usize = 8;

/// Verifies servers' certificates.
#[derive(Debug)]
pub struct Verifier {
    /// `None` without roots; then no certificate is valid.
    chains: Option<Arc<WebPkiServerVerifier>>,
    schemes: Vec<SignatureScheme>,
}

impl Verifier {
    /// A verifier that trusts these roots.
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

/// The first certificate of each subject name.
fn first_of_each<'a>(others: &'a [CertificateDer<'_>]) -> Result<Vec<CertificateDer<'a>>, Error> {
    if others.len() > OTHERS_MAX {
        return Err(CertificateError::UnknownIssuer.into());
    }
    // The store only serves to parse the subject names; it is not used as trusted roots.
    let mut read = RootCertStore::empty();
    let mut first = Vec::with_capacity(others.len());
    for other in others {
        // A certificate that cannot be parsed is in no chain.
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
