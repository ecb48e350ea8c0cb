//! Rules about users that hold whatever the program does.

use chrono::DateTime;
use quarterdeck_domain::Result;
use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_domain::user::{ApiKey, SYSTEM_USER, Session, User};
use quarterdeck_store::refresh_token::{self, Consumed, RefreshToken};
use quarterdeck_store::{Store, api_key, session, user};
use quarterdeck_testkit::on_both_databases;

use crate::{add, person};

const NOW: DateTime<chrono::Utc> = DateTime::UNIX_EPOCH;

fn owner(id: &str) -> User {
    User { org_roles: vec![OrgRole::Owner], ..person(id, HumanRole::Observer) }
}

async fn set_role(store: &Store, id: &'static str, role: HumanRole) -> Result<bool> {
    store.write(move |tx| Box::pin(user::set_role(tx, id, role, NOW))).await
}

async fn step_down(store: &Store, id: &'static str) -> Result<()> {
    store.write(move |tx| Box::pin(user::set_org_roles(tx, id, &[], &[], NOW))).await
}

async fn delete(store: &Store, id: &'static str) -> Result<bool> {
    store.write(move |tx| Box::pin(user::delete(tx, id, chrono::DateTime::UNIX_EPOCH))).await
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T>, detail: &str) {
    let refusal = outcome.unwrap_err();
    assert_eq!((refusal.status(), refusal.code().number()), (409, 4000), "{refusal}");
    assert_eq!(refusal.detail(), detail);
}

async fn role_of(store: &Store, id: &str) -> Option<HumanRole> {
    user::by_id(store.read(), id).await.unwrap().map(|user| user.role)
}

