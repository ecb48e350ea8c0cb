//! Contents of artifacts, across starts and ends of the process and between processes.

use quarterdeck_testkit::{TestDb, on_both_databases};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::caller::Caller;
use crate::process::{Home, Server, until};

async fn artifact(caller: &mut Caller) -> String {
    let body = json!({"type": "code", "path": "p", "task_id": "t", "created_by": "a"});
    let made = caller.post("/artifacts", body).await.expect(201).data();
    format!("/artifacts/{}/content", made["id"].as_str().unwrap())
}

/// Begins an upload that never ends; the connection has to be held.
async fn begin(server: &Server, caller: &Caller, path: &str) -> tokio::net::TcpStream {
    let mut connection = server.connect().await;
    let (session, csrf) = (caller.cookie("session"), caller.cookie("csrf_token"));
    let head = format!(
        "PUT /api/v1{path} HTTP/1.1\r\nHost: deck\r\nContent-Length: 2000000\r\nX-CSRF-Token: {csrf}\r\n\
         Cookie: session={session}; csrf_token={csrf}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&[b'x'; 1_000_000]).await.unwrap();
    connection
}

fn files(home: &Home) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(home.data("artifacts")) else { return Vec::new() };
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

on_both_databases! {
    async fn a_kill_in_the_middle_of_an_upload_leaves_the_old_content(db: TestDb) {
        let home = Home::on(&db);
        let server = home.serve().await;
        let mut caller = Caller::owner(&server).await;
        let path = artifact(&mut caller).await;
        caller.put(&path, json!({"old": true})).await.expect(200);
        let kept = files(&home);
        let _connection = begin(&server, &caller, &path).await;
        until("a file that is being written", async || files(&home).len() == 2).await;
        server.kill().await;
        let orphan = "artifact-00000000000000000000000000000000.00000000000000000000000000000000";
        std::fs::write(home.data("artifacts").join(orphan), "left").unwrap();
        let server = home.serve().await;
        let mut caller = Caller::signed_in(&server).await;
        assert_eq!(caller.get(&path).await.expect(200).json(), json!({"old": true}));
        if !db.is_shared() {
            assert_eq!(files(&home), kept, "left-overs are gone at the next start");
        }
        caller.put(&path, json!({"new": true})).await.expect(200);
        assert_eq!(caller.get(&path).await.expect(200).json(), json!({"new": true}));
    }
}

#[tokio::test]
async fn processes_that_share_the_folder_share_the_contents() {
    let Some(db) = TestDb::postgres().await else { return };
    let one = Home::on(&db);
    let shared = one.data("");
    let two = Home::on(&db).with("QUARTERDECK_ARTIFACT_DIR", shared.to_str().unwrap());
    let (here, there) = (one.serve().await, two.serve().await);
    let mut caller = Caller::owner(&here).await;
    let path = artifact(&mut caller).await;
    let mut elsewhere = caller.at(&there);
    caller.put(&path, json!({"from": "here"})).await.expect(200);
    assert_eq!(elsewhere.get(&path).await.expect(200).json(), json!({"from": "here"}));
    elsewhere.put(&path, json!({"from": "there"})).await.expect(200);
    assert_eq!(caller.get(&path).await.expect(200).json(), json!({"from": "there"}));
    assert_eq!(files(&one).len(), 1);
}
