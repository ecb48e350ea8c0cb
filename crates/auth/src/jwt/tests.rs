//! Tokens against another implementation and against noise.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header as OtherHeader, Validation};
use proptest::prelude::*;
use quarterdeck_domain::role::HumanRole;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a signing secret that only the tests know";
const ALL: [(JwtAlgorithm, Algorithm); 3] = [
    (JwtAlgorithm::HS256, Algorithm::HS256),
    (JwtAlgorithm::HS384, Algorithm::HS384),
    (JwtAlgorithm::HS512, Algorithm::HS512),
];

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn signer(secret: &str, algorithm: JwtAlgorithm) -> Signer {
    Signer::new(&JwtSecret::new(secret.into()).unwrap(), algorithm)
}

fn user(name: &str) -> User {
    User {
        id: format!("id of {name}"),
        username: name.to_owned(),
        password_hash: "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA".to_owned(),
        role: HumanRole::Manager,
        must_change_password: false,
        org_roles: Vec::new(),
        scoped_departments: Vec::new(),
        created_at: now(),
        updated_at: now(),
    }
}

fn minted(algorithm: JwtAlgorithm) -> String {
    signer(SECRET, algorithm).mint(&user("ann"), "0123456789abcdef0123456789abcdef", now(), 60)
}

/// What the other implementation reads in a token; times are not its business here.
fn other(token: &str, secret: &str, algorithm: Algorithm) -> Option<Value> {
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let key = DecodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::decode(token, &key, &rules).ok().map(|decoded| decoded.claims)
}

/// What a token must say besides having a good signature.
fn sound(claims: &Value) -> bool {
    let text = |name: &str| claims[name].as_str().is_some_and(|text| !text.is_empty());
    let optional =
        |name: &str, fits: fn(&Value) -> bool| claims.get(name).is_none_or(|v| v.is_null() || fits(v));
    let dates = claims["iat"].as_i64().zip(claims["exp"].as_i64());
    text("sub")
        && text("jti")
        && dates.is_some_and(|(iat, exp)| iat < exp)
        && optional("nbf", Value::is_i64)
        && ["iss", "aud", "pwd_sig"].iter().all(|name| optional(name, Value::is_string))
}

#[test]
fn the_password_signature_is_the_start_of_a_sha_256() {
    assert_eq!(password_signature("abc"), "ba7816bf8f01cfea");
}

#[test]
#[should_panic = "the system user has no sessions"]
fn minting_a_session_for_the_system_user_is_a_programming_error() {
    let system = User { id: SYSTEM_USER.to_owned(), ..user("system") };
    signer(SECRET, JwtAlgorithm::HS256).mint(&system, "s", now(), 60);
}

#[test]
fn every_single_change_of_a_character_is_noticed() {
    for (ours, theirs) in ALL {
        let (signer, token) = (signer(SECRET, ours), minted(ours));
        assert!(signer.verify(&token, now()).is_some() && other(&token, SECRET, theirs).is_some());
        for place in 0..token.len() {
            for with in ["A", "B", "-", "_", ".", "=", "", "é", "\0"] {
                let changed = format!("{}{with}{}", &token[..place], &token[place + 1..]);
                assert!(changed == token || signer.verify(&changed, now()).is_none(), "{place} {with:?}");
            }
            assert!(signer.verify(&token[..place], now()).is_none(), "cut at {place}");
            assert!(signer.verify(&token[place..], now()).is_none() || place == 0, "begun at {place}");
        }
    }
}

#[test]
fn a_token_longer_than_eight_kibibytes_is_refused_unread() {
    let claims = |filler: usize| json!({"sub": "a", "jti": "b", "iat": 1, "exp": 2, "x": "y".repeat(filler)});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = |filler| jsonwebtoken::encode(&OtherHeader::default(), &claims(filler), &key).unwrap();
    let signer = signer(SECRET, JwtAlgorithm::HS256);
    assert!(signer.verify_ignoring_expiry(&token(5000)).is_some());
    assert!(token(7000).len() > MAX_TOKEN_BYTES && signer.verify_ignoring_expiry(&token(7000)).is_none());
}

fn claim() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<i64>().prop_map(Value::from),
        4 => (-2000..2000_i64).prop_map(Value::from),
        4 => ".{0,12}".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => prop::collection::vec(".{0,3}", 0..3).prop_map(Value::from),
    ]
}

/// Claims that are often sound, and else broken in one or two places.
fn claims() -> impl Strategy<Value = Value> {
    let names =
        prop::sample::select(vec!["sub", "jti", "iat", "exp", "nbf", "iss", "aud", "pwd_sig", "role", "x"]);
    let base = (".{1,20}", ".{1,40}", any::<i64>(), any::<i64>())
        .prop_map(|(sub, jti, iat, exp)| json!({"sub": sub, "jti": jti, "iat": iat, "exp": exp}));
    (base, prop::collection::vec((names, prop::option::weighted(0.8, claim())), 0..3)).prop_map(
        |(mut claims, changes)| {
            let members = claims.as_object_mut().unwrap();
            for (name, value) in changes {
                match value {
                    Some(value) => members.insert(name.to_owned(), value),
                    None => members.remove(name),
                };
            }
            claims
        },
    )
}