on_both_databases! {
    async fn there_is_never_a_second_ceo(db: TestDb) {
        let store = db.open().await;
        add(&store, person("a", HumanRole::Ceo)).await.unwrap();
        add(&store, person("b", HumanRole::Manager)).await.unwrap();
        refused(add(&store, person("c", HumanRole::Ceo)).await, "A CEO already exists");
        refused(set_role(&store, "b", HumanRole::Ceo).await, "A CEO already exists");
        assert!(db.try_execute("UPDATE users SET role = 'ceo' WHERE id = 'b'").await.is_err());
        assert_eq!(user::count_role(store.read(), HumanRole::Ceo).await.unwrap(), 1);
    }

    async fn the_only_ceo_stays_unless_the_role_is_handed_over(db: TestDb) {
        let store = db.open().await;
        add(&store, person("a", HumanRole::Ceo)).await.unwrap();
        add(&store, person("b", HumanRole::Observer)).await.unwrap();
        refused(set_role(&store, "a", HumanRole::Manager).await, "The only CEO cannot lose the role");
        refused(delete(&store, "a").await, "The only CEO cannot lose the role");
        assert!(db.try_execute("UPDATE users SET role = 'observer'").await.is_err());
        assert!(db.try_execute("DELETE FROM users WHERE role = 'ceo'").await.is_err());
        store.write(|tx| Box::pin(user::transfer_ceo(tx, "a", "b", NOW))).await.unwrap();
        assert_eq!(role_of(&store, "a").await, Some(HumanRole::Manager));
        assert_eq!(role_of(&store, "b").await, Some(HumanRole::Ceo));
        refused(set_role(&store, "b", HumanRole::Manager).await, "The only CEO cannot lose the role");
        // A transfer that fails half-way leaves the door as shut as it was.
        let half = store.write(|tx| Box::pin(user::transfer_ceo(tx, "b", "nobody", NOW))).await;
        assert_eq!(half.unwrap_err().status(), 404);
        assert_eq!(role_of(&store, "b").await, Some(HumanRole::Ceo));
    }

    async fn the_last_owner_stays(db: TestDb) {
        let store = db.open().await;
        add(&store, owner("a")).await.unwrap();
        add(&store, owner("b")).await.unwrap();
        step_down(&store, "a").await.unwrap();
        refused(step_down(&store, "b").await, "The last owner cannot lose the role");
        refused(delete(&store, "b").await, "The last owner cannot lose the role");
        assert!(db.try_execute("UPDATE users SET org_roles = '[]'").await.is_err());
        let roles = |roles: &'static [OrgRole]| {
            store.write(move |tx| Box::pin(user::set_org_roles(tx, "b", roles, &[], NOW)))
        };
        roles(&[OrgRole::Owner, OrgRole::Viewer]).await.unwrap();
        refused(roles(&[OrgRole::Viewer]).await, "The last owner cannot lose the role");
    }

    async fn of_two_owners_who_step_down_at_once_one_stays(db: TestDb) {
        let store = db.open().await;
        add(&store, owner("a")).await.unwrap();
        add(&store, owner("b")).await.unwrap();
        for _ in 0..20 {
            for id in ["a", "b"] {
                store
                    .write(move |tx| Box::pin(user::set_org_roles(tx, id, &[OrgRole::Owner], &[], NOW)))
                    .await
                    .unwrap();
            }
            let (a, b) = tokio::join!(step_down(&store, "a"), step_down(&store, "b"));
            assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
            refused(a.and(b), "The last owner cannot lose the role");
        }
    }

    async fn the_system_user_cannot_be_deleted(db: TestDb) {
        let store = db.open().await;
        add(&store, person(SYSTEM_USER, HumanRole::System)).await.unwrap();
        refused(delete(&store, SYSTEM_USER).await, "The system user cannot be modified");
        assert!(db.try_execute("DELETE FROM users").await.is_err());
        assert_eq!(role_of(&store, SYSTEM_USER).await, Some(HumanRole::System));
    }

    async fn names_that_read_alike_are_one_name(db: TestDb) {
        let store = db.open().await;
        add(&store, person("Ada", HumanRole::Observer)).await.unwrap();
        for name in ["Ada", "ada", "ADA", "Ａｄａ"] {
            let twin = User { id: format!("twin {name}"), ..person(name, HumanRole::Observer) };
            refused(add(&store, twin).await, "Username already taken");
        }
        add(&store, person("Ada2", HumanRole::Observer)).await.unwrap();
    }

    async fn what_proves_a_user_goes_with_the_user(db: TestDb) {
        let store = db.open().await;
        add(&store, person("a", HumanRole::Observer)).await.unwrap();
        add(&store, person("b", HumanRole::Observer)).await.unwrap();
        for id in ["a", "b"] {
            store.write(move |tx| Box::pin(async move {
                session::upsert(tx, &Session {
                    session_id: format!("session of {id}"),
                    user_id: id.to_owned(),
                    username: id.to_owned(),
                    role: HumanRole::Observer,
                    ip_address: String::new(),
                    user_agent: String::new(),
                    created_at: NOW,
                    last_active_at: NOW,
                    expires_at: NOW + chrono::TimeDelta::days(1),
                    revoked: false,
                }).await?;
                refresh_token::insert(tx, &RefreshToken {
                    token_hash: format!("token of {id}"),
                    session_id: format!("session of {id}"),
                    user_id: id.to_owned(),
                    expires_at: NOW + chrono::TimeDelta::days(1),
                    created_at: NOW,
                }).await?;
                let key = ApiKey {
                    id: format!("key of {id}"),
                    name: "key".to_owned(),
                    role: HumanRole::Observer,
                    user_id: id.to_owned(),
                    created_at: NOW,
                    expires_at: None,
                    revoked: false,
                };
                api_key::insert(tx, &key, &format!("hash of {id}")).await
            })).await.unwrap();
        }
        assert!(delete(&store, "a").await.unwrap());
        for (id, stays) in [("a", false), ("b", true)] {
            let consumed = store.write(move |tx| Box::pin(async move {
                refresh_token::consume(tx, &format!("token of {id}"), NOW).await
            })).await.unwrap();
            assert_eq!(consumed != Consumed::Unknown, stays);
            assert_eq!(session::active(store.read(), Some(id), NOW).await.unwrap().len(), usize::from(stays));
            assert_eq!(api_key::of_user(store.read(), id).await.unwrap().len(), usize::from(stays));
        }
        let orphan = "INSERT INTO api_keys (id, key_hash, name, role, user_id, created_at, revoked) \
                      VALUES ('x', 'x', 'x', 'ceo', 'nobody', 0, FALSE)";
        assert!(db.try_execute(orphan).await.is_err(), "a key needs an owner");
    }
}
