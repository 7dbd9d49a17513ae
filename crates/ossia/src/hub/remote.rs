//! What a repository holds, as its server describes it, and which of its files make a model.
//! The description comes from outside: names become paths and hashes become file names, so both are checked before use.

use super::cache::Repo;
use super::digest::Digest;
use super::download::Pauses;
use super::error::HubError;
use super::http::{Client, is_transient, refused, shown};
use super::layout::{describe, is_gguf};
use super::pull::{Progress, PullOptions};
use serde::Deserialize;

/// The largest description that is read.
const MAX_LISTING: u64 = 16 << 20;

/// A repository at one commit.
#[derive(Deserialize)]
pub(super) struct Listing {
    /// The commit, 40 hex digits.
    #[serde(rename = "sha")]
    pub commit: String,
    siblings: Vec<Sibling>,
    #[serde(skip)]
    url: String,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: Option<u64>,
}

/// A file to fetch.
#[derive(Debug)]
pub(super) struct RemoteFile {
    /// Relative to the repository, checked.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// What its content must be.
    pub digest: Digest,
}

/// The files of a model, and where among them the model is: a folder or a file, relative to the repository.
pub(super) struct Choice {
    pub files: Vec<RemoteFile>,
    pub model: String,
}

impl Listing {
    /// Asks the endpoint for the newest commit's files and their hashes.
    pub fn fetch(client: &Client, repo: &Repo) -> Result<Self, HubError> {
        let url = client.url(&format!("api/models/{}/revision/main?blobs=true", repo.id()));
        let answer = client.get(&url, 0)?;
        if answer.status().as_u16() != 200 {
            return Err(refused(&url, answer.status().as_u16()));
        }
        let body = answer.into_body().into_with_config().limit(MAX_LISTING).read_to_vec();
        let body = body.map_err(|error| HubError::Network { url: shown(&url), reason: error.to_string() })?;
        Self::parse(&body, &shown(&url))
    }

    fn parse(json: &[u8], url: &str) -> Result<Self, HubError> {
        let problem = |problem: String| HubError::Listing { url: url.to_owned(), problem };
        let mut listing: Listing =
            serde_json::from_slice(json).map_err(|e| problem(format!("the description cannot be read: {e}")))?;
        listing.url = url.to_owned();
        if !matches!(Digest::parse(&listing.commit), Some(Digest::GitBlob(_))) {
            return Err(problem(format!("wanted a commit of 40 hex digits, found {:?}", listing.commit)));
        }
        match listing.siblings.iter().find(|file| !is_safe(&file.rfilename)) {
            Some(file) => Err(problem(format!("{:?} is no name for a file below a folder", file.rfilename))),
            None => Ok(listing),
        }
    }

    /// The files that `options` ask for.
    pub fn choose(&self, repo: &Repo, options: &PullOptions) -> Result<Choice, HubError> {
        let names: Vec<&str> = self.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let (chosen, model) = choose(&names, repo.id(), options)?;
        let files = self.siblings.iter().filter(|file| chosen.contains(&file.rfilename.as_str()));
        Ok(Choice { files: files.map(|file| self.file(file)).collect::<Result<_, _>>()?, model })
    }

    fn file(&self, file: &Sibling) -> Result<RemoteFile, HubError> {
        let hash = file.lfs.as_ref().map(|lfs| &lfs.sha256).or(file.blob.as_ref());
        let digest =
            hash.and_then(|hex| Digest::parse(hex)).filter(|d| file.lfs.is_none() || matches!(d, Digest::Sha256(_)));
        let size = file.lfs.as_ref().and_then(|lfs| lfs.size).or(file.size);
        match (digest, size) {
            (Some(digest), Some(size)) => Ok(RemoteFile { path: file.rfilename.clone(), size, digest }),
            _ => {
                let problem = format!("{} comes without a size or a hash, so it could not be verified", file.rfilename);
                Err(HubError::Listing { url: self.url.clone(), problem })
            }
        }
    }
}

/// The address of a file at a commit.
pub(super) fn file_url(client: &Client, repo: &Repo, commit: &str, path: &str) -> String {
    client.url(&format!("{}/resolve/{commit}/{}", repo.id(), encode(path)))
}

/// Names to fetch and the model's place among them.
fn choose<'n>(names: &[&'n str], repo: &str, options: &PullOptions) -> Result<(Vec<&'n str>, String), HubError> {
    let missing =
        |wanted: &str| HubError::NoFile { repo: repo.to_owned(), wanted: wanted.to_owned(), found: describe(names) };
    let all =
        |keep: &dyn Fn(&str) -> bool| -> Vec<&'n str> { names.iter().copied().filter(|name| keep(name)).collect() };
    if let Some(file) = &options.file {
        let one = all(&|name| name == file);
        return if one.is_empty() { Err(missing(file)) } else { Ok((one, file.clone())) };
    }
    if options.original {
        let files = all(&|name| name.starts_with("original/"));
        return if files.is_empty() { Err(missing("original/ folder")) } else { Ok((files, "original".to_owned())) };
    }
    let files = all(&is_of_model);
    if files.iter().any(|name| name.ends_with(".safetensors")) {
        return Ok((files, String::new()));
    }
    let ggufs = all(&is_gguf);
    match ggufs[..] {
        [one] => Ok((vec![one], one.to_owned())),
        [] => Err(missing("*.safetensors or *.gguf")),
        _ => Err(HubError::Choose {
            place: repo.to_owned(),
            names: describe(&ggufs),
            todo: "choose one with --file NAME".to_owned(),
        }),
    }
}

