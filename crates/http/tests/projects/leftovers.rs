//! When something fails, or ended in the middle.

use std::fs;
use std::time::{Duration, SystemTime};

use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use super::{about, artifact, download, files, put};

const HOUR: Duration = Duration::from_secs(3600);

/// From now on the database does not let content be replaced.
async fn spoil(server: &TestServer) {
    let trigger = match server.db.is_shared() {
        true => {
            "CREATE FUNCTION spoilt() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'spoilt'; END $$; \
             CREATE TRIGGER spoilt BEFORE UPDATE ON artifacts FOR EACH ROW EXECUTE FUNCTION spoilt()"
        }
        false => "CREATE TRIGGER spoilt BEFORE UPDATE ON artifacts BEGIN SELECT RAISE(ABORT, 'spoilt'); END",
    };
    server.db.execute(trigger).await;
}

on_both_databases! {
    async fn a_row_that_cannot_be_written_leaves_the_old_content(db: TestDb) {
        let server = TestServer::with(db, |options| options.artifact_bytes = 10).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "old").await.expect(200);
        let (before, kept) = (about(&mut ceo, &id).await, files(&server));
        spoil(&server).await;
        let failed = put(&ceo, &id, "other").await.refused(500, 8002);
        assert_eq!(failed.error(), "Internal server error");
        assert_eq!((about(&mut ceo, &id).await, files(&server)), (before, kept));
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "old");
        let other = artifact(&mut ceo, "").await;
        put(&ceo, &other, "1234567").await.refused(500, 8002);
        put(&ceo, &other, "12345678").await.refused(507, 8007);
    }

    async fn content_that_cannot_be_removed_keeps_its_artifact(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "bytes").await.expect(200);
        let path = server.db.artifacts().join(&files(&server)[0]);
        fs::rename(&path, path.with_extension("away")).unwrap();
        fs::create_dir(&path).unwrap();
        let one = format!("/api/v1/artifacts/{id}");
        ceo.delete(&one).await.refused(500, 8002);
        assert_eq!(about(&mut ceo, &id).await["size_bytes"], 5);
        download(&ceo, &id, &[]).await.refused(500, 8002);
        fs::remove_dir(&path).unwrap();
        fs::rename(path.with_extension("away"), &path).unwrap();
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "bytes");
        ceo.delete(&one).await.expect(200);
    }

    async fn content_that_is_lost_is_not_found_and_can_be_given_anew(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "bytes").await.expect(200);
        fs::remove_dir_all(server.db.artifacts()).unwrap();
        download(&ceo, &id, &[]).await.refused(404, 3000);
        put(&ceo, &id, "again").await.expect(200);
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "again");
        fs::remove_dir_all(server.db.artifacts()).unwrap();
        ceo.delete(&format!("/api/v1/artifacts/{id}")).await.expect(200);
    }

    async fn what_no_artifact_has_is_collected_and_nothing_else(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "bytes").await.expect(200);
        let folder = server.db.artifacts();
        let hex = "0123456789abcdef0123456789abcdef";
        let leftovers = [
            format!("artifact-{hex}.{hex}"), format!("{id}.{hex}"), format!("{id}.{hex}.tmp"),
        ];
        let mut others = vec![files(&server)[0].clone(), "notes.txt".to_owned(), format!("artifact-{hex}"), "x.tmp".to_owned()];
        for name in leftovers.iter().chain(&others[1..]) {
            fs::write(folder.join(name), "left").unwrap();
        }
        assert_eq!(server.app.artifacts.collect(HOUR).await.unwrap(), 0, "they may be uploads under way");
        assert_eq!(files(&server).len(), 7);
        for entry in fs::read_dir(&folder).unwrap() {
            let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(SystemTime::now() - 2 * HOUR).unwrap();
        }
        assert_eq!(server.app.artifacts.collect(HOUR).await.unwrap(), 2);
        others.sort();
        assert_eq!(files(&server), others);
        assert_eq!(server.app.artifacts.collect(Duration::ZERO).await.unwrap(), 0);
        assert_eq!(download(&ceo, &id, &[]).await.expect(200).text(), "bytes");
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(server.app.artifacts.collect(Duration::ZERO).await.unwrap(), 0, "no folder, no leftovers");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_folder_leads_nowhere() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let id = artifact(&mut ceo, "").await;
    put(&ceo, &id, "bytes").await.expect(200);
    let path = server.db.artifacts().join(&files(&server)[0]);
    let outside = server.db.artifacts().with_extension("outside");
    fs::write(&outside, "bytes").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    download(&ceo, &id, &[]).await.refused(500, 8002);
    ceo.delete(&format!("/api/v1/artifacts/{id}")).await.expect(200);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "bytes", "the link is removed, not what it names");
}

#[cfg(unix)]
#[tokio::test]
async fn contents_are_for_the_server_alone() {
    use std::os::unix::fs::PermissionsExt;
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let id = artifact(&mut ceo, "").await;
    put(&ceo, &id, "bytes").await.expect(200);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = server.db.artifacts();
    assert_eq!((mode(&folder), mode(&folder.join(&files(&server)[0]))), (0o700, 0o600));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_fails_uploads_alone() {
    let server = TestServer::start().await;
    fs::write(server.db.artifacts(), "a file").unwrap();
    let mut ceo = server.ceo().await;
    let id = artifact(&mut ceo, "").await;
    put(&ceo, &id, "bytes").await.refused(500, 8002);
    assert_eq!(about(&mut ceo, &id).await["size_bytes"], json!(0));
}