fn algorithm() -> impl Strategy<Value = (JwtAlgorithm, Algorithm)> {
    prop::sample::select(ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_text_is_a_token(
        text in ".{0,200}",
        segments in prop::collection::vec("[A-Za-z0-9_=-]{0,90}", 0..5),
        (ours, _) in algorithm(),
    ) {
        let signer = signer(SECRET, ours);
        let framed = format!("{}.{}", signer.header, segments.join("."));
        for text in [&text, &segments.join("."), &framed] {
            prop_assert!(signer.verify_ignoring_expiry(text).is_none());
        }
    }

    #[test]
    fn no_mutation_of_a_token_is_accepted(
        (ours, _) in algorithm(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, "[A-Za-z0-9_.=-]{0,4}"), 1..5),
    ) {
        let token = minted(ours);
        let mut mutated = token.clone();
        for (at, kind, text) in edits {
            let at = at.index(mutated.len().max(1)).min(mutated.len());
            match kind {
                0 => mutated.insert_str(at, &text),
                1 => mutated.truncate(at),
                2 => { mutated.replace_range(at..(at + text.len()).min(mutated.len()), &text) }
                _ => {
                    let mut segments: Vec<_> = mutated.split('.').collect();
                    let last = segments.len() - 1;
                    segments.swap(at % (last + 1), last);
                    mutated = segments.join(".");
                }
            }
        }
        prop_assert!(mutated == token || signer(SECRET, ours).verify_ignoring_expiry(&mutated).is_none());
    }

    #[test]
    fn tokens_of_ours_are_read_by_the_other_implementation(
        (ours, theirs) in algorithm(),
        secret in ".{32,80}",
        name in ".{0,40}",
        seconds in 1..1_000_000_i64,
    ) {
        let token = signer(&secret, ours).mint(&user(&name), "session", now(), seconds);
        let claims = other(&token, &secret, theirs).expect("a good signature");
        prop_assert_eq!(&claims["username"], &name);
        prop_assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), seconds);
        prop_assert!(signer(&secret, ours).verify(&token, now()).is_some());
        for (_, another) in ALL {
            prop_assert_eq!(other(&token, &secret, another).is_some(), another == theirs);
        }
    }

    #[test]
    fn tokens_of_the_other_implementation_are_read_exactly_when_they_are_sound(
        (ours, theirs) in algorithm(),
        (mine, signed_with) in (algorithm(), any::<bool>()).prop_map(|(a, same)| (a.1, same)),
        claims in claims(),
    ) {
        let used = if signed_with { theirs } else { mine };
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&OtherHeader::new(used), &claims, &key).unwrap();
        let read = signer(SECRET, ours).verify_ignoring_expiry(&token);
        prop_assert_eq!(read.is_some(), used == theirs && sound(&claims), "{}", claims);
        if let Some(read) = read {
            prop_assert_eq!((json!(read.sub), json!(read.jti)), (claims["sub"].clone(), claims["jti"].clone()));
        }
        let stranger = "another secret of the right length";
        prop_assert!(signer(stranger, ours).verify_ignoring_expiry(&token).is_none());
    }

    #[test]
    fn a_token_is_good_from_half_a_minute_before_its_birth_until_its_end(
        iat in -100..100_i64, exp in -100..100_i64, nbf in prop::option::of(-100..100_i64),
    ) {
        let at = |seconds: i64| now().timestamp() + seconds;
        let claims = json!({"sub": "a", "jti": "b", "iat": at(iat), "exp": at(exp), "nbf": nbf.map(at)});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&OtherHeader::default(), &claims, &key).unwrap();
        let good = iat < exp && exp > 0 && iat <= 30 && nbf.is_none_or(|nbf| nbf <= 0);
        prop_assert_eq!(signer(SECRET, JwtAlgorithm::HS256).verify(&token, now()).is_some(), good);
    }
}

#[test]
fn of_a_header_only_the_algorithm_and_the_type_count() {
    let sign = |header: &str| {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), {
            let token = minted(JwtAlgorithm::HS256);
            token.split('.').nth(1).unwrap().to_owned()
        });
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    for (header, fits) in [
        (r#"{"alg":"HS256","typ":"JWT"}"#, true),
        (r#"{"typ":"jwt","alg":"HS256"}"#, true),
        (r#"{"alg":"HS256"}"#, true),
        (r#" { "alg" : "HS256", "kid" : "x" } "#, true),
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, false),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, false),
        (r#"{"alg":"HS384","typ":"JWT"}"#, false),
        (r#"{"alg":"none","typ":"JWT"}"#, false),
        (r#"{"alg":"HS256","alg":"none"}"#, false),
        (r#"{"typ":"JWT"}"#, false),
        (r#"{"alg":null}"#, false),
        (r#"["HS256",null,null]"#, false),
    ] {
        let read = signer(SECRET, JwtAlgorithm::HS256).verify_ignoring_expiry(&sign(header));
        assert_eq!(read.is_some(), fits, "{header}");
    }
}
