//! Projects, artifacts and their contents.

mod artifacts;
mod downloads;
mod leftovers;
mod limits;
mod projects;
mod races;
mod uploads;

use axum::body::Body;
use axum::http::{Method, Request};
use quarterdeck_testkit::{Answer, Caller, TestServer};
use serde_json::{Value, json};

/// An artifact of this content type.
async fn artifact(caller: &mut Caller, content_type: &str) -> String {
    let body = json!({
        "type": "code", "path": "src/main.rs", "task_id": "t", "created_by": "a", "content_type": content_type
    });
    let made = caller.post("/api/v1/artifacts", &body).await.expect(201).data();
    made["id"].as_str().expect("an id").to_owned()
}

fn content(id: &str) -> String {
    format!("/api/v1/artifacts/{id}/content")
}

/// A request of this caller, with a body as it is.
fn request(
    caller: &Caller,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    let cookies: Vec<_> = ["session", "csrf_token"]
        .iter()
        .filter_map(|name| caller.cookie(name).map(|value| format!("{name}={value}")))
        .collect();
    request = request.header("cookie", cookies.join("; "));
    if let Some(csrf) = caller.cookie("csrf_token") {
        request = request.header("x-csrf-token", csrf);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a sound request")
}

/// Uploads a body as it is.
async fn put(caller: &Caller, id: &str, bytes: impl Into<Body>) -> Answer {
    let headers = [("content-type", "application/x-whatever")];
    caller.raw(request(caller, Method::PUT, &content(id), &headers, bytes.into())).await
}

/// Uploads a form with these parts: name, name of the file if it is one, bytes.
async fn put_form(caller: &Caller, id: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    caller.raw(request(caller, Method::PUT, &content(id), &headers, form(parts).into())).await
}

fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, file, bytes) in parts {
        let file =
            file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: text/html")).unwrap_or_default();
        form.extend(format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        form.extend(*bytes);
        form.extend(b"\r\n");
    }
    form.extend(b"--XX--\r\n");
    form
}

/// Downloads with these headers.
async fn download(caller: &Caller, id: &str, headers: &[(&str, &str)]) -> Answer {
    caller.raw(request(caller, Method::GET, &content(id), headers, Body::empty())).await
}

/// What an artifact says of itself.
async fn about(caller: &mut Caller, id: &str) -> Value {
    caller.get(&format!("/api/v1/artifacts/{id}")).await.expect(200).data()
}

/// Names of the files in the folder of the contents.
fn files(server: &TestServer) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(server.db.artifacts()) else { return Vec::new() };
    let mut names: Vec<_> =
        folder.map(|entry| entry.unwrap().file_name().into_string().expect("a plain name")).collect();
    names.sort();
    names
}

/// Another copy of the program where the database can have one.
async fn elsewhere(server: &TestServer) -> Option<TestServer> {
    if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None }
}
