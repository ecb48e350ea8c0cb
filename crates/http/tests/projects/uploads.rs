//! Content on its way in.

use axum::body::Body;
use axum::http::Method;
use futures_util::StreamExt;
use futures_util::stream;
use quarterdeck_domain::artifact::MAX_BYTES;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use super::{about, artifact, content, download, files, form, put, put_form, request};

const MOST: usize = MAX_BYTES as usize;

/// Bytes in pieces, as they come from a socket.
fn pieces(count: usize) -> Body {
    const PIECE: usize = 1 << 16;
    let sizes = (0..count).step_by(PIECE).map(move |from| PIECE.min(count - from));
    Body::from_stream(stream::iter(sizes).map(|size| Ok::<_, std::io::Error>(vec![b'x'; size])))
}

on_both_databases! {
    async fn content_comes_as_a_body_or_as_the_file_of_a_form(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let (bare, typed) = (artifact(&mut ceo, "").await, artifact(&mut ceo, "text/csv").await);
        let uploaded = put(&ceo, &bare, "first").await.expect(200).data();
        assert_eq!(
            (&uploaded["id"], &uploaded["size_bytes"], &uploaded["content_type"]),
            (&json!(bare), &json!(5), &json!("application/octet-stream"))
        );
        assert_eq!(uploaded, about(&mut ceo, &bare).await);
        let parts = [("note", None, &b"text"[..]), ("any", Some("x.html"), b"a,b\r\n--XY"), ("z", None, b"")];
        let uploaded = put_form(&ceo, &typed, &parts).await.expect(200).data();
        assert_eq!((&uploaded["size_bytes"], &uploaded["content_type"]), (&json!(9), &json!("text/csv")));
        assert_eq!(download(&ceo, &typed, &[]).await.expect(200).text(), "a,b\r\n--XY");
        put_form(&ceo, &bare, &[("file", Some("x"), b"")]).await.expect(200);
        let empty = download(&ceo, &bare, &[]).await.expect(200);
        assert_eq!((empty.body.len(), empty.header("content-length")), (0, "0"));
        let now = put(&ceo, &bare, Body::empty()).await.expect(200).data();
        assert_eq!(now["size_bytes"], 0);
        assert_eq!(files(&server).len(), 2, "what was replaced is gone");
    }

    async fn a_form_has_exactly_one_file_and_a_spoilt_one_changes_nothing(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "old").await.expect(200);
        let before = about(&mut ceo, &id).await;
        let several = [("a", Some("a"), &b"1"[..]), ("a", Some("b"), b"2")];
        for parts in [&[][..], &[("a", None, &b"text"[..])][..], &several[..]] {
            let refused = put_form(&ceo, &id, parts).await.refused(400, 2001);
            assert!(refused.json()["error_detail"]["errors"][0]["detail"].as_str().unwrap().starts_with("must have"));
        }
        let whole = form(&[("a", Some("a"), b"new content")]);
        for (kind, body) in [
            ("multipart/form-data", whole.clone()),
            ("multipart/form-data; boundary=", whole.clone()),
            ("multipart/form-data; boundary=YY", whole.clone()),
            ("multipart/form-data; boundary=XX", whole[..whole.len() - 12].to_vec()),
            ("Multipart/Form-Data; boundary=XX", b"nothing of the kind".to_vec()),
        ] {
            let headers = [("content-type", kind)];
            let answer = ceo.raw(request(&ceo, Method::PUT, &content(&id), &headers, body.into())).await;
            answer.refused(400, 2001);
        }
        let broken = stream::iter([Ok("half"), Err(std::io::Error::other("cut"))]);
        put(&ceo, &id, Body::from_stream(broken)).await.refused(400, 2001);
        assert_eq!(about(&mut ceo, &id).await, before);
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "old");
        assert_eq!(files(&server).len(), 1, "nothing half is left");
    }

    async fn all_contents_have_one_room_and_smaller_ones_give_some_back(db: TestDb) {
        let server = TestServer::with(db, |options| options.artifact_bytes = 10).await;
        let mut ceo = server.ceo().await;
        let (first, second) = (artifact(&mut ceo, "").await, artifact(&mut ceo, "").await);
        put(&ceo, &first, "1234567").await.expect(200);
        put(&ceo, &second, "1234").await.refused(507, 8007);
        let full = put_form(&ceo, &second, &[("a", Some("a"), b"1234")]).await.refused(507, 8007);
        assert_eq!(full.json()["error_detail"]["retryable"], false);
        put(&ceo, &second, "123").await.expect(200);
        put(&ceo, &first, "12345678").await.refused(507, 8007);
        put(&ceo, &first, "7654321").await.expect(200);
        put(&ceo, &first, "1").await.expect(200);
        put(&ceo, &second, "123456789").await.expect(200);
        put(&ceo, &first, "12").await.refused(507, 8007);
        assert_eq!(download(&ceo, &first, &[]).await.text(), "1");
        assert_eq!(files(&server).len(), 2);
    }

    async fn strange_ids_never_reach_the_file_system(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let digits = "0123456789abcdef0123456789abcdef";
        for (id, status) in [
            ("..%2f..%2fetc%2fpasswd".to_owned(), 404),
            ("a%2fb".to_owned(), 404),
            ("a/b".to_owned(), 404),
            ("..".to_owned(), 404),
            ("%2e%2e".to_owned(), 404),
            (format!("artifact-{}", digits.to_uppercase()), 404),
            (format!("artifact-{digits}."), 404),
            (format!("artifact-{digits}%0a"), 404),
            (format!("artifact-{digits}"), 404),
            ("a%00b".to_owned(), 400),
            (format!("artifact-{digits}%00"), 400),
            ("x".repeat(129), 400),
            ("%20".to_owned(), 400),
            ("%ff".to_owned(), 400),
        ] {
            for method in [Method::GET, Method::PUT] {
                let body = if method == Method::PUT { Body::from("bytes") } else { Body::empty() };
                let answer = ceo.raw(request(&ceo, method.clone(), &content(&id), &[], body)).await;
                assert_eq!(answer.status, status, "{method} {id}: {}", answer.text());
                assert!(answer.json()["error_detail"].is_object(), "{method} {id}");
            }
            for method in [Method::GET, Method::DELETE] {
                let path = format!("/api/v1/artifacts/{id}");
                let answer = ceo.raw(request(&ceo, method.clone(), &path, &[], Body::empty())).await;
                assert_eq!(answer.status, status, "{method} {id}: {}", answer.text());
            }
        }
        assert!(!server.db.artifacts().exists(), "not even the folder was needed");
    }
}

