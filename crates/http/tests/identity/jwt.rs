//! Which tokens are believed, and how little of what they say.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use quarterdeck_auth::config::JwtAlgorithm;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{SECRET, TestDb, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::support::*;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A server, somebody on it, and the claims of their token.
async fn somebody() -> (TestServer, Value) {
    let server = TestServer::start().await;
    let caller = server.person("ann", HumanRole::Observer).await;
    let claims = claims_of(&token_of(&caller));
    (server, claims)
}

async fn refused(server: &TestServer, token: &str, why: &str) {
    let answer = me(server, token).await;
    assert_eq!((answer.status, answer.code()), (401, 1000), "{why}: {}", answer.text());
}

#[tokio::test]
async fn a_token_says_what_the_contract_lists() {
    let (server, claims) = somebody().await;
    let user = stored_user(&server, "ann").await.unwrap();
    let now = server.now().timestamp();
    let jti = claims["jti"].as_str().unwrap();
    assert!(jti.len() == 32 && jti.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
    assert_eq!(jti.as_bytes()[12], b'4', "a UUID of version 4");
    let signature = claims["pwd_sig"].as_str().unwrap();
    assert!(signature.len() == 16 && signature.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(
        claims,
        json!({
            "sub": user.id, "username": "ann", "role": "observer", "must_change_password": false,
            "pwd_sig": signature, "jti": jti, "iat": now, "exp": now + 1440 * 60,
            "iss": "quarterdeck-api", "aud": "quarterdeck-api",
        })
    );
}

#[tokio::test]
async fn a_token_by_another_implementation_with_the_same_claims_is_accepted() {
    let (server, claims) = somebody().await;
    me(&server, &signed(&claims)).await.expect(200);
    let seed_form = patched(claims, json!({"iss": null, "aud": null, "username": null, "role": null}));
    me(&server, &signed(&seed_form)).await.expect(200);
}

#[tokio::test]
async fn a_token_without_a_required_claim_is_refused() {
    let (server, claims) = somebody().await;
    for claim in ["sub", "jti", "iat", "exp", "pwd_sig"] {
        refused(&server, &signed(&patched(claims.clone(), json!({claim: null}))), claim).await;
    }
    for claim in ["sub", "jti"] {
        for wrong in [json!(""), json!(7), json!(["x"]), json!({})] {
            refused(&server, &signed(&patched(claims.clone(), json!({claim: wrong}))), claim).await;
        }
    }
}

#[tokio::test]
async fn a_date_that_is_no_integer_is_refused() {
    let (server, claims) = somebody().await;
    for claim in ["iat", "exp", "nbf"] {
        for wrong in [json!(1_799_999_999.5), json!("1799999999"), json!(true), json!(1e300), json!([1])] {
            refused(&server, &signed(&patched(claims.clone(), json!({claim: wrong}))), claim).await;
        }
    }
    for (iat, exp) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MAX), (0, i64::MAX), (i64::MIN, i64::MIN)] {
        let answer = me(&server, &signed(&patched(claims.clone(), json!({"iat": iat, "exp": exp})))).await;
        assert!(answer.status < 500, "{iat} {exp}");
    }
}

#[tokio::test]
async fn a_token_ends_at_the_second_it_names() {
    let (server, claims) = somebody().await;
    let exp = server.now().timestamp() + 60;
    let token = signed(&patched(claims, json!({"exp": exp})));
    server.advance(Duration::from_secs(59));
    me(&server, &token).await.expect(200);
    server.advance(Duration::from_secs(1));
    refused(&server, &token, "at exp").await;
}

#[tokio::test]
async fn a_token_born_up_to_thirty_seconds_ahead_is_believed_and_not_later() {
    let (server, claims) = somebody().await;
    let now = server.now().timestamp();
    me(&server, &signed(&patched(claims.clone(), json!({"iat": now + 30})))).await.expect(200);
    refused(&server, &signed(&patched(claims.clone(), json!({"iat": now + 31}))), "iat").await;
    me(&server, &signed(&patched(claims.clone(), json!({"nbf": now})))).await.expect(200);
    refused(&server, &signed(&patched(claims.clone(), json!({"nbf": now + 1}))), "nbf").await;
    let exp = claims["exp"].clone();
    refused(&server, &signed(&patched(claims, json!({"iat": exp}))), "iat at exp").await;
}

