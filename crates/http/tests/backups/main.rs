//! Backups: who may, what is kept, and that what was saved comes back.

mod access;
mod create;
mod hostile;
mod restore;

use std::path::{Path, PathBuf};

use quarterdeck_testkit::{Answer, Caller, TestServer};
use serde_json::{Value, json};

const BACKUPS: &str = "/api/v1/admin/backups";
const RESTORE: &str = "/api/v1/admin/backups/restore";
const ME: &str = "/api/v1/auth/me";

/// Makes a backup; what it says of itself.
async fn make(caller: &mut Caller) -> Value {
    caller.post_empty(BACKUPS).await.expect(201).data()
}

/// The id in a manifest.
fn id_of(manifest: &Value) -> String {
    manifest["backup_id"].as_str().expect("an id").to_owned()
}

async fn restore(caller: &mut Caller, id: &str, components: Value) -> Answer {
    let body = json!({"backup_id": id, "components": components, "confirm": true});
    caller.post(RESTORE, &body).await
}

/// What lies in the folder of the backups.
fn shelf(server: &TestServer) -> Vec<String> {
    let folder = server.db.folder().join("backups");
    let entries = std::fs::read_dir(folder).map(|all| all.map(|entry| entry.unwrap().file_name()));
    let mut names: Vec<_> = match entries {
        Ok(names) => names.map(|name| name.into_string().unwrap()).collect(),
        Err(_) => Vec::new(),
    };
    names.sort();
    names
}

fn place(server: &TestServer, name: &str) -> PathBuf {
    server.db.folder().join("backups").join(name)
}

/// The one entry of this backup.
fn entry(server: &TestServer, id: &str) -> PathBuf {
    let name = shelf(server).into_iter().find(|name| name.starts_with(id)).expect("it is there");
    place(server, &name)
}

/// Something to save beside the database.
fn furnish(server: &TestServer, word: &str) {
    for (name, content) in [("memory/notes/one", word), ("artifacts/a1", word)] {
        let path = server.db.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(server.db.folder().join("quarterdeck.toml"), format!("# {word}\n")).unwrap();
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// What stands beside the database now.
fn furniture(server: &TestServer) -> [String; 3] {
    ["memory/notes/one", "artifacts/a1", "quarterdeck.toml"].map(|name| read(server.db.folder(), name))
}

/// Packs nothing, so that single files can be looked at.
async fn unpacked(ceo: &mut Caller) {
    ceo.put("/api/v1/settings/backup/compression", &json!({"value": "false"})).await.expect(200);
}
