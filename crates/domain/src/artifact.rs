//! Artifacts: what comes out of a task, described here and kept as bytes elsewhere.

use std::fmt;
use std::ops::Deref;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Error;
use crate::project::{MAX_DESCRIPTION, MAX_ID};
pub use crate::task::ArtifactType;
use crate::text::{Bounded, NotBlank};

/// Largest content of one artifact, in bytes.
pub const MAX_BYTES: u64 = 52_428_800;
/// Most bytes of the contents of all artifacts together.
pub const MAX_TOTAL_BYTES: u64 = 1_073_741_824;
/// Most characters of a path.
pub const MAX_PATH: usize = 1024;
/// Most characters of a content type.
pub const MAX_CONTENT_TYPE: usize = 256;
/// The type of content nobody has named.
pub const UNNAMED_TYPE: &str = "application/octet-stream";

/// Types that are served as such: none of them runs in a browser.
const SERVED: [&str; 15] = [
    UNNAMED_TYPE,
    "application/json",
    "application/pdf",
    "application/xml",
    "application/zip",
    "application/gzip",
    "application/x-tar",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "text/plain",
    "text/csv",
    "text/xml",
    "text/markdown",
];

/// Id of an artifact: `artifact-` and 32 hexadecimal digits. The only text that names of files are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ArtifactId(String);

impl ArtifactId {
    /// An id nobody has.
    pub fn fresh() -> Self {
        Self(format!("artifact-{}", Uuid::new_v4().simple()))
    }

    /// Reads an id; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("artifact-")?;
        is_hex(digits).then(|| Self(text.to_owned()))
    }
}

impl Deref for ArtifactId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of the content of one upload: that of its artifact, and what tells it from the uploads before and
/// after. Bytes under a name never change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentName {
    artifact: ArtifactId,
    version: String,
}

impl ContentName {
    /// A name for a new upload.
    pub fn fresh(artifact: ArtifactId) -> Self {
        Self { artifact, version: Uuid::new_v4().simple().to_string() }
    }

    /// The name with this version; `None` unless it is 32 hexadecimal digits.
    pub fn new(artifact: ArtifactId, version: String) -> Option<Self> {
        is_hex(&version).then_some(Self { artifact, version })
    }

    /// Reads a name; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (artifact, version) = text.split_once('.')?;
        Self::new(ArtifactId::parse(artifact)?, version.to_owned())
    }

    /// The artifact it is of.
    pub fn artifact(&self) -> &ArtifactId {
        &self.artifact
    }

    /// What tells it from other uploads.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Display for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.artifact, self.version)
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What came out of a task.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Artifact {
    /// `artifact-` and 32 hexadecimal digits.
    #[schema(value_type = String)]
    pub id: ArtifactId,
    /// What it is.
    pub r#type: ArtifactType,
    /// Where it belongs, in words of whoever made it; never a path of the server.
    #[schema(value_type = String, min_length = 1, max_length = 1024)]
    pub path: NotBlank<MAX_PATH>,
    /// The task it came out of.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub task_id: NotBlank<MAX_ID>,
    /// Who made it.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub created_by: NotBlank<MAX_ID>,
    /// More words.
    #[schema(value_type = String, max_length = 4096)]
    pub description: Bounded<MAX_DESCRIPTION>,
    /// The project it belongs to.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub project_id: Option<NotBlank<MAX_ID>>,
    /// Type of the content; empty before the first upload unless it was named.
    #[schema(value_type = String, max_length = 256)]
    pub content_type: Bounded<MAX_CONTENT_TYPE>,
    /// Size of the content; 0 without any.
    pub size_bytes: u64,
    /// Since when it is known.
    pub created_at: DateTime<Utc>,
}

/// A new artifact, without its content.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = CreateArtifactRequest)]
pub struct NewArtifact {
    /// What it is.
    pub r#type: ArtifactType,
    /// Where it belongs.
    #[schema(value_type = String, min_length = 1, max_length = 1024, pattern = r"\S")]
    pub path: NotBlank<MAX_PATH>,
    /// The task it came out of; need not be known.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S")]
    pub task_id: NotBlank<MAX_ID>,
    /// Who made it.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S")]
    pub created_by: NotBlank<MAX_ID>,
    /// More words.
    #[serde(default)]
    #[schema(value_type = String, max_length = 4096, default = "")]
    pub description: Bounded<MAX_DESCRIPTION>,
    /// The project it belongs to.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    pub project_id: Option<NotBlank<MAX_ID>>,
    /// Type of the content to come.
    #[serde(default)]
    #[schema(value_type = String, max_length = 256, default = "")]
    pub content_type: Bounded<MAX_CONTENT_TYPE>,
}

impl Artifact {
    /// An artifact with an id of its own and no content yet.
    pub fn new(new: NewArtifact, now: DateTime<Utc>) -> Self {
        let NewArtifact { r#type, path, task_id, created_by, description, project_id, content_type } = new;
        Self {
            id: ArtifactId::fresh(),
            r#type,
            path,
            task_id,
            created_by,
            description,
            project_id,
            content_type,
            size_bytes: 0,
            created_at: now,
        }
    }

    /// The type its content is served as: its own if that is harmless, without parameters.
    pub fn served_type(&self) -> &'static str {
        let named = self.content_type.split(';').next().unwrap_or_default().trim();
        SERVED.into_iter().find(|served| named.eq_ignore_ascii_case(served)).unwrap_or(UNNAMED_TYPE)
    }
}

/// 404/3000: no such artifact.
pub fn unknown(id: &str) -> Error {
    Error::missing("Artifact", id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_and_names_are_plain() {
        let id = ArtifactId::fresh();
        assert_eq!(ArtifactId::parse(&id).as_ref(), Some(&id));
        let name = ContentName::fresh(id.clone());
        assert_eq!(ContentName::parse(&name.to_string()).as_ref(), Some(&name));
        let digits = "0123456789abcdef0123456789abcdef";
        for wrong in [
            digits.to_owned(),
            format!("artifact-{}", &digits[1..]),
            format!("artifact-{digits}0"),
            format!("artifact-{}", digits.to_uppercase()),
            format!("artifact-{digits}\n"),
            format!("../artifact-{digits}"),
            format!("artifact-{}/..", &digits[3..]),
            "artifact-".to_owned(),
            String::new(),
        ] {
            assert_eq!(ArtifactId::parse(&wrong), None, "{wrong:?}");
        }
        for wrong in [id.to_string(), format!("{id}."), format!("{name}.tmp"), format!("{id}.{digits}/")] {
            assert_eq!(ContentName::parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_harmless_types_are_served_as_such() {
        let served = |content_type: &str| {
            let new = json!({
                "type": "code", "path": "p", "task_id": "t", "created_by": "a", "content_type": content_type
            });
            Artifact::new(serde_json::from_value(new).unwrap(), DateTime::default()).served_type()
        };
        assert_eq!(served("text/plain"), "text/plain");
        assert_eq!(served(" Text/CSV ; charset=utf-8"), "text/csv");
        for harmful in [
            "",
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/javascript",
            "text/plain,text/html",
            "text/html;text/plain",
            "multipart/form-data",
            "text/plain\r\nX: y",
        ] {
            assert_eq!(served(harmful), UNNAMED_TYPE, "{harmful:?}");
        }
    }
}
