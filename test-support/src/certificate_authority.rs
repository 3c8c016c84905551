//! Certificates for servers with TLS.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};

/// A certificate authority that signs the certificates of test servers.
pub struct CertificateAuthority(CertifiedIssuer<'static, KeyPair>);

/// The certificate of a server and its key, in PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl CertificateAuthority {
    /// Creates an authority with a new key.
    ///
    /// # Panics
    ///
    /// Panics if the system has no source of randomness.
    #[must_use]
    pub fn new() -> Self {
        let create = || {
            let mut parameters = CertificateParams::new(Vec::new())?;
            parameters.distinguished_name = distinguished_name("test authority");
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
        };
        Self(create().unwrap_or_else(|error| panic!("can't create a certificate: {error}")))
    }

    /// Returns the certificate of this authority, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for a server at `host`, a name or an address.
    pub(crate) fn sign(&self, host: &str) -> Result<Identity, String> {
        let create = || {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new([host.to_owned()])?;
            parameters.distinguished_name = distinguished_name(host);
            let certificate = parameters.signed_by(&key, &self.0)?;
            Ok(Identity {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            })
        };
        create().map_err(|error: rcgen::Error| {
            format!("can't create a certificate for {host}: {error}")
        })
    }
}

/// Returns a name; it must differ from the issuer's, or a certificate would seem self-signed.
fn distinguished_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

impl Default for CertificateAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .finish_non_exhaustive()
    }
}
