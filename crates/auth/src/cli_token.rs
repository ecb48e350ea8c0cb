//! Tokens the command line speaks to a running server with.

use chrono::{DateTime, Utc};
use quarterdeck_domain::{Error, Result};
use secrecy::SecretString;

use crate::config::JwtAlgorithm;
use crate::{JwtSecret, Signer};

/// Mints a token of the system user: good for one minute, with an id of its own.
///
/// # Errors
/// 422/2000 when the secret is too short to sign with.
pub fn mint_cli_token(secret: &SecretString, algorithm: JwtAlgorithm, now: DateTime<Utc>) -> Result<String> {
    let secret = JwtSecret::new(secret.clone()).map_err(Error::rule)?;
    Ok(Signer::new(&secret, algorithm).mint_for_cli(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Sha256, Sha384, Sha512};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn token(algorithm: JwtAlgorithm) -> String {
        let now = DateTime::from_timestamp(1_700_000_000, 999_000_000).unwrap();
        mint_cli_token(&SECRET.into(), algorithm, now).unwrap()
    }

    fn part(token: &str, i: usize) -> serde_json::Value {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(i).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn the_claims_are_those_of_the_system_user_for_one_minute() {
        let token = token(JwtAlgorithm::HS256);
        assert_eq!(part(&token, 0), serde_json::json!({"typ": "JWT", "alg": "HS256"}));
        let mut claims = part(&token, 1);
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        let jti = jti.as_str().unwrap();
        assert!(jti.len() == 32 && jti.bytes().all(|b| b.is_ascii_hexdigit()), "{jti}");
        assert_eq!(
            claims,
            serde_json::json!({
                "sub": "system", "iss": "quarterdeck-cli", "aud": "quarterdeck-backend",
                "iat": 1_700_000_000, "exp": 1_700_000_060,
            })
        );
    }

    #[test]
    fn every_token_has_its_own_id() {
        let id = || part(&token(JwtAlgorithm::HS256), 1)["jti"].clone();
        assert_ne!(id(), id());
    }

    #[test]
    fn the_signature_is_that_of_the_configured_algorithm() {
        fn sign<M: Mac + KeyInit>(text: &str) -> String {
            let mut mac = <M as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
            mac.update(text.as_bytes());
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        }
        type Sign = fn(&str) -> String;
        let cases: [(JwtAlgorithm, Sign); 3] = [
            (JwtAlgorithm::HS256, sign::<Hmac<Sha256>>),
            (JwtAlgorithm::HS384, sign::<Hmac<Sha384>>),
            (JwtAlgorithm::HS512, sign::<Hmac<Sha512>>),
        ];
        for (algorithm, sign) in cases {
            let token = token(algorithm);
            let (signed, signature) = token.rsplit_once('.').unwrap();
            assert_eq!(signature, sign(signed), "{algorithm:?}");
        }
    }

    #[test]
    fn a_secret_under_32_characters_signs_nothing() {
        let refusal =
            mint_cli_token(&SECRET[1..].into(), JwtAlgorithm::HS256, DateTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(refusal.code().number(), 2000);
        assert!(!refusal.to_string().contains(&SECRET[1..]));
    }
}
