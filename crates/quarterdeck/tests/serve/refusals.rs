//! Starts that are refused: a sentence that says what to do, and nothing begun.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::process::{Home, Run};

/// Demands a failure that speaks these words, and nothing on stdout.
#[track_caller]
fn assert_refused(run: &Run, words: &[&str]) {
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:#?}");
    let said = run.stderr.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{run:#?}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    assert!(!run.stderr.contains("api.app.startup\""), "{run:#?}");
}

async fn refused(home: Home, words: &[&str]) -> Home {
    let run = home.spawn().ended().await;
    assert_refused(&run, words);
    home
}

/// Variables and the words of the refusal.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test]
async fn a_configuration_that_breaks_a_rule_is_refused_before_anything_is_made() {
    let cases: [Case; 9] = [
        (
            &[("QUARTERDECK_JWT_SECRET", "too short")],
            &["api.auth.jwt_secret", "32", "QUARTERDECK_JWT_SECRET"],
        ),
        (
            &[("QUARTERDECK_API__SERVER__TRUSTED_PROXIES", "0.0.0.0/0")],
            &["api.server.trusted_proxies", "every address"],
        ),
        (&[("QUARTERDECK_API__SERVER__TRUSTED_PROXIES", "::/0")], &["every address"]),
        (
            &[("QUARTERDECK_API__CORS__ALLOWED_ORIGINS", "*")],
            &["api.cors.allowed_origins", "allow_credentials"],
        ),
        (&[("QUARTERDECK_LOG_DIR", "../logs")], &["log.dir", "..", "QUARTERDECK_LOG_DIR"]),
        (&[("QUARTERDECK_DATABASE_URL", "mysql://localhost/x")], &["database.url", "postgresql://"]),
        (
            &[("QUARTERDECK_DATABASE_URL", "nonsense"), ("QUARTERDECK_DB_PATH", "mine.db")],
            &["database.url", "postgresql://"],
        ),
        (
            &[("QUARTERDECK_API__SERVER__SSL_CERTFILE", "cert.pem")],
            &["api.server.ssl_keyfile", "must be set"],
        ),
        (
            &[("QUARTERDECK_JWT_SECRET_FILE", "nowhere")],
            &["QUARTERDECK_JWT_SECRET_FILE", "nowhere", "cannot be read"],
        ),
    ];
    for (variables, words) in cases {
        let home = variables.iter().fold(Home::new(), |home, (name, value)| home.with(name, value));
        let home = refused(home, words).await;
        assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 0, "{variables:?} left something behind");
    }
}

#[tokio::test]
async fn a_port_in_use_is_refused_before_the_database_is_touched() {
    let home = Home::new();
    let _taken = TcpListener::bind(("127.0.0.1", home.port)).unwrap();
    let port = home.port.to_string();
    let home = refused(home, &["cannot listen on 127.0.0.1", &port, "--port"]).await;
    assert!(!home.data("quarterdeck.db").exists());
    assert!(!home.data("quarterdeck.db.lock").exists());
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_refused() {
    let home = Home::new();
    fs::write(home.path("data"), "a file where the folder should be").unwrap();
    refused(home, &["data folder", "--data-dir"]).await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_data_folder_nobody_can_write_to_is_refused() {
    // Not even root makes files there.
    refused(Home::new().with("QUARTERDECK_DATA_DIR", "/proc"), &["/proc/quarterdeck.db", "permissions"])
        .await;
    let words = ["CRITICAL", "/proc/", "QUARTERDECK_LOG_DIR", "QUARTERDECK_LOG_LEVEL"];
    let home = refused(Home::new().with("QUARTERDECK_LOG_DIR", "/proc"), &words).await;
    assert!(!home.data("quarterdeck.db").exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    const TEXT: &str = "this is no database, however long it may be";
    let home = Home::new();
    fs::create_dir(home.path("data")).unwrap();
    fs::write(home.data("quarterdeck.db"), TEXT).unwrap();
    let home = refused(home, &["quarterdeck.db", "cannot be used", "QUARTERDECK_DB_PATH"]).await;
    assert_eq!(fs::read_to_string(home.data("quarterdeck.db")).unwrap(), TEXT);
    fs::remove_file(home.data("quarterdeck.db")).unwrap();
    home.serve().await;
}

#[tokio::test]
async fn a_database_that_was_cut_short_is_refused() {
    let home = Home::new();
    home.serve().await.stop().await;
    let file = home.data("quarterdeck.db");
    let length = file.metadata().unwrap().len();
    assert!(length > 8192);
    fs::File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    refused(home, &["quarterdeck.db"]).await;
}

#[tokio::test]
async fn a_bad_tls_pair_is_refused_before_the_port_and_the_database() {
    let pair = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((certificate, key), (_, strange)) = (pair("a.example"), pair("b.example"));
    let cases: [(&str, &str, &[&str]); 4] = [
        (&certificate, &strange, &["do not work together", "cert.pem", "key.pem"]),
        ("nothing", &key, &["certificate file", "cert.pem"]),
        (&certificate, "nothing", &["key file", "key.pem"]),
        ("", &key, &["certificate file", "cert.pem"]),
    ];
    let tls = |certificate: &Path, key: &Path| {
        Home::new()
            .with("QUARTERDECK_API__SERVER__SSL_CERTFILE", certificate.to_str().unwrap())
            .with("QUARTERDECK_API__SERVER__SSL_KEYFILE", key.to_str().unwrap())
    };
    let files = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    for (certificate, key, words) in cases {
        fs::write(&cert_file, certificate).unwrap();
        fs::write(&key_file, key).unwrap();
        let home = tls(&cert_file, &key_file);
        // A server that took the port first would complain of it instead.
        let _taken = TcpListener::bind(("127.0.0.1", home.port)).unwrap();
        let home = refused(home, words).await;
        assert!(!home.data("quarterdeck.db").exists());
    }
    refused(tls(&files.path().join("nowhere"), &key_file), &["nowhere", "cannot be read"]).await;
}

#[tokio::test]
async fn a_postgres_that_does_not_answer_is_fatal_even_when_a_file_is_named_too() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgresql://someone:a-password-of-theirs@127.0.0.1:{closed}/deck");
    let home = Home::new()
        .with("QUARTERDECK_DATABASE_URL", &url)
        .with("QUARTERDECK_DB_PATH", "mine.db")
        .with("QUARTERDECK_POSTGRES_SSL_MODE", "disable");
    let run = home.spawn().ended().await;
    assert_refused(&run, &["cannot connect to PostgreSQL", "QUARTERDECK_DATABASE_URL"]);
    assert!(!run.stderr.contains("a-password-of-theirs"), "{}", run.stderr);
    assert!(!home.data("mine.db").exists());
}