#[tokio::test]
async fn exactly_fifty_mebibytes_are_accepted_and_one_byte_more_is_not() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let id = artifact(&mut ceo, "").await;
    assert_eq!(put(&ceo, &id, pieces(MOST)).await.expect(200).data()["size_bytes"], MAX_BYTES);
    let before = download(&ceo, &id, &[]).await.expect(200);
    assert_eq!(before.body.len(), MOST);
    put(&ceo, &id, pieces(MOST + 1)).await.refused(413, 2002);
    let bytes = vec![b'y'; MOST + 1];
    put_form(&ceo, &id, &[("a", Some("a"), &bytes)]).await.refused(413, 2002);
    let after = download(&ceo, &id, &[]).await.expect(200);
    assert!(after.header("etag") == before.header("etag") && after.body == before.body);
    assert_eq!(about(&mut ceo, &id).await["size_bytes"], MAX_BYTES);
    put_form(&ceo, &id, &[("note", None, b"and text around"), ("a", Some("a"), &bytes[1..])])
        .await
        .expect(200);
    assert_eq!(download(&ceo, &id, &[]).await.body.iter().filter(|byte| **byte == b'y').count(), MOST);
    assert_eq!(files(&server).len(), 1);
}

#[tokio::test]
async fn a_size_that_is_announced_is_judged_before_anything_is_read() {
    let server =
        TestServer::with(quarterdeck_testkit::TestDb::sqlite(), |options| options.artifact_bytes = 100).await;
    let mut ceo = server.ceo().await;
    let id = artifact(&mut ceo, "").await;
    for (announced, status, code) in
        [("101", 507, 8007), ("52428801", 413, 2002), ("52494336", 413, 2002), ("52494337", 413, 2001)]
    {
        let endless = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let headers = [("content-length", announced)];
        let answer = ceo.raw(request(&ceo, Method::PUT, &content(&id), &headers, endless)).await;
        answer.refused(status, code);
    }
    assert!(!server.db.artifacts().exists());
}

#[tokio::test]
async fn the_bound_of_all_requests_holds_for_uploads_too() {
    let db = quarterdeck_testkit::TestDb::sqlite();
    let server = TestServer::with(db, |options| options.edge.max_body_bytes = 1_000_000).await;
    let mut ceo = server.ceo().await;
    let id = artifact(&mut ceo, "").await;
    put(&ceo, &id, pieces(1_000_000)).await.expect(200);
    put(&ceo, &id, pieces(1_065_537)).await.refused(413, 2001);
    assert_eq!(about(&mut ceo, &id).await["size_bytes"], 1_000_000);
    assert_eq!(files(&server).len(), 1);
}
