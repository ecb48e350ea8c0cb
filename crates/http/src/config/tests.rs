use super::*;
use quarterdeck_auth::config::SameSite;

fn resolved(change: impl FnOnce(&mut ApiConfig)) -> Result<ApiConfig, String> {
    let mut config = ApiConfig::default();
    change(&mut config);
    config.resolve().map(|()| config)
}

fn refusal(change: impl FnOnce(&mut ApiConfig)) -> String {
    resolved(change).expect_err("the configuration was accepted")
}

fn proxies(json: &str) -> Result<Vec<IpNet>, String> {
    let json = format!(r#"{{"trusted_proxies": {json}}}"#);
    serde_json::from_str::<ServerConfig>(&json).map(|c| c.trusted_proxies).map_err(|e| e.to_string())
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let mut json = serde_json::to_value(ApiConfig::default()).unwrap();
    json.as_object_mut().unwrap().remove("auth");
    assert_eq!(
        json,
        serde_json::json!({
            "api_prefix": "/api/v1", "public_url": null, "error_docs_base_url": null,
            "cors": {
                "allowed_origins": [],
                "allow_methods": ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
                "allow_headers": ["Content-Type", "Authorization", "X-CSRF-Token", "If-Match"],
                "allow_credentials": true,
            },
            "rate_limit": {
                "floor_max_requests": 10000, "unauth_max_requests": 20, "auth_max_requests": 6000,
                "time_unit": "minute", "max_rpm_default": 60,
                "exclude_paths": ["/api/v1/health", "/api/v1/healthz", "/api/v1/readyz"],
            },
            "server": {
                "host": "127.0.0.1", "port": 3001, "workers": 1, "reload": false,
                "ws_ping_interval": 20.0, "ws_ping_timeout": 20.0,
                "ssl_certfile": null, "ssl_keyfile": null, "ssl_ca_certs": null, "trusted_proxies": [],
                "compression_minimum_size_bytes": 1000, "request_max_body_size_bytes": 52_428_800,
            },
        })
    );
    assert!(resolved(|_| ()).is_ok());
}

#[test]
fn every_bound_is_accepted_on_the_edge_and_refused_one_step_outside() {
    type Set = fn(&mut ApiConfig, u32);
    let bounds: [(&str, Set, u32, u32); 5] = [
        ("server.workers", |c, n| c.server.workers = n, 1, 32),
        (
            "server.compression_minimum_size_bytes",
            |c, n| c.server.compression_minimum_size_bytes = n,
            100,
            10_000,
        ),
        (
            "server.request_max_body_size_bytes",
            |c, n| c.server.request_max_body_size_bytes = n,
            1_000_000,
            536_870_912,
        ),
        ("rate_limit.max_rpm_default", |c, n| c.rate_limit.max_rpm_default = n, 1, 100_000),
        // Values above do not fit the type.
        ("server.port", |c, n| c.server.port = u16::try_from(n).unwrap_or(0), 1, 65_535),
    ];
    for (field, set, min, max) in bounds {
        for inside in [min, max] {
            assert!(resolved(|c| set(c, inside)).is_ok(), "{field} = {inside}");
        }
        for outside in [min - 1, max + 1] {
            let text = refusal(|c| set(c, outside));
            assert_eq!(text, format!("api.{field} must be between {min} and {max}"));
        }
    }
    type SetLimit = fn(&mut RateLimitConfig, u32);
    let limits: [SetLimit; 3] =
        [|c, n| c.floor_max_requests = n, |c, n| c.unauth_max_requests = n, |c, n| c.auth_max_requests = n];
    for set in limits {
        let all = |c: &mut ApiConfig| limits.iter().for_each(|set| set(&mut c.rate_limit, 1));
        assert!(resolved(all).is_ok());
        let text = refusal(|c| {
            all(c);
            set(&mut c.rate_limit, 0);
        });
        assert!(text.ends_with("_max_requests must be between 1 and 4294967295"), "{text}");
    }
}

#[test]
fn ping_times_are_finite_and_not_negative() {
    for (value, fits) in [(0.0, true), (0.5, true), (-0.1, false), (f64::NAN, false), (f64::INFINITY, false)]
    {
        assert_eq!(resolved(|c| c.server.ws_ping_interval = value).is_ok(), fits, "{value}");
        assert_eq!(resolved(|c| c.server.ws_ping_timeout = value).is_ok(), fits, "{value}");
    }
}

#[test]
fn the_prefix_is_a_path_of_plain_segments() {
    for good in ["/api/v1", "/v2", "/deck/api_1/~x"] {
        assert!(resolved(|c| c.api_prefix = good.to_owned()).is_ok(), "{good}");
    }
    for bad in ["", " ", "/", "api", "/api/", "//api", "/a b", "/{x}", "/a?b", "/a/../b", "/ä"] {
        assert!(refusal(|c| c.api_prefix = bad.to_owned()).starts_with("api.api_prefix "), "{bad}");
    }
}

#[test]
fn paths_left_at_their_default_follow_the_prefix() {
    let config = resolved(|c| c.api_prefix = "/deck/v1".to_owned()).unwrap();
    assert_eq!(config.auth.refresh_cookie_path, "/deck/v1/auth/refresh");
    assert_eq!(config.auth.cookie_path, "/deck/v1");
    assert_eq!(config.rate_limit.exclude_paths[0], "/deck/v1/health");
    let below = resolved(|c| c.api_prefix = "/api/v2".to_owned()).unwrap();
    assert_eq!(below.auth.cookie_path, "/api");
    let beside = resolved(|c| c.api_prefix = "/apis/v1".to_owned()).unwrap();
    assert_eq!(beside.auth.cookie_path, "/apis/v1");
    let chosen = resolved(|c| {
        c.api_prefix = "/deck/v1".to_owned();
        c.auth.refresh_cookie_path = "/x".to_owned();
        c.auth.cookie_path = "/".to_owned();
    })
    .unwrap();
    assert_eq!((chosen.auth.refresh_cookie_path.as_str(), chosen.auth.cookie_path.as_str()), ("/x", "/"));
}

#[test]
fn every_origin_together_with_credentials_is_refused() {
    let text = refusal(|c| c.cors.allowed_origins = vec!["http://a".to_owned(), "*".to_owned()]);
    assert!(text.starts_with("api.cors.allowed_origins must not hold \"*\""), "{text}");
    let open = resolved(|c| {
        c.cors.allowed_origins = vec!["*".to_owned()];
        c.cors.allow_credentials = false;
    });
    assert!(open.is_ok());
}

#[test]
fn an_origin_is_written_as_browsers_send_it() {
    for good in
        ["http://localhost:5173", "https://deck.example", "http://[::1]:8080", "http://127.0.0.1:8080"]
    {
        assert!(resolved(|c| c.cors.allowed_origins = vec![good.to_owned()]).is_ok(), "{good}");
    }
    for bad in [
        "",
        "null",
        "localhost:5173",
        "http://localhost/",
        "https://deck.example:443",
        "http://deck.example:80",
        "https://Deck.example",
        "ftp://deck.example",
        "http://a@deck.example",
        "http:// deck.example",
        "http://",
        "http://a:",
        "http://a:65536",
        "http://[::1]x",
    ] {
        let text = refusal(|c| c.cors.allowed_origins = vec!["http://a".to_owned(), bad.to_owned()]);
        assert!(text.starts_with("api.cors.allowed_origins[1] "), "{bad}: {text}");
    }
}

#[test]
fn half_a_tls_pair_is_refused_with_the_missing_half() {
    let path = || Some("x.pem".to_owned());
    let missing = |set: fn(&mut ServerConfig, Option<String>)| refusal(|c| set(&mut c.server, path()));
    assert!(missing(|c, p| c.ssl_certfile = p).starts_with("api.server.ssl_keyfile must be set"));
    assert!(missing(|c, p| c.ssl_keyfile = p).starts_with("api.server.ssl_certfile must be set"));
    assert!(missing(|c, p| c.ssl_ca_certs = p).starts_with("api.server.ssl_certfile must be set"));
    let whole = resolved(|c| (c.server.ssl_certfile, c.server.ssl_keyfile) = (path(), path())).unwrap();
    assert_eq!(whole.server.tls(), Some(TlsFiles { cert: "x.pem", key: "x.pem", client_ca: None }));
}

#[test]
fn a_blank_path_counts_as_not_set() {
    let config = resolved(|c| {
        c.server.ssl_certfile = Some("  ".to_owned());
        c.server.ssl_ca_certs = Some(String::new());
        c.public_url = Some(" ".to_owned());
    })
    .unwrap();
    assert_eq!(
        (config.server.tls(), config.server.ssl_ca_certs.as_ref(), config.public_url),
        (None, None, None)
    );
}

#[test]
fn a_trusted_proxy_is_an_address_or_a_network_but_never_every_address() {
    let good = proxies(r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:192.0.2.8"]"#).unwrap();
    let shown: Vec<_> = good.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "192.0.2.8/32"]);
    for bad in [r#"["proxy.example"]"#, r#"["10.0.0.0/33"]"#, r#"[""]"#] {
        assert!(proxies(bad).unwrap_err().contains("must hold IP addresses or networks"), "{bad}");
    }
    for every in [r#"["0.0.0.0/0"]"#, r#"["::/0"]"#, r#"["::ffff:0.0.0.0/96"]"#] {
        let text = refusal(|c| c.server.trusted_proxies = proxies(every).unwrap());
        assert!(text.starts_with("api.server.trusted_proxies must not hold"), "{every}: {text}");
    }
}

