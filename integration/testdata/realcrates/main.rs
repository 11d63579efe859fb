//! Uses every crate that the test publishes, directly or through others, and
//! prints one JSON object that the test computes for itself.

use byteorder::{BigEndian, ByteOrder};
use bytes::{Buf, BufMut, BytesMut};
use itertools::Itertools;
use serde::{Deserialize, Serialize};
use std::hash::Hasher;
use std::io::Write;

lazy_static::lazy_static! {
    static ref WORD: regex::Regex = regex::Regex::new(r"(?i)\b[a-z]{4,}\b").unwrap();
}
static TEXT: once_cell::sync::Lazy<&str> =
    once_cell::sync::Lazy::new(|| "The log holds every record, and every record holds the Log.");

bitflags::bitflags! {
    struct Modes: u32 { const READ = 4; const WRITE = 2; }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0} is not a number")]
    NotANumber(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Crate {
    crate_name: String,
    version: semver::Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<String>,
    features: indexmap::IndexMap<String, Vec<String>>,
}

#[derive(Serialize)]
struct Answer {
    manifest: Crate,
    words: indexmap::IndexMap<String, usize>,
    longest: String,
    factorial: String,
    zlib: String,
    fnv: String,
    big_endian: u32,
    seconds: u64,
    modes: u32,
    failure: String,
    sum: u64,
    distinct: usize,
    pretty: String,
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::NotANumber(text.into()))
}

fn words() -> indexmap::IndexMap<String, usize> {
    let mut counts = indexmap::IndexMap::new();
    for word in WORD.find_iter(&TEXT) {
        *counts.entry(word.as_str().to_lowercase()).or_insert(0) += 1;
    }
    counts
}

fn zlib(data: &[u8]) -> anyhow::Result<String> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data)?;
    Ok(base64::encode(encoder.finish()?))
}

fn sum_in_threads() -> u64 {
    let sum = parking_lot::Mutex::new(0u64);
    std::thread::scope(|scope| {
        for i in 1..=10 {
            let sum = &sum;
            scope.spawn(move || *sum.lock() += i);
        }
    });
    sum.into_inner()
}

fn random_is_reproducible() -> bool {
    use num_bigint::RandBigInt;
    use rand::SeedableRng;
    let draw = || rand::rngs::StdRng::seed_from_u64(7).gen_biguint(256);
    draw() == draw()
}

fn main() -> anyhow::Result<()> {
    use anyhow::Context;
    log::set_max_level(log::LevelFilter::Info);
    log::info!("nobody listens");
    let input = std::env::args().nth(1).context("no manifest given")?;
    let manifest: Crate = serde_json::from_str(&input).context("manifest")?;
    anyhow::ensure!(semver::VersionReq::parse("^1.2")?.matches(&manifest.version), "version");
    anyhow::ensure!(random_is_reproducible(), "random numbers");

    let mut hasher = fnv::FnvHasher::default();
    hasher.write(TEXT.as_bytes());
    let mut buffer = BytesMut::new();
    buffer.put_u8(1);
    buffer.put_slice(&hex::decode("0a0b0c0d")?);
    buffer.advance(1);
    let words = words();
    let lengths: smallvec::SmallVec<[usize; 8]> = words.keys().map(String::len).collect();
    let distinct: hashbrown::HashSet<usize> = lengths.into_iter().collect();

    let answer = Answer {
        longest: words.keys().sorted_by_key(|w| (std::cmp::Reverse(w.len()), w.to_string())).join(" "),
        factorial: (1u32..=40).fold(num_bigint::BigUint::from(1u32), |p, n| p * n).to_string(),
        zlib: zlib(TEXT.as_bytes())?,
        fnv: hex::encode(hasher.finish().to_be_bytes()),
        big_endian: BigEndian::read_u32(&buffer),
        seconds: humantime::parse_duration("1h 2m 3s")?.as_secs(),
        modes: (Modes::READ | Modes::WRITE).bits(),
        failure: number("forty").unwrap_err().to_string(),
        sum: sum_in_threads(),
        distinct: distinct.len(),
        pretty: serde_json::to_value(&manifest)?.as_object().context("object")?.keys().join(","),
        manifest,
        words,
    };
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