/// What the Hugging Face layout needs; a repository may hold the same weights in other forms beside it.
fn is_of_model(name: &str) -> bool {
    let parts = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json"];
    parts.contains(&name) || (name.ends_with(".safetensors") && !name.contains('/'))
}

/// Whether a name from the server stays below the folder that it is joined to, on any system.
fn is_safe(path: &str) -> bool {
    let plain = |c: char| !c.is_control() && !"\\:".contains(c);
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 200;
    path.len() <= 1000 && path.chars().all(plain) && path.split('/').all(part)
}

fn encode(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// [`Listing::fetch`], tried again where that may help.
pub(super) fn fetch_listing(
    client: &Client,
    repo: &Repo,
    pauses: &mut Pauses,
    progress: &mut dyn Progress,
) -> Result<Listing, HubError> {
    loop {
        match Listing::fetch(client, repo) {
            Err(error) if is_transient(&error) && pauses.wait(&error, progress) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Names and descriptions, without a network.
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for path in ["", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/./b", "a\\b", "C:a", "a\0", "a\nb"] {
            assert!(!is_safe(path), "{path:?}");
            let json = serde_json::json!({"sha": "a".repeat(40), "siblings": [{"rfilename": path}]}).to_string();
            assert!(matches!(Listing::parse(json.as_bytes(), "u"), Err(HubError::Listing { .. })), "{path:?}");
        }
        assert!(is_safe("original/model-00000-of-00002.safetensors") && is_safe("..a") && is_safe("a b"));
    }

    #[test]
    fn a_commit_must_be_one() {
        for commit in ["", "main", "../../x", &"A".repeat(40), &"a".repeat(64)] {
            let json = serde_json::json!({"sha": commit, "siblings": []}).to_string();
            assert!(Listing::parse(json.as_bytes(), "u").is_err(), "{commit}");
        }
    }

    #[test]
    fn the_right_files_are_chosen() {
        let names = [
            "README.md",
            "config.json",
            "tokenizer.json",
            "model-0.safetensors",
            "original/model.safetensors",
            "metal/model.bin",
        ];
        let options = |original, file: Option<&str>| PullOptions { original, file: file.map(str::to_owned) };
        let pick = |names: &[&'static str], o: PullOptions| choose(names, "a/b", &o).map_err(|e| e.to_string());
        let (files, model) = pick(&names, options(false, None)).unwrap();
        assert_eq!((files, model.as_str()), (vec!["config.json", "tokenizer.json", "model-0.safetensors"], ""));
        let (files, model) = pick(&names, options(true, None)).unwrap();
        assert_eq!((files, model.as_str()), (vec!["original/model.safetensors"], "original"));
        assert_eq!(pick(&["a.gguf", "README.md"], options(false, None)).unwrap().1, "a.gguf");
        assert!(pick(&["a.gguf", "b.gguf"], options(false, None)).unwrap_err().contains("--file"));
        assert_eq!(pick(&["a.gguf", "b.gguf"], options(false, Some("b.gguf"))).unwrap().0, ["b.gguf"]);
        assert!(pick(&names, options(false, Some("c.gguf"))).unwrap_err().contains("has no c.gguf"));
        assert!(pick(&["README.md"], options(true, None)).unwrap_err().contains("has no original/"));
    }

    #[test]
    fn a_file_needs_a_hash_and_a_size() {
        let with = |file: serde_json::Value| {
            let json = serde_json::json!({"sha": "a".repeat(40), "siblings": [file]}).to_string();
            Listing::parse(json.as_bytes(), "u").and_then(|l| l.file(&l.siblings[0]).map(|f| (f.size, f.digest)))
        };
        let (sha, blob) = ("b".repeat(64), "c".repeat(40));
        let lfs = serde_json::json!({"rfilename": "x", "size": 9, "blobId": blob, "lfs": {"oid": sha, "size": 9}});
        assert_eq!(with(lfs).unwrap(), (9, Digest::Sha256(sha)));
        assert_eq!(
            with(serde_json::json!({"rfilename": "x", "size": 0, "blobId": blob})).unwrap(),
            (0, Digest::GitBlob(blob.clone()))
        );
        for bad in [
            serde_json::json!({"rfilename": "x", "size": 9}),
            serde_json::json!({"rfilename": "x", "blobId": blob}),
            serde_json::json!({"rfilename": "x", "size": 9, "lfs": {"sha256": "../../x"}}),
            serde_json::json!({"rfilename": "x", "size": 9, "lfs": {"sha256": blob}}),
        ] {
            assert!(with(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("a b/c?#%.gguf"), "a%20b/c%3F%23%25.gguf");
    }
}