#[test]
fn cookies_are_secure_unless_only_this_machine_can_connect_in_clear() {
    let secure = |change: fn(&mut ApiConfig)| resolved(change).unwrap().auth.secure_cookies();
    for host in ["127.0.0.1", "::1", "localhost", "127.9.9.9"] {
        let config = resolved(|c| c.server.host = host.to_owned()).unwrap();
        assert!(!config.auth.secure_cookies(), "{host}");
    }
    for host in ["0.0.0.0", "::", "192.0.2.1", "deck.example"] {
        let config = resolved(|c| c.server.host = host.to_owned()).unwrap();
        assert!(config.auth.secure_cookies(), "{host}");
    }
    assert!(secure(|c| c.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()]));
    assert!(secure(|c| {
        (c.server.ssl_certfile, c.server.ssl_keyfile) = (Some("c".to_owned()), Some("k".to_owned()));
    }));
    assert!(secure(|c| c.auth.cookie_secure = CookieSecure::Yes));
    assert!(!secure(|c| {
        c.server.host = "0.0.0.0".to_owned();
        c.auth.cookie_secure = CookieSecure::No;
    }));
    assert!(
        refusal(|c| c.auth.cookie_samesite = SameSite::None).contains("cookie_samesite"),
        "auto became false"
    );
}

