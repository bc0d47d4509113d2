//! Signatures as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, one for each secret that is valid.

use crate::key::Key;
use base16ct::lower;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Random bytes of a salt.
const SALT_BYTES: usize = 16;

/// What the store has of an endpoint's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret {
    #[serde(flatten)]
    made: Made,
    /// After this it signs no more; none for the newest.
    pub(crate) until_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Made {
    /// Of the key with that name.
    Of { key: String, salt: String },
    /// In clear, as versions before keys had it. A rotation ends it.
    Clear { secret: String },
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("whsec_…")
    }
}

/// Why nothing can be signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsigned {
    /// A secret is made of a key that is not at hand.
    #[error(
        "a secret is made of the key `{theirs}` and this is `{ours}`: all processes need one key (`--webhook-key FILE`)"
    )]
    OtherKey { theirs: String, ours: String },
    /// An event without a signature would be believed by nobody, or by who believes all.
    #[error("it has no secret that this program understands: `dragnet webhook rotate` makes one")]
    NoSecret,
}

impl Secret {
    pub(crate) fn random(key: &Key) -> Result<Secret, getrandom::Error> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        Ok(Secret {
            made: Made::Of { key: key.name().into(), salt: lower::encode_string(&salt) },
            until_ms: None,
        })
    }

    /// As the endpoint's owner needs it, once.
    pub(crate) fn shown(&self, key: &Key) -> Result<String, Unsigned> {
        match &self.made {
            Made::Of { key: name, salt } if name == key.name() => {
                Ok(format!("{PREFIX}{}", STANDARD.encode(key.secret(salt))))
            }
            Made::Of { key: name, .. } => {
                Err(Unsigned::OtherKey { theirs: name.clone(), ours: key.name().into() })
            }
            Made::Clear { secret } => Ok(secret.clone()),
        }
    }
}

fn sign(secret: &str, text: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(text);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// The header `webhook-signature`, at `now_ms`: the timestamp is in whole seconds, a secret's end is not.
pub(crate) fn signatures(secrets: &[String], id: &str, now_ms: i64, body: &str) -> String {
    let text = format!("{id}.{}.{body}", now_ms / 1000);
    secrets.iter().filter_map(|secret| sign(secret, text.as_bytes())).collect::<Vec<_>>().join(" ")
}

/// Those of the secrets that sign now: at least one.
pub(crate) fn valid(secrets: &[Secret], key: &Key, now_ms: i64) -> Result<Vec<String>, Unsigned> {
    let valid = secrets.iter().filter(|secret| secret.until_ms.is_none_or(|until| until > now_ms));
    let shown: Vec<String> = valid.map(|secret| secret.shown(key)).collect::<Result<_, _>>()?;
    if shown.is_empty() { Err(Unsigned::NoSecret) } else { Ok(shown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries, and what the store had of a secret before there were keys.
    #[test]
    fn a_known_signature() {
        let clear: Secret =
            serde_json::from_str(r#"{"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw","until_ms":null}"#)
                .unwrap();
        let key = Key::of([7; 32]);
        let body = r#"{"test": 2432232314}"#;
        let secrets = valid(std::slice::from_ref(&clear), &key, 0).unwrap();
        let signed = signatures(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330_000, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(format!("{clear:?}").contains("whsec_…") && !format!("{clear:?}").contains("MfKQ"));
        let old = Secret { until_ms: Some(1_614_265_330_457), ..clear.clone() };
        let ended = Secret { until_ms: Some(1_614_265_330_456), ..clear.clone() };
        assert_eq!(valid(&[clear, old, ended.clone()], &key, 1_614_265_330_456).unwrap().len(), 2);
        for none in [&[][..], &[ended]] {
            assert_eq!(valid(none, &key, 1_614_265_330_456), Err(Unsigned::NoSecret));
        }
    }

    #[test]
    fn a_secret_is_made_of_its_key_alone() {
        let (key, other) = (Key::of([7; 32]), Key::of([8; 32]));
        let secret = Secret::random(&key).unwrap();
        let shown = secret.shown(&key).unwrap();
        let kept = serde_json::to_string(&secret).unwrap();
        assert!(!kept.contains(shown.strip_prefix(PREFIX).unwrap()), "{kept}");
        assert_eq!(serde_json::from_str::<Secret>(&kept).unwrap().shown(&key).unwrap(), shown);
        assert!(secret.shown(&other).unwrap_err().to_string().contains("--webhook-key"));
        assert!(sign(&shown, b"x").is_some());
    }
}
