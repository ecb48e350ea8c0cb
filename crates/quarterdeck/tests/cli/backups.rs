//! Backups and wiping without a server.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::deck::Deck;

/// Everything below a folder, with what is in it.
fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if path.is_dir() {
            all.push((name, Vec::new()));
            all.extend(snapshot(&path));
        } else {
            all.push((name, std::fs::read(path).unwrap()));
        }
    }
    all.sort();
    all
}

/// A data folder with a database in it.
fn furnished() -> Deck {
    let deck = Deck::new();
    deck.run(&["migrate"]).ended(0);
    assert!(deck.path("data/quarterdeck.db").is_file());
    deck
}

#[test]
fn without_a_server_the_exit_code_is_4() {
    for deck in [Deck::new(), furnished()] {
        for arguments in [
            &["backup"][..],
            &["backup", "create"],
            &["backup", "list"],
            &["backup", "delete", "0123456789ab"],
            &["backup", "restore", "0123456789ab", "--confirm"],
        ] {
            let run = deck.run_with(arguments, &[("QUARTERDECK_JWT_SECRET", &"s".repeat(40))], "").ended(4);
            assert!(run.stderr.contains("quarterdeck serve"), "{}", run.stderr);
        }
        deck.run(&["backup"]).ended(4);
        assert_eq!(deck.run(&["backup", "--json"]).ended(4).failure()["exit_code"], 4);
    }
}

#[test]
fn what_is_no_id_is_refused_before_anything_is_asked_for() {
    let deck = Deck::answered("500 Nothing should be asked\n{}");
    for id in ["abc", "../../x", "0123456789AB", "0123456789abc"] {
        let run = deck.run(&["backup", "restore", id, "--confirm"]).ended(2);
        assert!(run.stderr.contains("12 hex digits"), "{}", run.stderr);
        deck.run(&["backup", "delete", id]).ended(2);
    }
    let run = deck.run(&["backup", "restore", "0123456789ab"]).ended(2);
    assert!(run.stderr.contains("--confirm"), "{}", run.stderr);
    deck.run(&["backup", "list", "--limit", "-1"]).ended(2);
    deck.run(&["backup", "list", "--sort", "name"]).ended(2);
    deck.run(&["backup", "restore", "0123456789ab", "--components", "logs"]).ended(2);
}

#[test]
fn a_dry_run_changes_no_byte_and_needs_no_sound_configuration() {
    let deck = furnished();
    let before = snapshot(&deck.path(""));
    let run = deck.run(&["wipe", "--dry-run"]).ended(0);
    assert!(
        run.stdout.contains("quarterdeck.db") && run.stdout.contains("backup       yes"),
        "{}",
        run.stdout
    );
    let document = deck.run(&["wipe", "--dry-run", "--no-backup", "--json"]).ended(0).json();
    assert_eq!((&document["backup"], &document["dry_run"]), (&false.into(), &true.into()));
    let broken = [("QUARTERDECK_LOG_LEVEL", "loud")];
    let run = deck.run_with(&["wipe", "--dry-run"], &broken, "").ended(0);
    assert!(run.stdout.contains("(unavailable)"), "{}", run.stdout);
    assert_eq!(snapshot(&deck.path("")), before);
}

#[test]
fn a_wipe_saves_deletes_and_may_be_repeated() {
    let deck = furnished();
    let copy = deck.path("copy.tar.gz");
    let document = deck.run(&["wipe", "--yes", "--json", "--output", copy.to_str().unwrap()]).ended(0).json();
    assert_eq!(document["wiped"], true);
    assert!(copy.is_file() && !deck.path("data").exists());
    deck.run(&["backup", "verify", copy.to_str().unwrap()]).ended(0);
    for _ in 0..2 {
        let document = deck.run(&["wipe", "--yes", "--json"]).ended(0).json();
        assert_eq!(document["wiped"], false);
    }
    deck.run(&["migrate"]).ended(0);
    deck.run(&["wipe", "--yes", "--no-backup"]).ended(0);
    assert!(!deck.path("data").exists());
    let left = std::fs::read_dir(deck.path("")).unwrap().count();
    assert_eq!(left, 1, "nothing but the copy");
}

#[test]
fn without_a_terminal_and_a_yes_nothing_is_deleted() {
    let deck = furnished();
    let before = snapshot(&deck.path(""));
    for arguments in [&["wipe"][..], &["wipe", "--no-backup"], &["wipe", "--json"]] {
        let run = deck.run_with(arguments, &[], "y\nwipe data\n").ended(2);
        assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    }
    assert_eq!(snapshot(&deck.path("")), before);
}

#[test]
fn a_backup_that_fails_keeps_everything() {
    let deck = furnished();
    let database = deck.path("data/quarterdeck.db");
    std::fs::write(&database, "no database at all, but long enough to be looked at").unwrap();
    let run = deck.run(&["wipe", "--yes"]).ended(1);
    assert!(
        run.stderr.contains("nothing was deleted") && run.stderr.contains("--no-backup"),
        "{}",
        run.stderr
    );
    assert!(database.exists());
    let broken = [("QUARTERDECK_LOG_LEVEL", "loud")];
    deck.run_with(&["wipe", "--yes"], &broken, "").ended(1);
    assert!(database.exists());
    let inside = deck.path("data/copy.tar.gz");
    deck.run(&["wipe", "--yes", "--output", inside.to_str().unwrap()]).ended(2);
    assert!(database.exists());
    deck.run_with(&["wipe", "--yes", "--no-backup"], &broken, "").ended(0);
    assert!(!deck.path("data").exists());
}

#[test]
fn what_is_no_data_folder_is_not_deleted() {
    let deck = furnished();
    std::fs::create_dir_all(deck.path("mine/deeper")).unwrap();
    std::fs::write(deck.path("mine/letter"), "dear reader").unwrap();
    symlink(deck.path("data"), deck.path("link")).unwrap();
    std::fs::write(deck.path("file"), "x").unwrap();
    let before = snapshot(&deck.path(""));
    let mine = deck.path("mine");
    let climbing = deck.path("mine/../data");
    for (folder, why) in [
        (mine.to_str().unwrap(), "holds no database"),
        (climbing.to_str().unwrap(), "contains .."),
        (deck.path("link").to_str().unwrap(), "is a link"),
        (deck.path("file").to_str().unwrap(), "not a folder"),
        ("/", "root"),
    ] {
        let run = deck.run(&["wipe", "--yes", "--no-backup", "--data-dir", folder]).ended(1);
        assert!(run.stderr.contains(why), "{folder}: {}", run.stderr);
        deck.run(&["wipe", "--dry-run", "--data-dir", folder]).ended(1);
    }
    assert_eq!(snapshot(&deck.path("")), before);
}

#[test]
fn links_in_the_folder_are_deleted_and_not_followed() {
    let deck = furnished();
    std::fs::create_dir_all(deck.path("mine")).unwrap();
    std::fs::write(deck.path("mine/letter"), "dear reader").unwrap();
    symlink(deck.path("mine"), deck.path("data/link")).unwrap();
    deck.run(&["wipe", "--yes", "--no-backup"]).ended(0);
    assert!(!deck.path("data").exists() && deck.path("mine/letter").is_file());
}
