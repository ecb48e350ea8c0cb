//! The command line next to a running server.

use quarterdeck_testkit::on_both_databases;
use serde_json::json;

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, until};

const NEW: &str = "another horse, another staple";

on_both_databases! {
    async fn a_reset_password_ends_the_sessions_of_the_running_server(db: TestDb) {
        let home = Home::on(&db);
        let server = home.serve().await;
        let mut owner = Caller::owner(&server).await;
        owner.get("/auth/me").await.expect(200);
        let run = home.run(&["user", "reset-password", "ada", "--password-stdin"], NEW).await;
        assert_eq!(run.code, Some(0), "{run:#?}");
        if db.is_shared() {
            owner.get("/auth/me").await.expect(401);
        } else {
            // A change of the file by another process is looked for several times a second.
            until("the end of the session", async || owner.get("/auth/me").await.status == 401).await;
        }
        let login = |password: &str| json!({"username": "ada", "password": password});
        let mut caller = Caller::new(&server);
        caller.post("/auth/login", login(PASSWORD)).await.expect(401);
        let session = caller.post("/auth/login", login(NEW)).await.expect(200).data();
        assert_eq!(session["must_change_password"], true);
    }

    async fn an_account_made_beside_the_server_can_sign_in(db: TestDb) {
        let home = Home::on(&db);
        let server = home.serve().await;
        let run = home.run(&["user", "create", "ada", "--role", "ceo", "--password-stdin"], PASSWORD).await;
        assert_eq!(run.code, Some(0), "{run:#?}");
        Caller::signed_in(&server).await;
        let setup = Caller::new(&server).get("/setup/status").await.expect(200).data();
        assert_eq!(setup["needs_admin"], false);
    }

    async fn status_and_doctor_recognise_the_running_server(db: TestDb) {
        let home = Home::on(&db);
        let server = home.serve().await;
        let status = home.run(&["status", "--json"], "").await;
        assert_eq!(status.code, Some(0), "{status:#?}");
        let doctor = home.run(&["doctor"], "").await;
        assert_eq!(doctor.code, Some(0), "{doctor:#?}");
        server.stop().await;
        assert_eq!(home.run(&["status", "--check"], "").await.code, Some(4));
    }
}
