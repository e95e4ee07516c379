//! Tokens that let monitoring in: JSON web tokens of root's, as `mc admin prometheus generate` makes
//! them. One algorithm (HS512, keyed by root's secret) is taken, whatever a token says of itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value;
use sha2::Sha512;

use super::{Gate, Identity, denied};
use crate::s3::error::Failure;

/// Longer ones are not looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

impl Gate {
    /// Fails unless the request bears a token of root's.
    pub(in crate::s3) fn check_bearer(
        &self,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let token = token(headers).ok_or_else(refusal)?;
        let (signed, signature) = token.rsplit_once('.').ok_or_else(refusal)?;
        let (header, claims) = signed.split_once('.').ok_or_else(refusal)?;
        let (header, claims) = (json(header)?, json(claims)?);
        let name = claims["sub"].as_str().ok_or_else(refusal)?;
        let Some((Identity::Root, secret)) = self.users.find(name) else {
            return Err(refusal());
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| refusal())?;
        let mac = Hmac::<Sha512>::new_from_slice(secret.as_bytes()).expect("a key of any length");
        let verified = mac.chain_update(signed).verify_slice(&signature);
        if header["alg"] != "HS512" || verified.is_err() {
            return Err(refusal());
        }
        // In seconds since 1970; a token without it does not expire.
        match claims.get("exp").map(|expires| expires.as_f64().ok_or_else(refusal)).transpose()? {
            Some(expires) if expires * 1000.0 <= now_ms as f64 => {
                Err(denied("The token has expired; make a new one."))
            }
            _ => Ok(()),
        }
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let is_one = values.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
    (is_one && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

fn json(part: &str) -> Result<Value, Failure> {
    let text = URL_SAFE_NO_PAD.decode(part).map_err(|_| refusal())?;
    serde_json::from_slice(&text).map_err(|_| refusal())
}

fn refusal() -> Failure {
    denied("Metrics need a bearer token of root's, or MINIO_PROMETHEUS_AUTH_TYPE=public.")
}