#[test]
fn development_lets_the_dashboard_call_over_plain_http() {
    let config = resolved(|c| {
        c.server.host = "0.0.0.0".to_owned();
        c.allow_development();
        c.allow_development();
    })
    .unwrap();
    assert_eq!(config.cors.allowed_origins, [DEV_ORIGIN]);
    assert!(!config.auth.secure_cookies());
}

#[test]
fn the_floor_carries_both_tiers() {
    let set = |floor, unauth, auth| {
        move |c: &mut ApiConfig| {
            c.rate_limit.floor_max_requests = floor;
            c.rate_limit.unauth_max_requests = unauth;
            c.rate_limit.auth_max_requests = auth;
        }
    };
    assert!(resolved(set(7, 7, 7)).is_ok());
    assert_eq!(
        refusal(set(6, 1, 7)),
        "api.rate_limit.floor_max_requests (6) must be at least api.rate_limit.auth_max_requests (7)"
    );
    assert!(refusal(set(6, 7, 1)).contains("unauth_max_requests (7)"));
}

#[test]
fn links_in_errors_lead_to_the_server_unless_told_otherwise() {
    let config = resolved(|_| ()).unwrap();
    assert_eq!(config.error_docs_base_url(), "http://127.0.0.1:3001/docs/errors");
    let config = resolved(|c| c.public_url = Some("https://deck.example/".to_owned())).unwrap();
    assert_eq!(config.error_docs_base_url(), "https://deck.example/docs/errors");
    let config = resolved(|c| c.error_docs_base_url = Some("https://e.example/x".to_owned())).unwrap();
    assert_eq!(config.error_docs_base_url(), "https://e.example/x");
    let config = resolved(|c| c.server.host = "::".to_owned()).unwrap();
    assert_eq!(config.public_url(), "http://localhost:3001");
    let config = resolved(|c| c.server.host = "::1".to_owned()).unwrap();
    assert_eq!(config.public_url(), "http://[::1]:3001");
    for bad in ["deck.example", "ftp://deck.example", "https://u@deck.example", "https://d/?q", "https://"] {
        assert!(refusal(|c| c.public_url = Some(bad.to_owned())).starts_with("api.public_url "), "{bad}");
    }
}

#[test]
fn a_server_that_others_can_reach_is_warned_about() {
    let warnings = |change: fn(&mut ApiConfig)| {
        let config = resolved(change).unwrap();
        config.warnings().iter().map(|w| w.event).collect::<Vec<_>>()
    };
    let exposure = "api.network.exposure_warning";
    assert!(warnings(|_| ()).is_empty());
    assert_eq!(warnings(|c| c.server.host = "0.0.0.0".to_owned()), [exposure, exposure]);
    assert_eq!(warnings(|c| c.server.host = "192.0.2.1".to_owned()), [exposure]);
    let proxied = |c: &mut ApiConfig| {
        c.server.host = "0.0.0.0".to_owned();
        c.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    };
    assert!(warnings(proxied).is_empty());
    let in_clear = |c: &mut ApiConfig| {
        c.server.host = "0.0.0.0".to_owned();
        c.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        c.auth.cookie_secure = CookieSecure::No;
    };
    assert_eq!(warnings(in_clear), ["api.auth.insecure_cookies"]);
}

#[test]
fn hosts_and_headers_are_refused_when_they_cannot_be_used() {
    for bad in ["", " ", "[::1]", "http://x", "a b"] {
        assert!(refusal(|c| c.server.host = bad.to_owned()).starts_with("api.server.host "), "{bad}");
    }
    assert!(refusal(|c| c.server.reload = true).starts_with("api.server.reload must be false"));
    assert!(refusal(|c| c.cors.allow_methods = vec!["G T".to_owned()]).starts_with("api.cors.allow_methods"));
    assert!(refusal(|c| c.cors.allow_headers = vec!["a:b".to_owned()]).starts_with("api.cors.allow_headers"));
    assert!(refusal(|c| c.rate_limit.exclude_paths = vec!["health".to_owned()]).contains("exclude_paths"));
}
