//! A program that needs many crates, to be built from a registry.

use std::io::{Read, Write};

use anyhow::Context;
use clap::Parser;
use futures::StreamExt;
use itertools::Itertools;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::Digest;
use unicode_segmentation::UnicodeSegmentation;

#[derive(Parser)]
struct Options {
    /// A manifest whose dependencies are told.
    #[arg(long)]
    manifest: std::path::PathBuf,
    /// What is fetched, if anything.
    #[arg(long)]
    fetch: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    dependencies: indexmap::IndexMap<String, toml::Value>,
}

#[derive(Serialize)]
struct Answer {
    dependencies: usize,
    sha256: String,
    factorial: String,
    words: usize,
    squares: u64,
    colours: String,
    graphemes: usize,
    unpacked: String,
    host: String,
    newer: bool,
    files: usize,
    sum: u64,
    failure: String,
    fetched: usize,
}

#[derive(strum::Display, strum::EnumIter)]
enum Colour {
    Red,
    Green,
}

#[derive(derive_more::From, derive_more::Add)]
struct Metres(u64);

#[derive(Debug, thiserror::Error)]
#[error("{0} is not a number")]
struct NotANumber(String);

#[async_trait::async_trait]
trait Source {
    async fn next(&self, n: u64) -> u64;
}

struct Doubled;

#[async_trait::async_trait]
impl Source for Doubled {
    async fn next(&self, n: u64) -> u64 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        2 * n
    }
}

#[tracing::instrument]
fn words(text: &str) -> usize {
    regex::Regex::new(r"(?i)\b[a-z]{4,}\b").unwrap().find_iter(text).map(|m| m.as_str().to_lowercase()).unique().count()
}

fn packed(text: &str) -> anyhow::Result<String> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(text.as_bytes())?;
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packer.finish()?[..]).read_to_string(&mut unpacked)?;
    Ok(unpacked)
}

fn files() -> anyhow::Result<usize> {
    let folder = tempfile::tempdir()?;
    let mut table = csv::Writer::from_path(folder.path().join(uuid::Uuid::new_v4().to_string()))?;
    table.write_record(["a", &rand::random::<u8>().to_string()])?;
    table.flush()?;
    Ok(walkdir::WalkDir::new(folder.path()).into_iter().filter_map(Result::ok).filter(|e| e.file_type().is_file()).count())
}

fn fetched(url: &Option<String>) -> anyhow::Result<usize> {
    let Some(url) = url else { return Ok(0) };
    Ok(ureq::get(url).call()?.into_string()?.len())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    env_logger::init();
    const TEXT: &str = "The log holds every record, and every record holds the Log.";
    let options = Options::parse();
    let manifest: Manifest = toml::from_str(&std::fs::read_to_string(&options.manifest).context("the manifest")?)?;
    log::info!("{} dependencies", manifest.dependencies.len());
    let all = parking_lot::Mutex::new(smallvec::SmallVec::<[u64; 4]>::new());
    futures::stream::iter(1..=10).for_each(|n| {
        let all = &all;
        async move {
            let value = Doubled.next(n).await;
            all.lock().push(value);
        }
    }).await;
    let Metres(sum) = Metres::from(all.lock().iter().sum::<u64>()) + Metres(0);
    let answer = Answer {
        dependencies: manifest.dependencies.len(),
        sha256: sha2::Sha256::digest(TEXT).iter().map(|b| format!("{b:02x}")).collect(),
        factorial: (1u32..=30).map(num_bigint::BigUint::from).product::<num_bigint::BigUint>().to_string(),
        words: words(TEXT),
        squares: (1u64..=1000).into_par_iter().map(|n| n * n).sum(),
        colours: <Colour as strum::IntoEnumIterator>::iter().map(|c| c.to_string()).join(" "),
        graphemes: "e\u{301}a".graphemes(true).count(),
        unpacked: packed(TEXT)?,
        host: url::Url::parse("https://Example.org:443/a")?.host_str().unwrap_or("").to_owned(),
        newer: semver::VersionReq::parse("^1.2")?.matches(&semver::Version::parse("1.10.0")?),
        files: files()?,
        sum,
        failure: NotANumber("forty".into()).to_string(),
        fetched: fetched(&options.fetch)?,
    };
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
