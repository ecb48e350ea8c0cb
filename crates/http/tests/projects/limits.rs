//! How often.

use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{TestDb, TestServer};
use serde_json::json;

use super::put;

#[tokio::test]
async fn projects_and_artifacts_have_limits_of_their_own() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.overrides = Overrides::new(true, &json!({}), true, &json!({}));
    })
    .await;
    let mut ceo = server.ceo().await;
    let empty = json!({});
    for _ in 0..20 {
        ceo.post("/api/v1/projects", &empty).await.refused(400, 2001);
        ceo.delete("/api/v1/artifacts/artifact-0").await.refused(404, 3000);
    }
    ceo.post("/api/v1/projects", &empty).await.refused(429, 5001);
    ceo.delete("/api/v1/artifacts/artifact-0").await.refused(429, 5001);
    for _ in 0..50 {
        ceo.post("/api/v1/artifacts", &empty).await.refused(400, 2001);
    }
    ceo.post("/api/v1/artifacts", &empty).await.refused(429, 5001);
    for _ in 0..10 {
        put(&ceo, "artifact-0", "").await.refused(404, 3000);
    }
    put(&ceo, "artifact-0", "").await.refused(429, 5001);
}
