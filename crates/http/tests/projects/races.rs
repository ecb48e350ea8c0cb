//! Many at once, on one copy of the program or two.

use axum::body::Body;
use axum::http::Method;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use super::{about, artifact, content, download, elsewhere, files, put, request};

on_both_databases! {
    async fn uploads_at_once_never_have_more_than_the_room_there_is(db: TestDb) {
        let server = TestServer::with(db, |options| options.artifact_bytes = 100).await;
        let second = match server.db.is_shared() {
            true => Some(server.second(|options| options.artifact_bytes = 100).await),
            false => None,
        };
        let callers = [server.ceo().await, second.as_ref().unwrap_or(&server).ceo().await];
        let mut ceo = callers[0].clone();
        for _ in 0..4 {
            let mut ids = Vec::new();
            for _ in 0..12 {
                ids.push(artifact(&mut ceo, "").await);
            }
            let uploads = ids.iter().enumerate().map(|(number, id)| {
                let caller = callers[number % 2].clone();
                // Without a size that is announced: only the last word counts.
                let bytes = Body::from_stream(stream::iter([Ok::<_, std::io::Error>("x".repeat(30))]));
                async move { put(&caller, id, bytes).await }
            });
            let answers = join_all(uploads).await;
            assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
            for answer in answers.into_iter().filter(|answer| answer.status != 200) {
                answer.refused(507, 8007);
            }
            assert_eq!(files(&server).len(), 3, "what found no room is not kept");
            let deletes = ids.iter().enumerate().map(|(number, id)| {
                let mut caller = callers[number % 2].clone();
                async move { caller.delete(&format!("/api/v1/artifacts/{id}")).await.expect(200) }
            });
            join_all(deletes).await;
            assert_eq!(files(&server), Vec::<String>::new());
        }
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "x".repeat(100)).await.expect(200);
    }

    async fn readers_see_the_old_bytes_or_the_new_and_never_a_mix(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let callers = [server.ceo().await, second.as_ref().unwrap_or(&server).ceo().await];
        let mut ceo = callers[0].clone();
        let id = artifact(&mut ceo, "").await;
        let sized = |letter: u8| vec![letter; 300_000 + 1000 * usize::from(letter)];
        put(&ceo, &id, sized(b'a')).await.expect(200);
        let writers = (0..4u8).map(|number| {
            let (caller, id) = (callers[usize::from(number) % 2].clone(), id.clone());
            async move {
                for round in 0..6 {
                    put(&caller, &id, sized(b'a' + number * 6 + round)).await.expect(200);
                }
            }
        });
        let readers = (0..4).map(|number| {
            let (caller, id) = (callers[number % 2].clone(), id.clone());
            async move {
                for _ in 0..25 {
                    let answer = download(&caller, &id, &[]).await.expect(200);
                    let letter = answer.body[0];
                    assert!(answer.body == sized(letter), "{} bytes", answer.body.len());
                    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
                }
            }
        });
        tokio::join!(join_all(writers), join_all(readers));
        let last = download(&ceo, &id, &[]).await.expect(200);
        assert_eq!(about(&mut ceo, &id).await["size_bytes"], json!(last.body.len()));
        assert_eq!(files(&server).len(), 1);
    }

    async fn uploads_racing_a_delete_leave_nothing_behind(db: TestDb) {
        let server = TestServer::with(db, |options| options.artifact_bytes = 10).await;
        let mut ceo = server.ceo().await;
        for _ in 0..10 {
            let id = artifact(&mut ceo, "").await;
            put(&ceo, &id, "old").await.expect(200);
            let uploads = (0..3).map(|_| {
                let (caller, id) = (ceo.clone(), id.clone());
                async move { put(&caller, &id, "new bytes").await.status }
            });
            let deletes = (0..2).map(|_| {
                let (mut caller, id) = (ceo.clone(), id.clone());
                async move { caller.delete(&format!("/api/v1/artifacts/{id}")).await.status }
            });
            let (uploads, deletes) = tokio::join!(join_all(uploads), join_all(deletes));
            assert!(uploads.iter().all(|status| [200, 404].contains(status)), "{uploads:?}");
            let mut deletes = deletes;
            deletes.sort_unstable();
            assert_eq!(deletes, [200, 404]);
            assert_eq!(files(&server), Vec::<String>::new());
        }
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "0123456789").await.expect(200);
    }

    async fn who_hangs_up_in_the_middle_leaves_the_old_content(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "old").await.expect(200);
        let half = stream::iter([Ok::<_, std::io::Error>("half")]).chain(stream::pending());
        let request = request(&ceo, Method::PUT, &content(&id), &[], Body::from_stream(half));
        let caller = ceo.clone();
        let upload = tokio::spawn(async move { caller.raw(request).await });
        while files(&server).len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "old", "while it is written");
        upload.abort();
        assert!(upload.await.is_err());
        assert_eq!(files(&server).len(), 1);
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "old");
    }
}
