//! Certificates for servers with TLS.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};

/// Somebody who signs certificates, and whom a test trusts or does not.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate and its key, in PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one, unlike any other.
    ///
    /// # Panics
    ///
    /// If the machine has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let make = || {
            let mut parameters = CertificateParams::new(Vec::new())?;
            parameters.distinguished_name = named("a test's authority");
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
        };
        Self(make().unwrap_or_else(|error| panic!("no certificate could be made: {error}")))
    }

    /// What whoever trusts it must know: its own certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server that is reached by `host`, a name or an address.
    pub(crate) fn identify(&self, host: &str) -> Result<Identity, String> {
        let make = || {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new([host.to_owned()])?;
            parameters.distinguished_name = named(host);
            let certificate = parameters.signed_by(&key, &self.0)?;
            Ok(Identity {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            })
        };
        make().map_err(|error: rcgen::Error| {
            format!("no certificate for {host} could be made: {error}")
        })
    }
}

/// Unlike its issuer's, or a certificate would pass for signed by itself.
fn named(name: &str) -> DistinguishedName {
    let mut whole = DistinguishedName::new();
    whole.push(DnType::CommonName, name);
    whole
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}