#[tokio::test]
async fn a_token_with_another_key_or_algorithm_is_refused() {
    let (server, claims) = somebody().await;
    let payload = claims.to_string();
    let other = "another secret of the right length";
    refused(&server, &forged(HEADER, &payload, other, Algorithm::HS256), "wrong key").await;
    for (name, algorithm) in [("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
        let header = format!(r#"{{"alg":"{name}","typ":"JWT"}}"#);
        refused(&server, &forged(&header, &payload, SECRET, algorithm), name).await;
        refused(&server, &forged(HEADER, &payload, SECRET, algorithm), "another size under our name").await;
    }
    for alg in ["none", "None", "NONE", "", "hs256", "HS256 ", "RS256", "ES256", "PS256", "EdDSA", "HS1"] {
        let header = format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#);
        let token = forged(&header, &payload, SECRET, Algorithm::HS256);
        refused(&server, &token, alg).await;
        let unsigned = token.rsplit_once('.').unwrap().0;
        refused(&server, &format!("{unsigned}."), "unsigned").await;
        refused(&server, unsigned, "two segments").await;
    }
    for header in [
        r#"{"typ":"JWT"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"],"typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"JWE"}"#,
        "[]",
        "",
    ] {
        refused(&server, &forged(header, &payload, SECRET, Algorithm::HS256), header).await;
    }
    me(&server, &forged(r#"{"typ":"jwt","alg":"HS256"}"#, &payload, SECRET, Algorithm::HS256))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_token_that_was_cut_lengthened_or_mended_is_refused() {
    let (server, claims) = somebody().await;
    let token = signed(&claims);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    for end in [1, 10, message.len(), message.len() + 1, token.len() - 1] {
        refused(&server, &format!("{}.", &token[..end]), "cut").await;
        refused(&server, &token[..end].replacen("eyJ", ".yJ", 1), "cut").await;
    }
    for mended in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{token}="),
        format!("{message}.{signature}A"),
        format!("{header}.{payload}=.{signature}"),
        "..".to_owned(),
        ".".to_owned(),
        "a.b.c".to_owned(),
        format!("{}.x.y", "A".repeat(9000)),
    ] {
        refused(&server, &mended, &mended).await;
    }
    let twice = claims.to_string().replacen('{', r#"{"sub":"system","#, 1);
    refused(&server, &forged(HEADER, &twice, SECRET, Algorithm::HS256), "a claim twice").await;
    let other = patched(claims, json!({"role": "ceo"}));
    let spliced = signed(&other);
    let spliced = spliced.rsplit_once('.').unwrap().0;
    refused(&server, &format!("{spliced}.{signature}"), "signature of another payload").await;
}

#[tokio::test]
async fn every_configured_algorithm_signs_and_is_the_only_one_accepted() {
    let all = [
        (JwtAlgorithm::HS256, Algorithm::HS256, "HS256"),
        (JwtAlgorithm::HS384, Algorithm::HS384, "HS384"),
        (JwtAlgorithm::HS512, Algorithm::HS512, "HS512"),
    ];
    for (configured, _, configured_name) in all {
        let server = server_with(TestDb::sqlite(), |auth| auth.jwt_algorithm = configured).await;
        let caller = server.person("ann", HumanRole::Observer).await;
        me(&server, &token_of(&caller)).await.expect(200);
        let payload = claims_of(&token_of(&caller)).to_string();
        for (_, algorithm, name) in all {
            let token = forged(&format!(r#"{{"alg":"{name}","typ":"JWT"}}"#), &payload, SECRET, algorithm);
            let status = me(&server, &token).await.status;
            assert_eq!(status == 200, name == configured_name, "{name} at a server with {configured_name}");
        }
        server.system_cli().get(ME).await.expect(200);
    }
}

#[tokio::test]
async fn the_issuer_and_audience_of_a_users_token_are_ours_or_absent() {
    let (server, claims) = somebody().await;
    for claim in ["iss", "aud"] {
        for wrong in [
            json!("quarterdeck-cli"),
            json!("quarterdeck-backend"),
            json!("https://elsewhere"),
            json!(""),
            json!(["quarterdeck-api"]),
            json!(1),
        ] {
            refused(&server, &signed(&patched(claims.clone(), json!({claim: wrong}))), claim).await;
        }
    }
}

#[tokio::test]
async fn a_persons_token_with_the_command_lines_issuer_gains_nothing() {
    let (server, claims) = somebody().await;
    let system = json!({"iss": "quarterdeck-cli", "aud": "quarterdeck-backend"});
    refused(&server, &signed(&patched(claims.clone(), system.clone())), "with pwd_sig").await;
    let without = patched(patched(claims.clone(), system), json!({"pwd_sig": null, "role": "system"}));
    refused(&server, &signed(&without), "without pwd_sig").await;
    let claimed = signed(&patched(claims, json!({"role": "system"})));
    assert_eq!(me(&server, &claimed).await.expect(200).data()["role"], "observer");
    server.bearer(&claimed).get("/api/v1/admin/backups").await.refused(403, 1001);
}

#[tokio::test]
async fn a_claimed_role_counts_for_nothing() {
    let (server, claims) = somebody().await;
    let token =
        signed(&patched(claims, json!({"role": "ceo", "must_change_password": true, "username": "x"})));
    let answer = me(&server, &token).await.expect(200).data();
    assert_eq!((&answer["role"], &answer["username"]), (&json!("observer"), &json!("ann")));
    assert_eq!(answer["must_change_password"], false);
    server.bearer(&token).get(USERS).await.refused(403, 1001);
}

#[tokio::test]
async fn a_system_token_is_taken_from_the_header_only() {
    let server = TestServer::start().await;
    let now = server.now().timestamp();
    let token = signed(&json!({
        "sub": "system", "jti": "j", "iat": now, "exp": now + 60,
        "iss": "quarterdeck-cli", "aud": "quarterdeck-backend",
    }));
    assert_eq!(me(&server, &token).await.expect(200).data()["role"], "system");
    server.anonymous().with_cookie("session", &token).get(ME).await.refused(401, 1000);
}

#[tokio::test]
async fn a_token_without_a_stored_session_is_accepted_until_it_is_revoked() {
    let (server, claims) = somebody().await;
    let token = signed(&patched(claims, json!({"jti": "an-id-no-row-has"})));
    me(&server, &token).await.expect(200);
    server.bearer(&token).post_empty(LOGOUT).await.expect(204);
    me(&server, &token).await.refused(401, 1002);
}

on_both_databases! {
    async fn a_token_older_than_the_password_is_refused(db: TestDb) {
        let server = TestServer::on(db).await;
        let caller = server.person("ann", HumanRole::Observer).await;
        let stray = patched(claims_of(&token_of(&caller)), json!({"jti": "without-a-row"}));
        me(&server, &signed(&stray)).await.expect(200);
        let body = new_password(quarterdeck_testkit::PASSWORD, "another good password");
        caller.clone().post(CHANGE, &body).await.expect(200);
        refused(&server, &signed(&stray), "stale pwd_sig").await;
        let wrong = patched(stray, json!({"pwd_sig": "0123456789abcdef"}));
        refused(&server, &signed(&wrong), "made-up pwd_sig").await;
    }

    async fn a_demotion_acts_on_the_next_request_of_an_old_token(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let manager = server.person("max", HumanRole::Manager).await;
        let token = token_of(&manager);
        assert_eq!(me(&server, &token).await.expect(200).data()["role"], "manager");
        let path = format!("{USERS}/{}", user_of(&manager));
        ceo.patch(&path, &json!({"role": "observer"})).await.expect(200);
        assert_eq!(me(&server, &token).await.expect(200).data()["role"], "observer");
    }

    async fn the_tokens_of_a_deleted_user_stop_at_once(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let ann = server.person("ann", HumanRole::Observer).await;
        let token = token_of(&ann);
        let stray = signed(&patched(claims_of(&token), json!({"jti": "without-a-row"})));
        me(&server, &stray).await.expect(200);
        ceo.delete(&format!("{USERS}/{}", user_of(&ann))).await.expect(204);
        assert_eq!(me(&server, &token).await.status, 401);
        refused(&server, &stray, "user gone").await;
    }
}
