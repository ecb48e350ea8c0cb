//! The floor, the anonymous tier and the tier of users.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_http::edge::TrustedProxies;
use quarterdeck_testkit::{TestDb, TestServer};

use crate::{HEALTH, ME, MINUTE, OPEN, out_of_the_box, race, server_with, wait_of};

#[tokio::test]
async fn twenty_anonymous_requests_pass_and_the_next_one_waits_for_the_window() {
    let server = server_with(|_| ()).await;
    let mut caller = server.anonymous().from("192.0.2.1");
    for _ in 0..20 {
        caller.get(OPEN).await.expect(200);
        server.advance(Duration::from_secs(1));
    }
    assert_eq!(wait_of(&caller.get(OPEN).await, 5000), 40);
    server.anonymous().from("192.0.2.2").get(OPEN).await.expect(200);
    server.advance(Duration::from_secs(40));
    caller.get(OPEN).await.expect(200);
    // The window slides: one slot became free, not twenty.
    assert_eq!(wait_of(&caller.get(OPEN).await, 5000), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_five_racing_anonymous_requests_exactly_twenty_pass() {
    let server = server_with(|_| ()).await;
    assert_eq!(race(&[server.anonymous().from("192.0.2.1")], 25, OPEN).await, 20);
}

#[tokio::test]
async fn users_behind_one_address_do_not_share_and_a_user_at_two_addresses_does() {
    let server = server_with(|tiers| tiers.authenticated = 10).await;
    let ceo = server.ceo().await;
    let other = server.person("other", HumanRole::Observer).await;
    server.advance(MINUTE);
    let (mut here, mut there) = (ceo.clone().from("192.0.2.1"), ceo.from("198.51.100.1"));
    for _ in 0..5 {
        here.get(ME).await.expect(200);
        there.get(ME).await.expect(200);
    }
    wait_of(&here.get(ME).await, 5000);
    wait_of(&there.get(ME).await, 5000);
    let mut other = other.from("192.0.2.1");
    for _ in 0..10 {
        other.get(ME).await.expect(200);
    }
    wait_of(&other.get(ME).await, 5000);
}

#[tokio::test]
async fn bad_tokens_use_up_the_anonymous_tier_of_their_address() {
    let server = server_with(|_| ()).await;
    let mut ceo = server.ceo().await.from("192.0.2.1");
    server.advance(MINUTE);
    let mut guesser = server.bearer("not a token").from("192.0.2.1");
    for _ in 0..20 {
        guesser.get(ME).await.expect(401);
    }
    wait_of(&guesser.get(ME).await, 5000);
    wait_of(&server.anonymous().from("192.0.2.1").get(OPEN).await, 5000);
    // Whoever has an identity is not touched by the guessing.
    ceo.get(ME).await.expect(200);
}

#[tokio::test]
async fn a_flood_of_bad_tokens_is_stopped_by_the_floor_even_for_the_valid_one() {
    let server = server_with(|tiers| (tiers.floor, tiers.anonymous) = (30, 20)).await;
    let ceo = server.ceo().await;
    let mut elsewhere = ceo.clone().from("198.51.100.1");
    let mut ceo = ceo.from("192.0.2.1");
    server.advance(MINUTE);
    let mut guesser = server.bearer("not a token").from("192.0.2.1");
    for _ in 0..30 {
        guesser.get(ME).await;
    }
    for _ in 0..2 {
        assert_eq!(wait_of(&ceo.get(ME).await, 5000), 60);
    }
    elsewhere.get(ME).await.expect(200);
    server.anonymous().from("192.0.2.1").get(HEALTH).await.expect(200);
    server.advance(MINUTE);
    ceo.get(ME).await.expect(200);
}

#[tokio::test]
async fn health_is_never_refused_and_never_counted_but_its_neighbours_are() {
    let server = server_with(|tiers| (tiers.floor, tiers.anonymous) = (3, 3)).await;
    let mut caller = server.anonymous().from("192.0.2.1");
    for _ in 0..10 {
        let answer = caller.get(HEALTH).await.expect(200);
        assert!(!answer.headers.contains_key("ratelimit-limit"));
    }
    for _ in 0..3 {
        caller.get("/api/v1/health-anything").await.expect(404);
    }
    wait_of(&caller.get("/api/v1/health-anything").await, 5000);
    caller.get(HEALTH).await.expect(200);
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_pages_count_on_the_floor() {
    for path in ["/api/v1/nowhere", "/nowhere", "/", "/docs/openapi.json"] {
        let server = server_with(|tiers| tiers.floor = 2).await;
        let mut caller = server.anonymous().from("192.0.2.1");
        for remaining in ["1", "0"] {
            let answer = caller.get(path).await;
            assert_ne!(answer.status, 429, "{path}");
            assert_eq!(answer.header("ratelimit-remaining"), remaining, "{path}");
        }
        wait_of(&caller.get(path).await, 5000);
    }
    let server = server_with(|tiers| tiers.floor = 2).await;
    let mut caller = server.anonymous().from("192.0.2.1");
    for remaining in ["1", "0"] {
        assert_eq!(caller.delete(ME).await.expect(405).header("ratelimit-remaining"), remaining);
    }
    wait_of(&caller.delete(ME).await, 5000);
}

#[tokio::test]
async fn what_is_refused_for_its_csrf_token_counts_on_the_floor() {
    let server = server_with(|_| ()).await;
    let mut ceo = server.ceo().await.from("192.0.2.1").without_csrf();
    for remaining in ["9999", "9998"] {
        let answer = ceo.post_empty("/api/v1/auth/ws-ticket").await.expect(403);
        assert_eq!(answer.header("ratelimit-policy"), r#""floor";q=10000;w=60"#);
        assert_eq!(answer.header("ratelimit-remaining"), remaining);
    }
}

#[tokio::test]
async fn forwarding_headers_of_strangers_change_nothing() {
    let server = server_with(|_| ()).await;
    let caller = server.anonymous().from("192.0.2.1");
    for i in 0..20 {
        let forged = match i % 4 {
            0 => caller.clone().with_header("x-forwarded-for", &format!("203.0.113.{i}")),
            1 => caller.clone().with_header("forwarded", &format!("for=203.0.113.{i};proto=https")),
            2 => caller.clone().with_header("x-forwarded-for", ",,\"[::::]:99999\", \u{1f980}"),
            _ => caller.clone().with_header("x-real-ip", &format!("203.0.113.{i}")),
        };
        forged.clone().get(OPEN).await.expect(200);
    }
    wait_of(&caller.with_header("x-forwarded-for", "203.0.113.99").get(OPEN).await, 5000);
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_client_has_a_budget_and_a_broken_header_has_the_proxys() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        out_of_the_box(options);
        options.tiers.anonymous = 2;
        options.edge.trusted_proxies = TrustedProxies::parse(["10.0.0.0/8"]).unwrap();
    })
    .await;
    let proxy = server.anonymous().from("10.0.0.1");
    let through = |header: &str| proxy.clone().with_header("x-forwarded-for", header);
    for client in ["192.0.2.1", "192.0.2.2"] {
        // What a client wrote itself stands left of its own address.
        for claim in ["198.51.100.1", "198.51.100.2"] {
            through(&format!("{claim}, {client}")).get(OPEN).await.expect(200);
        }
        wait_of(&through(&format!("198.51.100.3, {client}")).get(OPEN).await, 5000);
    }
    through("garbage").get(OPEN).await.expect(200);
    through("203.0.113.7, also garbage").get(OPEN).await.expect(200);
    wait_of(&through("yet more garbage").get(OPEN).await, 5000);
}

#[tokio::test]
async fn one_ipv6_network_and_one_mapped_address_are_one_client() {
    let server = server_with(|tiers| tiers.anonymous = 2).await;
    for [one, other, third, stranger] in [
        ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3", "2001:db8:0:1::1"],
        ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201", "::ffff:192.0.2.2"],
    ] {
        server.anonymous().from(one).get(OPEN).await.expect(200);
        server.anonymous().from(other).get(OPEN).await.expect(200);
        wait_of(&server.anonymous().from(third).get(OPEN).await, 5000);
        server.anonymous().from(stranger).get(OPEN).await.expect(200);
    }
}
