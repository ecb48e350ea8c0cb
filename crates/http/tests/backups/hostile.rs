//! Backups that somebody has tampered with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use quarterdeck_testkit::{Caller, TestServer};
use serde_json::json;
use tar::{Archive, Builder, EntryType, Header};

use crate::{ME, entry, furnish, furniture, id_of, make, restore, shelf, unpacked};

/// A restore is refused with one text, nothing has changed, and no safety backup was made for it.
async fn is_refused(server: &TestServer, caller: &mut Caller, id: &str, what: &str) {
    let before = (shelf(server), furniture(server));
    let answer = restore(caller, id, json!(null)).await;
    assert_eq!((answer.status, answer.code()), (422, 2000), "{what}: {}", answer.text());
    assert_eq!(answer.error(), "Invalid backup manifest", "{what}");
    assert_eq!((shelf(server), furniture(server)), before, "{what}");
    caller.get(ME).await.expect(200);
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn one_byte_of_any_file_that_is_not_what_it_was_is_noticed() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    furnish(&server, "first");
    unpacked(&mut ceo).await;
    let id = id_of(&make(&mut ceo).await);
    let mut saved = Vec::new();
    files(&entry(&server, &id), &mut saved);
    assert_eq!(saved.len(), 5, "{saved:?}");
    for path in saved {
        let sound = std::fs::read(&path).unwrap();
        for at in [0, sound.len() / 2, sound.len() - 1] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            is_refused(&server, &mut ceo, &id, &format!("{} {at}", path.display())).await;
        }
        std::fs::write(&path, sound).unwrap();
    }
    std::fs::write(entry(&server, &id).join("memory/more"), "x").unwrap();
    is_refused(&server, &mut ceo, &id, "a file more").await;
    std::fs::remove_file(entry(&server, &id).join("memory/more")).unwrap();
    restore(&mut ceo, &id, json!(null)).await.expect(201);
}

#[tokio::test]
async fn a_packed_backup_cut_short_or_changed_is_noticed() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    furnish(&server, "first");
    let id = id_of(&make(&mut ceo).await);
    let path = entry(&server, &id);
    let sound = std::fs::read(&path).unwrap();
    for length in [sound.len() - 1, sound.len() - 8, sound.len() / 2, 100, 0] {
        std::fs::write(&path, &sound[..length]).unwrap();
        is_refused(&server, &mut ceo, &id, &format!("cut at {length}")).await;
    }
    for part in 1..10 {
        let mut bytes = sound.clone();
        bytes[sound.len() * part / 10] ^= 0x40;
        std::fs::write(&path, &bytes).unwrap();
        is_refused(&server, &mut ceo, &id, &format!("changed at {part} tenths")).await;
    }
    std::fs::write(&path, &sound).unwrap();
    restore(&mut ceo, &id, json!(null)).await.expect(201);
}

/// The packed backup, with something added before its end.
fn smuggle(archive: &Path, name: &str, kind: EntryType, link: &str) {
    let mut packed = Vec::new();
    GzDecoder::new(File::open(archive).unwrap()).read_to_end(&mut packed).unwrap();
    let mut old = Archive::new(packed.as_slice());
    let mut new = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for entry in old.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (mut header, path) = (entry.header().clone(), entry.path().unwrap().into_owned());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        new.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_cksum();
    new.append(&header, &b""[..]).unwrap();
    std::fs::write(archive, new.into_inner().unwrap().finish().unwrap()).unwrap();
}

#[tokio::test]
async fn an_archive_that_reaches_out_of_its_folder_is_refused() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let id = id_of(&make(&mut ceo).await);
    let path = entry(&server, &id);
    let sound = std::fs::read(&path).unwrap();
    let outside = server.db.folder().join("backups/x");
    for (name, kind, link) in [
        ("../x", EntryType::Regular, ""),
        ("../../backups/x", EntryType::Regular, ""),
        ("/etc/quarterdeck-x", EntryType::Regular, ""),
        ("link", EntryType::Symlink, "../../x"),
        ("link", EntryType::Symlink, "/etc/passwd"),
        ("link", EntryType::Link, "../x"),
        ("pipe", EntryType::Fifo, ""),
        ("device", EntryType::Char, ""),
    ] {
        smuggle(&path, name, kind, link);
        is_refused(&server, &mut ceo, &id, &format!("{name} {link}")).await;
        assert!(!outside.exists() && !Path::new("/etc/quarterdeck-x").exists(), "{name}");
        std::fs::write(&path, &sound).unwrap();
    }
}

#[tokio::test]
async fn a_manifest_that_is_none_is_refused() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    unpacked(&mut ceo).await;
    let id = id_of(&make(&mut ceo).await);
    let path = entry(&server, &id).join("manifest.json");
    let sound = std::fs::read_to_string(&path).unwrap();
    let padded = format!("{sound}{}", " ".repeat(65_536));
    for text in [
        "",
        "{}",
        "[]",
        "\u{0}",
        &padded,
        &sound.replace("manual", "scheduled"),
        &sound.replace(&id, "0123456789ab"),
    ] {
        std::fs::write(&path, text).unwrap();
        is_refused(&server, &mut ceo, &id, &text[..text.len().min(20)]).await;
        ceo.get(&format!("{}/{id}", crate::BACKUPS)).await.refused(404, 3001);
    }
}
