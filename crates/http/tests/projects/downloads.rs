//! Content on its way out.

use axum::http::Method;
use quarterdeck_testkit::{TestServer, on_both_databases};

use super::{artifact, content, download, put, request};

/// SHA-256 of `0123456789`.
const TAG: &str = "\"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882\"";

on_both_databases! {
    async fn content_is_given_as_a_file_to_save(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for (named, served) in [
            ("text/plain", "text/plain"),
            ("Application/JSON; charset=utf-8", "application/json"),
            ("image/png", "image/png"),
            ("text/html", "application/octet-stream"),
            ("image/svg+xml", "application/octet-stream"),
            ("text/html;x=text/plain", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            let id = artifact(&mut ceo, named).await;
            put(&ceo, &id, "0123456789").await.expect(200);
            let answer = download(&ceo, &id, &[("accept-encoding", "br, gzip")]).await.expect(200);
            assert_eq!(answer.text(), "0123456789");
            for (name, value) in [
                ("content-type", served),
                ("content-length", "10"),
                ("content-encoding", ""),
                ("content-disposition", "attachment; filename=\"main.rs\"; filename*=UTF-8''main.rs"),
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
                ("etag", TAG),
                ("repr-digest", "sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:"),
                ("accept-ranges", "bytes"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(answer.header(name), value, "{name} of {named}");
            }
        }
    }

    async fn parts_are_given_and_what_is_known_is_not_given_again(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "text/plain").await;
        put(&ceo, &id, "0123456789").await.expect(200);
        for (range, part, place) in
            [("bytes=2-4", "234", "bytes 2-4/10"), ("bytes=7-", "789", "bytes 7-9/10"), ("bytes=-1", "9", "bytes 9-9/10")]
        {
            let answer = download(&ceo, &id, &[("range", range)]).await.expect(206);
            assert_eq!((answer.text().as_str(), answer.header("content-range")), (part, place));
            assert_eq!(answer.header("content-length"), part.len().to_string());
            assert_eq!(answer.header("etag"), TAG);
        }
        let far = download(&ceo, &id, &[("range", "bytes=10-")]).await.refused(416, 2001);
        assert_eq!(far.header("content-range"), "bytes */10");
        let several = download(&ceo, &id, &[("range", "bytes=0-1,3-4")]).await.expect(200);
        assert_eq!(several.text(), "0123456789");
        let known = download(&ceo, &id, &[("if-none-match", TAG)]).await.expect(304);
        assert_eq!((known.body.len(), known.header("etag")), (0, TAG));
        assert_eq!(known.header("content-security-policy"), "sandbox; default-src 'none'; frame-ancestors 'none'");
        let current = [("range", "bytes=0-0"), ("if-range", TAG)];
        assert_eq!(download(&ceo, &id, &current).await.expect(206).text(), "0");
        put(&ceo, &id, "other").await.expect(200);
        assert_eq!(download(&ceo, &id, &current).await.expect(200).text(), "other");
        assert_ne!(download(&ceo, &id, &[("if-none-match", TAG)]).await.expect(200).header("etag"), TAG);
        put(&ceo, &id, "").await.expect(200);
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).header("content-length"), "0");
        download(&ceo, &id, &[("range", "bytes=0-")]).await.refused(416, 2001);
        let head = request(&ceo, Method::HEAD, &content(&id), &[], axum::body::Body::empty());
        assert_eq!(ceo.raw(head).await.expect(200).header("content-type"), "text/plain");
    }
}
