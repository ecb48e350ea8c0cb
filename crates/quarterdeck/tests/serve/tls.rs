//! TLS, and certificates that are renewed while the server runs.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client};

use crate::caller::Caller;
use crate::process::{Home, Server};

/// Puts a pair signed by a new authority into place and gives a client that trusts this authority alone.
fn renew(home: &Home) -> Client {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(home.path("cert.pem"), leaf.pem()).unwrap();
    fs::write(home.path("key.pem"), key.serialize_pem()).unwrap();
    let trusted = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    // Connections are not kept, so that each request shows the certificate in use.
    Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([trusted]).build().unwrap()
}

async fn trusts(client: &Client, server: &Server) -> bool {
    client.get(format!("https://{}/api/v1/healthz", server.address)).send().await.is_ok()
}

#[tokio::test]
async fn tls_is_served_and_a_renewed_certificate_is_taken_up_on_a_hang_up() {
    let home = Home::new();
    let home = {
        let (certificate, key) = (home.path("cert.pem"), home.path("key.pem"));
        home.with("QUARTERDECK_API__SERVER__SSL_CERTFILE", certificate.to_str().unwrap())
            .with("QUARTERDECK_API__SERVER__SSL_KEYFILE", key.to_str().unwrap())
    };
    let first = renew(&home);
    let server = home.serve().await;
    assert!(server.stdout().contains(&format!("https://{}", server.address)), "{}", server.stdout());
    let mut caller = Caller::through(first.clone(), &format!("https://{}", server.address));
    let setup = serde_json::json!({"username": "ada", "password": crate::caller::PASSWORD});
    let answer = caller.post("/auth/setup", setup).await.expect(201);
    for line in answer.headers.get_all("set-cookie") {
        assert!(line.to_str().unwrap().contains("Secure"), "{line:?}");
    }

    let second = renew(&home);
    assert!(trusts(&first, &server).await && !trusts(&second, &server).await, "nothing changes by itself");
    server.signal("HUP").await;
    server.logged("api.tls.configured", 2).await;
    assert!(!trusts(&first, &server).await && trusts(&second, &server).await);

    fs::write(home.path("key.pem"), "a slip of the operator").unwrap();
    server.signal("HUP").await;
    server.logged("api.tls.reload_failed", 1).await;
    assert!(trusts(&second, &server).await, "the old pair stays in use");
    server.stop().await;
}

#[tokio::test]
async fn a_hang_up_without_tls_changes_nothing() {
    let server = Home::new().serve().await;
    server.signal("HUP").await;
    Caller::owner(&server).await.get("/auth/me").await.expect(200);
    server.stop().await;
}
