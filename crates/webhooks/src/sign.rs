//! Signatures as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, one for each secret that is valid.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;

const PREFIX: &str = "whsec_";
/// Random bytes of a secret; the specification asks for 24 to 64.
const BYTES: usize = 32;

/// A secret of an endpoint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret {
    secret: String,
    /// After this it signs no more; none for the newest.
    pub(crate) until_ms: Option<i64>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_…")
    }
}

impl Secret {
    pub(crate) fn random() -> Result<Secret, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret { secret: format!("{PREFIX}{}", STANDARD.encode(bytes)), until_ms: None })
    }

    /// As the endpoint's owner needs it, once.
    pub(crate) fn shown(&self) -> &str {
        &self.secret
    }

    fn sign(&self, text: &[u8]) -> Option<String> {
        let key = STANDARD.decode(self.secret.strip_prefix(PREFIX)?).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(text);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// The header `webhook-signature`, at `now_ms`: the timestamp is in whole seconds, a secret's end is not.
pub(crate) fn signatures(secrets: &[Secret], id: &str, now_ms: i64, body: &str) -> String {
    let text = format!("{id}.{}.{body}", now_ms / 1000);
    let valid = secrets.iter().filter(|secret| secret.until_ms.is_none_or(|until| until > now_ms));
    valid.filter_map(|secret| secret.sign(text.as_bytes())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_known_signature() {
        let secret = Secret { secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(), until_ms: None };
        let body = r#"{"test": 2432232314}"#;
        let signed = signatures(
            std::slice::from_ref(&secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330_000,
            body,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let old = Secret { until_ms: Some(1_614_265_330_457), ..secret.clone() };
        let ended = Secret { until_ms: Some(1_614_265_330_456), ..secret.clone() };
        assert_eq!(
            signatures(&[secret.clone(), old, ended], "a", 1_614_265_330_456, "").split(' ').count(),
            2
        );
        assert_eq!(format!("{secret:?}"), "whsec_…");
    }
}
